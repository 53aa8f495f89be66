//! Processes that a run started: finding them, and ending them by id.
//!
//! A process belongs to a run if it carries the run's mark in its environment, and to a case if it
//! works in the case's directory. Both survive what breaks a process tree apart: a parent that
//! exits, a new session, a new process group. Nothing is ever found or ended by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use cutpoint_trace::Process;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// The environment variable that marks what a run has started.
pub const RUN_VARIABLE: &str = "CUTPOINT_RUN";

/// The environment variable that names the model that a program is to ask for.
pub const MODEL_VARIABLE: &str = "CUTPOINT_MODEL";

/// How long a process may take to be gone once it was sent SIGKILL.
const KILLED_LIMIT: Duration = Duration::from_secs(5);

/// How the processes of a run or a case are recognized.
#[derive(Debug, Clone)]
pub enum ProcessOwner {
    /// To the run with this mark.
    Run(String),
    /// To the case that works below this directory.
    Case(PathBuf),
}

/// The living processes that belong, without this one, by process id.
pub fn find(belongs: &ProcessOwner) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    let mut found: Vec<Process> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own && is_one(*pid, belongs))
        .filter_map(describe)
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn is_one(pid: u32, belongs: &ProcessOwner) -> bool {
    match belongs {
        ProcessOwner::Case(directory) => {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        }
        ProcessOwner::Run(mark) => {
            let wanted = format!("{RUN_VARIABLE}={mark}");
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        }
    }
}

/// Reads a process's parent and command line; `None` if it is gone or has exited already.
fn describe(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields are counted from its end.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let ppid = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = command
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    Some(Process {
        pid,
        ppid,
        command: words.join(" ").trim_end().to_owned(),
    })
}

/// Kills all processes that belong to it, and again until nothing is left or `limit` has passed. Gives what is
/// still there.
pub async fn kill_all(belongs: &ProcessOwner, limit: Duration) -> Vec<Process> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let alive = find(belongs);
        kill_each(&alive, belongs);
        if alive.is_empty() || tokio::time::Instant::now() >= deadline {
            return alive;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills all processes that belong to it, once, without waiting: for the last moments of this process.
pub fn kill_now(belongs: &ProcessOwner) {
    kill_each(&find(belongs), belongs);
}

fn kill_each(processes: &[Process], belongs: &ProcessOwner) {
    for process in processes {
        // Looked at again, because an id may have been taken by another process meanwhile.
        if is_one(process.pid, belongs)
            && let Ok(pid) = i32::try_from(process.pid)
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A child that leads its own process group, killed with the group when this is dropped.
#[derive(Debug)]
pub struct GroupLeader {
    child: Child,
    group: Option<Pid>,
}

impl GroupLeader {
    /// Takes a child that was spawned with `process_group(0)`.
    pub fn new(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            child,
            group: id.map(Pid::from_raw),
        }
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends SIGKILL to the child alone, as a crash would, and reaps it.
    pub async fn kill_child(&mut self) -> std::io::Result<ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }

    /// Waits for the child to end by itself; past `patience` the group gets SIGTERM, past it again
    /// SIGKILL.
    pub async fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if let Ok(status) = tokio::time::timeout(patience, self.child.wait()).await {
                return status.ok();
            }
            self.signal_group(signal);
        }
        // Not even SIGKILL ends a process that hangs in the kernel; the harness must not hang with it.
        tokio::time::timeout(KILLED_LIMIT, self.child.wait())
            .await
            .ok()?
            .ok()
    }

    fn signal_group(&self, signal: Signal) {
        // The group is named by the leader's id, which stays taken until the leader is reaped.
        if let Some(group) = self.group.filter(|_| self.child.id().is_some()) {
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for GroupLeader {
    fn drop(&mut self) {
        self.signal_group(Signal::SIGKILL);
    }
}

/// A path as the kernel spells it, so that it can be compared with `/proc/*/cwd`.
pub fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a process's command line holds the wanted one.
pub fn holds_command(process: &Process, wanted: &str) -> bool {
    !wanted.is_empty() && process.command.contains(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_case_finds_and_ends_what_left_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let home = real_path(dir.path());
        // `setsid` leaves group and session; the parent exits, so the tree is broken as well.
        let script = "setsid sleep 300 & echo started";
        let output = tokio::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::null())
            .current_dir(&home)
            .status()
            .await
            .unwrap();
        assert!(output.success());
        let belongs = ProcessOwner::Case(home);
        assert!(
            find(&belongs)
                .iter()
                .any(|process| holds_command(process, "sleep 300"))
        );
        assert_eq!(kill_all(&belongs, Duration::from_secs(5)).await, []);
    }

    #[tokio::test]
    async fn a_dropped_leader_takes_its_group_along() {
        let dir = tempfile::tempdir().unwrap();
        let home = real_path(dir.path());
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", "sleep 300 & sleep 300"])
            .current_dir(&home)
            .process_group(0);
        let leader = GroupLeader::new(command.spawn().unwrap());
        let belongs = ProcessOwner::Case(home);
        while find(&belongs).len() < 3 {
            tokio::task::yield_now().await;
        }
        drop(leader);
        while !find(&belongs).is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
