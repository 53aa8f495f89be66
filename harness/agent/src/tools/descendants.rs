//! Finding what a tool has started, wherever it has gone.
//!
//! A process can leave its group (`setsid`) and its parent (by outliving it), but it keeps the
//! environment it was started with. So each tool gets a variable of its own, and what carries it
//! belongs to the tool. A process that clears its environment as well gets away.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable's name.
pub(super) const VARIABLE: &str = "CUTPOINT_TOOL";
/// A process that starts others all the time could go on for ever; this ends the chase.
const ROUNDS: usize = 8;

/// A value that no other tool has.
#[derive(Debug)]
pub(super) struct ProcessTag(String);

impl ProcessTag {
    pub(super) fn new() -> Self {
        Self(format!(
            "{:016x}{:016x}",
            fastrand::u64(..),
            fastrand::u64(..)
        ))
    }

    pub(super) fn value(&self) -> &str {
        &self.0
    }

    /// Kills everything that carries the tag, until nothing does.
    pub(super) fn kill_all(&self) {
        for _ in 0..ROUNDS {
            let found = self.carriers();
            if found.is_empty() {
                return;
            }
            for pid in found {
                // One that is gone already is what is wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// The processes that carry the tag. Where there is no `/proc`, none are found. A process that
    /// was killed has an empty environment, so it is not found again.
    fn carriers(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_on(*pid)).collect()
    }

    fn is_on(&self, pid: i32) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
            return false;
        };
        let wanted = format!("{VARIABLE}={}", self.0);
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    }
}
