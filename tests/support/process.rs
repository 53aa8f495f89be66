//! Running the program, and looking at what is left of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::HANG;

/// The variable that marks what a test has started: it is inherited.
pub const MARK: &str = "CUTPOINT_TEST_PLACE";

/// The program while it runs.
pub struct Running {
    pid: Pid,
    status: Receiver<ExitStatus>,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (line, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for read in stdout.split(b'\n') {
                let text = String::from_utf8_lossy(&read.unwrap()).into_owned();
                let _ = line.send(text);
            }
        });
        let (text, stderr) = channel();
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).unwrap();
            let _ = text.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        let (ended, status) = channel();
        std::thread::spawn(move || ended.send(child.wait().unwrap()));
        Self {
            pid,
            status,
            lines,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for its next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(HANG).expect("no line came")
    }

    /// Sends a signal. One that has ended already is no failure.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid, signal);
    }

    /// Sends a signal to all of its group, as a terminal does; it has to lead one.
    pub fn signal_group(&self, signal: Signal) {
        let _ = killpg(self.pid, signal);
    }

    /// Waits for its end, and that of its output.
    pub fn wait(self) -> Ended {
        let Ok(status) = self.status.recv_timeout(HANG) else {
            self.signal(Signal::SIGKILL);
            panic!(
                "the program hangs; it printed\n{}",
                self.lines.try_iter().collect::<Vec<_>>().join("\n")
            );
        };
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(HANG) {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let stderr = self.stderr.recv_timeout(HANG).expect("stderr is held open");
        Ended {
            status,
            stdout,
            stderr,
        }
    }
}

impl Ended {
    /// It ended with this code, and it was no panic.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{:?}\n{}",
            self.status.signal(),
            self.all()
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.all());
        self
    }

    /// It said all of this, somewhere, however its lines were broken.
    #[track_caller]
    pub fn says(&self, wanted: &[&str]) -> &Self {
        let said = flowing(&self.all());
        for text in wanted {
            assert!(
                said.contains(&flowing(text)),
                "no {text:?} in\n{}",
                self.all()
            );
        }
        self
    }

    /// It said none of this.
    #[track_caller]
    pub fn never_says(&self, unwanted: &[&str]) -> &Self {
        for text in unwanted {
            assert!(!self.all().contains(text), "{text:?} in\n{}", self.all());
        }
        self
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The text with every run of white space as one space.
fn flowing(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The living processes that were started in a place, with their command lines: they carry its mark
/// or work below it. This looks on its own, not with the means of the program that it tests.
pub fn alive(place: &Path) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && belongs(*pid, place))
        .filter_map(describe)
        .collect()
}

fn belongs(pid: i32, place: &Path) -> bool {
    let works_there =
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(place));
    let mark = format!("{MARK}={}", place.display());
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    works_there
        || environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
}

fn describe(pid: i32) -> Option<(i32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.get(stat.rfind(')')? + 2..)?.chars().next()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    (!matches!(state, 'Z' | 'X')).then_some((pid, command))
}

/// Waits until nothing that was started in a place is alive any more.
pub fn wait_until_gone(place: &Path) {
    let start = Instant::now();
    while !alive(place).is_empty() {
        assert!(start.elapsed() < HANG, "still alive: {:#?}", alive(place));
        std::thread::yield_now();
    }
}

/// Kills what was started in a place, each by its id.
pub fn kill_all(place: &Path) {
    for (pid, _) in alive(place) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
