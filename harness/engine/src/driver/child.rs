//! An agent's process: its start, its end, its last words.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex as AsyncMutex;

use super::lines::Tail;
use crate::process::GroupLeader;

/// How long the process may take to end once its input was closed, and again once it was told to.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long after the end of its output the process may take to be gone, and the other way round.
/// Both come at once when a process ends; one without the other is a fault worth telling.
pub(super) const EXIT_PATIENCE: Duration = Duration::from_secs(1);
/// How long stderr is read after the process's end.
const STDERR_PATIENCE: Duration = Duration::from_millis(200);

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// The exit code; absent if a signal ended it, or it did not end by itself.
    pub(super) code: Option<i32>,
    /// The whole of it, as a clause: "it exited with code 7".
    pub(super) words: String,
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        let words = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with code {code}"),
            (None, Some(number)) => {
                let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
                format!("it was killed by {name} ({number})")
            }
            (None, None) => status.to_string(),
        };
        Self {
            code: status.code(),
            words,
        }
    }
}

/// A process that leads its own group.
#[derive(Debug)]
pub(super) struct AgentProcess {
    leader: AsyncMutex<GroupLeader>,
    pid: Option<u32>,
    stderr: Tail,
    ending: OnceLock<Ending>,
}

impl AgentProcess {
    /// Starts it in a group of its own, with pipes.
    pub(super) fn spawn(command: &mut Command) -> io::Result<(Arc<Self>, ChildStdin, ChildStdout)> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = child.id();
        let leader = AsyncMutex::new(GroupLeader::new(child));
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("no pipes"));
        };
        let stderr = Tail::start(stderr);
        let process = Self {
            leader,
            pid,
            stderr,
            ending: OnceLock::new(),
        };
        Ok((Arc::new(process), stdin, stdout))
    }

    /// Its id, which is another one's once it was waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Waits until the process itself is gone, whoever may still hold its pipes.
    pub(super) async fn gone(&self) {
        let Ok(mut changes) = signal(SignalKind::child()) else {
            // Without the signal the end of the output has to do.
            return std::future::pending().await;
        };
        loop {
            if !matches!(self.leader.lock().await.child().try_wait(), Ok(None)) {
                return;
            }
            changes.recv().await;
        }
    }

    /// Tells how the process has ended, once its output has.
    pub(super) async fn ended(&self) -> Ending {
        let mut leader = self.leader.lock().await;
        let ending = match tokio::time::timeout(EXIT_PATIENCE, leader.child().wait()).await {
            Ok(Ok(status)) => status.into(),
            Ok(Err(error)) => Ending {
                code: None,
                words: format!("nobody knows how: {error}"),
            },
            Err(_) => Ending {
                code: None,
                words: "it closed its output, but did not exit".to_owned(),
            },
        };
        drop(leader);
        self.ending.get_or_init(|| ending).clone()
    }

    /// Waits for its end; past [`END_PATIENCE`] it is told to end, past it again it is killed.
    pub(super) async fn end(&self) {
        self.leader.lock().await.end(END_PATIENCE).await;
    }

    /// Kills it alone, as a crash would.
    pub(super) async fn crash(&self) -> io::Result<()> {
        self.leader.lock().await.kill_child().await.map(|_| ())
    }

    /// Kills it with its group for what it did; `why` is told as its end.
    pub(super) async fn condemn(&self, why: String) {
        self.ending.get_or_init(|| Ending {
            code: None,
            words: why,
        });
        self.leader.lock().await.end(Duration::ZERO).await;
    }

    /// How it ended, if that was seen.
    pub(super) fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }

    /// The end of what it wrote to stderr.
    pub(super) async fn last_words(&self) -> String {
        self.stderr.text(STDERR_PATIENCE).await
    }
}
