//! Tools as processes, each in a process group of its own.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::{
    AbandonMode, Disk, Files, RunningTool, ToolCommand, ToolEvent, ToolRunner, descendants,
};

/// How much is read at once.
const PIECE_BYTES: usize = 8 << 10;
/// How long output is awaited after the tool itself has ended: its last words are in the pipe
/// already, and what its children print later nobody waits for.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long a killed process may take to be gone.
const REAP: Duration = Duration::from_secs(1);

/// Runs tools as processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessTools;

#[async_trait]
impl ToolRunner for ProcessTools {
    fn files(&self) -> &dyn Files {
        &Disk
    }

    async fn spawn(&self, command: ToolCommand) -> io::Result<Box<dyn RunningTool>> {
        let [program, arguments @ ..] = command.argv.as_slice() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no program is named",
            ));
        };
        let tag = descendants::ProcessTag::new();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .env(descendants::VARIABLE, tag.value())
            .current_dir(&command.cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        let output = child.stdout.take();
        let errors = child.stderr.take();
        Ok(Box::new(Process {
            watchdog: group.and_then(|group| Watchdog::start(group, &tag)),
            group: Group {
                id: group,
                tag,
                killed: false,
            },
            child,
            output,
            errors,
            exited: None,
        }))
    }
}

/// Everything that a tool has started. Dropping it kills what is left.
struct Group {
    id: Option<i32>,
    tag: descendants::ProcessTag,
    /// Once the group is gone, its id may be given to another one.
    killed: bool,
}

impl Group {
    fn kill(&mut self) {
        if std::mem::replace(&mut self.killed, true) {
            return;
        }
        if let Some(id) = self.id {
            // A group that is gone already is what is wanted.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        self.tag.kill_all();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A shell in the tool's group that waits for the agent's end of a pipe to be closed and then kills
/// the group, itself included: so nothing outlives an agent that is killed. A tool that goes on to
/// another group is out of its reach.
struct Watchdog {
    child: Child,
    _pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(group: i32, tag: &descendants::ProcessTag) -> Option<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -KILL 0"])
            .env(descendants::VARIABLE, tag.value())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(group)
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let pipe = child.stdin.take();
        Some(Self { child, _pipe: pipe })
    }
}

struct Process {
    // The order matters as it is the order of dropping: the group goes before its watchdog.
    group: Group,
    watchdog: Option<Watchdog>,
    child: Child,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    /// The tool's own exit code and when it was seen; children of it may still hold the pipes.
    exited: Option<(Option<i32>, Instant)>,
}

impl Process {
    /// What the pipes give before the deadline; `None` when both are at their end.
    async fn read(&mut self) -> Option<Bytes> {
        let (output, errors) = (&mut self.output, &mut self.errors);
        loop {
            if output.is_none() && errors.is_none() {
                return None;
            }
            let bytes = tokio::select! {
                bytes = piece(output) => bytes,
                bytes = piece(errors) => bytes,
            };
            if let Some(bytes) = bytes {
                return Some(bytes);
            }
        }
    }

    async fn reap(&mut self) {
        let watchdog = self.watchdog.take();
        let _ = tokio::time::timeout(REAP, async {
            let _ = self.child.wait().await;
            if let Some(mut watchdog) = watchdog {
                let _ = watchdog.child.wait().await;
            }
        })
        .await;
    }
}

/// The next bytes of a pipe; at its end, or when it breaks, the pipe is closed and there are none.
async fn piece(pipe: &mut Option<impl AsyncRead + Unpin>) -> Option<Bytes> {
    let Some(open) = pipe else {
        return std::future::pending().await;
    };
    let mut bytes = BytesMut::with_capacity(PIECE_BYTES);
    match open.read_buf(&mut bytes).await {
        Ok(1..) => Some(bytes.freeze()),
        _ => {
            *pipe = None;
            None
        }
    }
}

#[async_trait]
impl RunningTool for Process {
    fn pid(&self) -> Option<u32> {
        self.group.id.and_then(|id| u32::try_from(id).ok())
    }

    async fn next(&mut self) -> ToolEvent {
        loop {
            if let Some((code, since)) = self.exited {
                let until = since + LAST_WORDS;
                match tokio::time::timeout_at(until, self.read()).await {
                    // A process that prints all the time has no last words.
                    Ok(Some(bytes)) if Instant::now() < until => return ToolEvent::Output(bytes),
                    _ => {
                        self.group.kill();
                        self.reap().await;
                        return ToolEvent::Exited(code);
                    }
                }
            }
            if self.output.is_none() && self.errors.is_none() {
                let status = self.child.wait().await;
                self.exited = Some((status.ok().and_then(|status| status.code()), Instant::now()));
                continue;
            }
            let (output, errors, child) = (&mut self.output, &mut self.errors, &mut self.child);
            let bytes = tokio::select! {
                biased;
                bytes = piece(output) => bytes,
                bytes = piece(errors) => bytes,
                status = child.wait() => {
                    self.exited = Some((status.ok().and_then(|status| status.code()), Instant::now()));
                    None
                }
            };
            if let Some(bytes) = bytes {
                return ToolEvent::Output(bytes);
            }
        }
    }

    async fn kill(&mut self) -> Bytes {
        self.group.kill();
        self.reap().await;
        // With every writer dead the pipes end; the bound is for one that got away.
        let mut rest = BytesMut::new();
        let _ = tokio::time::timeout(LAST_WORDS, async {
            while let Some(bytes) = self.read().await {
                rest.extend_from_slice(&bytes);
            }
        })
        .await;
        rest.freeze()
    }

    fn abandon(self: Box<Self>, how: AbandonMode) {
        if let Some(id) = self.group.id.map(Pid::from_raw) {
            // One that is gone already can't be ended.
            let _ = match how {
                AbandonMode::Running => Ok(()),
                AbandonMode::ChildKilled => kill(id, Signal::SIGKILL),
                AbandonMode::AskedToEnd => killpg(id, Signal::SIGTERM),
            };
        }
        std::mem::forget(self);
    }
}
