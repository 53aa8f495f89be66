//! The one task that writes a rollout, and the handle through which the session reaches it.

use std::io;
use std::time::Duration;

use cutpoint_protocol::rollout::{RolloutLine, write_line};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{LineDraft, RolloutFile};
use crate::clock::Clock;
use crate::defect::{Defect, DefectSet};
use crate::probe::Hooks;

/// How many commands wait for the writer at most.
const QUEUE: usize = 64;
/// How many bytes a disk that refuses writes may leave waiting.
const BACKLOG_LIMIT_BYTES: usize = 32 << 20;
/// For a planted defect: how long a sync is taken to cover what is written after it.
const LATELY: Duration = Duration::from_secs(1);

/// The rollout could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rollout could not be written: {0}")]
pub(crate) struct RolloutWriteError(String);

/// What planted defects do to the lines of one append.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AppendDefects {
    /// Leave out the line break after the first line.
    pub(crate) torn: bool,
    /// Skip an ordinal before the last line.
    pub(crate) skip: bool,
    /// Write the whole file anew afterwards.
    pub(crate) rewrite: bool,
    /// Do not wait until the lines are written.
    pub(crate) unawaited: bool,
}

enum WriterCommand {
    Append {
        drafts: Vec<LineDraft>,
        append_defects: AppendDefects,
        ack: oneshot::Sender<Result<(), RolloutWriteError>>,
    },
    Flush {
        ack: oneshot::Sender<Result<(), RolloutWriteError>>,
    },
}

/// Says when one append or one flush is done.
pub(crate) struct Ack(oneshot::Receiver<Result<(), RolloutWriteError>>);

impl Ack {
    pub(crate) async fn done(self) -> Result<(), RolloutWriteError> {
        self.0.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> RolloutWriteError {
    RolloutWriteError("its writer has stopped".to_owned())
}

/// The session's handle on the writer.
#[derive(Debug)]
pub(crate) struct Recorder {
    commands: mpsc::Sender<WriterCommand>,
}

/// Room for one command. What is given to it is written in the order in which it was given, so the
/// session can change its history and queue the lines for it in one step under its lock.
pub(crate) struct AppendPermit<'a>(mpsc::Permit<'a, WriterCommand>);

impl AppendPermit<'_> {
    pub(crate) fn append(self, drafts: Vec<LineDraft>, append_defects: AppendDefects) -> Ack {
        let (ack, done) = oneshot::channel();
        self.0.send(WriterCommand::Append {
            drafts,
            append_defects,
            ack,
        });
        Ack(done)
    }
}

impl Recorder {
    pub(crate) async fn slot(&self) -> Result<AppendPermit<'_>, RolloutWriteError> {
        self.commands
            .reserve()
            .await
            .map(AppendPermit)
            .map_err(|_| stopped())
    }

    /// A barrier: returns when everything appended before it is written and synced.
    pub(crate) async fn flush(&self) -> Result<(), RolloutWriteError> {
        let slot = self.slot().await?;
        let (ack, done) = oneshot::channel();
        slot.0.send(WriterCommand::Flush { ack });
        Ack(done).done().await
    }
}

/// How the writer starts.
pub(crate) struct WriterStart {
    pub(crate) file: Box<dyn RolloutFile>,
    /// For a planted defect: a file beside the rollout, which is synced in its place.
    pub(crate) lock_file: Option<Box<dyn RolloutFile>>,
    /// The ordinal of the next line.
    pub(crate) ordinal: u64,
    /// What must be written before the next line: a line break that a crash cut off.
    pub(crate) repair: &'static [u8],
    pub(crate) clock: Clock,
    pub(crate) hooks: Hooks,
    pub(crate) defects: DefectSet,
    /// What the file holds, for the defect that writes it anew.
    pub(crate) content: Vec<u8>,
}

