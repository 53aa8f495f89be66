//! An agent's process: its start, its end, and the last it wrote to stderr.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::process::GroupLeader;

/// How long the process may take to end once its input was closed, and again once it got SIGTERM.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long after the end of its output the process may take to be gone, and the other way round.
/// Both come at once when a process ends; one without the other is a fault worth reporting.
pub(crate) const EXIT_PATIENCE: Duration = Duration::from_secs(1);
/// How long stderr is read after the process has ended.
const STDERR_PATIENCE: Duration = Duration::from_millis(200);
/// How much of an agent's stderr is kept: its end.
const STDERR_KEPT_BYTES: usize = 4096;

/// How a process ended.
#[derive(Debug, Clone)]
pub(crate) struct ProcessEnd {
    /// The exit code; absent if a signal ended it, or it did not end by itself.
    pub(crate) code: Option<i32>,
    /// The whole of it, as a clause: "it exited with code 7".
    pub(crate) clause: String,
}

impl From<ExitStatus> for ProcessEnd {
    fn from(status: ExitStatus) -> Self {
        let clause = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with code {code}"),
            (None, Some(number)) => {
                let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
                format!("it was killed by {name} ({number})")
            }
            (None, None) => status.to_string(),
        };
        Self {
            code: status.code(),
            clause,
        }
    }
}

impl ProcessEnd {
    fn without_code(clause: impl Into<String>) -> Self {
        Self {
            code: None,
            clause: clause.into(),
        }
    }
}

/// A process that leads its own group.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    leader: AsyncMutex<GroupLeader>,
    pid: Option<u32>,
    stderr: StderrTail,
    end: OnceLock<ProcessEnd>,
}

impl AgentProcess {
    /// Starts it in a group of its own, with pipes.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Arc<Self>, ChildStdin, ChildStdout)> {
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
        let process = Self {
            leader,
            pid,
            stderr: StderrTail::start(stderr),
            end: OnceLock::new(),
        };
        Ok((Arc::new(process), stdin, stdout))
    }

    /// Its id. Once the process was waited for, the id may belong to another one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Waits until the process itself is gone, even if its children still hold its pipes.
    pub(crate) async fn gone(&self) {
        let Ok(mut changes) = signal(SignalKind::child()) else {
            // Without the signal, the end of the output has to do.
            return std::future::pending().await;
        };
        loop {
            if !matches!(self.leader.lock().await.child().try_wait(), Ok(None)) {
                return;
            }
            changes.recv().await;
        }
    }

    /// How the process ended. Called once its output has ended, so it should end right after.
    pub(crate) async fn wait(&self) -> ProcessEnd {
        let mut leader = self.leader.lock().await;
        let end = match tokio::time::timeout(EXIT_PATIENCE, leader.child().wait()).await {
            Ok(Ok(status)) => status.into(),
            Ok(Err(error)) => ProcessEnd::without_code(format!("its end is unknown: {error}")),
            Err(_) => ProcessEnd::without_code("it closed its output, but did not exit"),
        };
        drop(leader);
        self.end.get_or_init(|| end).clone()
    }

    /// Waits for its end; after [`END_PATIENCE`] it gets SIGTERM, after another one SIGKILL.
    pub(crate) async fn end(&self) {
        self.leader.lock().await.end(END_PATIENCE).await;
    }

    /// Kills the process alone, as a crash would, and not its group.
    pub(crate) async fn crash(&self) -> io::Result<()> {
        self.leader.lock().await.kill_child().await.map(|_| ())
    }

    /// Kills the process with its group because it broke a limit; `why` is reported as its end.
    pub(crate) async fn kill_because(&self, why: String) {
        self.end.get_or_init(|| ProcessEnd::without_code(why));
        self.leader.lock().await.end(Duration::ZERO).await;
    }

    /// How it ended, if that was seen.
    pub(crate) fn ending(&self) -> Option<&ProcessEnd> {
        self.end.get()
    }

    /// The end of what it wrote to stderr.
    pub(crate) async fn last_words(&self) -> String {
        self.stderr.text(STDERR_PATIENCE).await
    }
}

/// The last part of a stream, read in the background.
#[derive(Debug)]
struct StderrTail {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: CancellationToken,
    reader: JoinHandle<()>,
}

impl StderrTail {
    fn start(mut from: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (kept, ended) = (Arc::<Mutex<Vec<u8>>>::default(), CancellationToken::new());
        let (into, end) = (kept.clone(), ended.clone().drop_guard());
        let reader = tokio::spawn(async move {
            let _end = end;
            let mut chunk = vec![0; STDERR_KEPT_BYTES];
            while let Ok(read @ 1..) = from.read(&mut chunk).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&chunk[..read]);
                let surplus = kept.len().saturating_sub(STDERR_KEPT_BYTES);
                kept.drain(..surplus);
            }
        });
        Self {
            kept,
            ended,
            reader,
        }
    }

    /// What was read last when the stream ended. A child of the agent may hold the stream open; then
    /// it is what was read within `patience`.
    async fn text(&self, patience: Duration) -> String {
        let _ = tokio::time::timeout(patience, self.ended.cancelled()).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_of_stderr_is_kept() {
        let text = "x".repeat(10_000) + "the end";
        let tail = StderrTail::start(std::io::Cursor::new(text));
        let kept = tail.text(Duration::from_secs(10)).await;
        assert_eq!(kept.len(), STDERR_KEPT_BYTES);
        assert!(kept.ends_with("the end"));
    }

    #[tokio::test]
    async fn an_open_stderr_gives_what_was_read_so_far() {
        let (mut agent, harness) = tokio::io::duplex(64);
        let tail = StderrTail::start(harness);
        tokio::io::AsyncWriteExt::write_all(&mut agent, b"last words")
            .await
            .unwrap();
        while tail.text(Duration::from_millis(1)).await != "last words" {}
    }
}
