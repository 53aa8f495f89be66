//! What the suites over the command line share: a place of their own for each test, the program run
//! under a limit, fake agents, and a look at what is left running.

#![allow(dead_code, reason = "each suite uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod agents;
pub mod damage;
pub mod process;
pub mod upstream;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub use process::{Ended, Running};

/// Far above what anything here takes: whoever reaches it hangs.
pub const HANG: Duration = Duration::from_secs(120);

/// A scenario that ends at once.
pub const QUICK: &str = r#"scenario "quick" {
    model { reply { text "hi" } }
    user "go"
    await turn-complete
}
"#;

/// A scenario with a shell call that is interrupted: breaks a rule with the defect `forget-output`.
pub const INTERRUPTED: &str = r#"scenario "it's interrupted" {
    model {
        reply { shell call_1 "sleep 60" }
        reply { text "What next?" }
    }
    user "run it"
    interrupt at="call_1 running"
    await turn-aborted reason=interrupted
    user "and now?"
    await turn-complete
}
"#;

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of the test's own, in which the program is run. Temporary files of the program go
/// into a folder of it, so that a test sees what is left.
pub struct Place {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("place-").tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(path.join("tmp")).unwrap();
        Self { dir, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap()
    }

    /// The names of the files in a folder, in order.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(folder)).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Writes a shell script. Another process does, because a file that this one has open for
    /// writing while another thread forks cannot be executed for a moment.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path.join(name);
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer
            .stdin
            .take()
            .unwrap()
            .write_all(format!("#!/bin/sh\n{body}\n").as_bytes())
            .unwrap();
        assert!(writer.wait().unwrap().success());
        path
    }

    /// A pipe by which a process of the run tells that it has come so far.
    pub fn signal_pipe(&self, name: &str) -> Pipe {
        let path = self.path.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Pipe { path }
    }

    /// The program, in this place, with nothing of the test's own surroundings in its environment.
    pub fn cutpoint<Word: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = Word>) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_cutpoint"));
        command.args(words);
        command
    }

    /// Another program in the same surroundings.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.path)
            .env("TMPDIR", self.path.join("tmp"))
            .env(process::MARK, &self.path)
            .stdin(Stdio::null());
        for variable in [
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "CI",
            "GITHUB_ACTIONS",
            "CUTPOINT_AGENTS",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the program to its end.
    pub fn run<Word: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = Word>) -> Ended {
        Running::start(&mut self.cutpoint(words)).wait()
    }

    /// Runs the program with no more than so much address space.
    pub fn run_within(&self, mebibytes: u32, words: &[&str]) -> Ended {
        let script = format!("ulimit -v {} && exec \"$0\" \"$@\"", mebibytes * 1024);
        let mut command = self.command("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_cutpoint")])
            .args(words);
        Running::start(&mut command).wait()
    }

    /// Nothing that was started here is alive, and no temporary file is left.
    pub fn assert_clean(&self) {
        let left = process::alive(&self.path);
        assert!(left.is_empty(), "still alive: {left:#?}");
        assert_eq!(self.names("tmp"), [""; 0], "temporary files are left");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed is not to leave processes to those that follow.
        process::kill_all(&self.path);
    }
}

/// A place with one scenario file.
pub fn place_with(source: &str) -> Place {
    let place = Place::new();
    place.file("scenario.kdl", source);
    place
}

/// Where a recording of this project stands.
pub fn recording(name: &str) -> String {
    root().join("recordings").join(name).display().to_string()
}

/// A named pipe to wait on.
pub struct Pipe {
    path: PathBuf,
}

impl Pipe {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until somebody has written a line to it.
    pub fn wait(&self) -> String {
        let (tell, told) = mpsc::channel();
        let path = self.path.clone();
        std::thread::spawn(move || tell.send(fs::read_to_string(path).unwrap()));
        told.recv_timeout(HANG)
            .expect("nobody wrote to the pipe")
            .trim()
            .to_owned()
    }
}

/// Whether mount namespaces can be made here; says so if not.
pub fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"])
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: making a small file system needs root and `unshare`");
    }
    can
}