/// Writes all of a rollout that this session does not continue, and syncs it.
pub(crate) async fn write_whole(
    file: Box<dyn RolloutFile>,
    clock: Clock,
    hooks: Hooks,
    drafts: Vec<LineDraft>,
) -> io::Result<()> {
    let (_, mut writer) = Writer::new(WriterStart {
        file,
        lock_file: None,
        ordinal: 0,
        repair: b"",
        clock,
        hooks,
        defects: DefectSet::default(),
        content: Vec::new(),
    });
    let appended = writer.append(drafts, AppendDefects::default()).await;
    appended.map_err(io::Error::other)?;
    writer.flush().await
}

/// The writer's side.
pub(crate) struct Writer {
    start: WriterStart,
    commands: mpsc::Receiver<WriterCommand>,
    /// Bytes that the file has not taken yet. After a failed write its rest stays here, so that
    /// the next write completes the torn line instead of starting another after it.
    backlog: Vec<u8>,
    dirty: bool,
    /// For a planted defect: when the file was last synced.
    synced: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(start: WriterStart) -> (Recorder, Self) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let writer = Self {
            backlog: start.repair.to_vec(),
            start,
            commands,
            dirty: false,
            synced: None,
        };
        (Recorder { commands: sender }, writer)
    }

    /// Works until every handle is gone.
    pub(crate) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            match command {
                WriterCommand::Append {
                    drafts,
                    append_defects,
                    ack,
                } => {
                    let result = self.append(drafts, append_defects).await;
                    let _ = ack.send(result);
                }
                WriterCommand::Flush { ack } => {
                    let result = self.flush().await;
                    let _ = ack.send(result.map_err(|error| RolloutWriteError(error.to_string())));
                }
            }
        }
    }

    async fn append(
        &mut self,
        drafts: Vec<LineDraft>,
        append_defects: AppendDefects,
    ) -> Result<(), RolloutWriteError> {
        if self.backlog.len() > BACKLOG_LIMIT_BYTES {
            return Err(RolloutWriteError(
                "the disk refuses writes, and too much waits for it already".to_owned(),
            ));
        }
        let last = drafts.len().saturating_sub(1);
        let timestamp = self.start.clock.timestamp();
        for (at, draft) in drafts.into_iter().enumerate() {
            if append_defects.skip && at == last {
                self.start.ordinal += 1;
            }
            let ordinal = self.start.ordinal;
            self.start.ordinal += 1;
            write_line(
                &mut self.backlog,
                &timestamp,
                ordinal,
                draft.kind,
                &draft.payload,
            );
            if !(append_defects.torn && at == 0) {
                self.backlog.push(b'\n');
            }
        }
        let mut result = self.drain().await;
        if append_defects.rewrite && result.is_ok() {
            result = self.rewrite().await;
        }
        result.map_err(|error| RolloutWriteError(error.to_string()))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.drain().await?;
        if self.dirty {
            self.start.hooks.point("rollout.sync").await;
            let lately = self.synced.is_some_and(|at| at.elapsed() < LATELY);
            if lately && self.start.defects.contains(Defect::SyncsOnceASecond) {
                return Ok(());
            }
            if !self.start.defects.contains(Defect::NoSync) {
                let file = self.start.lock_file.as_mut();
                file.unwrap_or(&mut self.start.file).sync().await?;
            }
            self.synced = Some(Instant::now());
            self.dirty = false;
        }
        Ok(())
    }

    async fn drain(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() {
            self.start.hooks.point("rollout.write").await;
            let written = self.start.file.write(&self.backlog).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.dirty = true;
            if self.start.defects.contains(Defect::RewritesRollout) {
                self.start
                    .content
                    .extend_from_slice(&self.backlog[..written]);
            }
            self.backlog.drain(..written.min(self.backlog.len()));
        }
        Ok(())
    }

    /// The planted defect: the same lines with other timestamps, in the same file.
    async fn rewrite(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.start.content).into_owned();
        let anew = text.lines().map(|line| match RolloutLine::parse(line) {
            Ok(line) => {
                RolloutLine {
                    timestamp: "1970-01-01T00:00:00.000Z".to_owned(),
                    ..line
                }
                .to_json()
                    + "\n"
            }
            Err(_) => line.to_owned() + "\n",
        });
        self.backlog = anew.collect::<String>().into_bytes();
        self.start.content.clear();
        self.start.file.truncate(0).await?;
        self.drain().await
    }
}
