//! A session: how it starts, how it is spoken to, how it is killed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cutpoint_protocol::Item;
use cutpoint_protocol::session::{AbortReason, Event, EventMsg, Submission};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Chance, Clock};
use crate::config::Config;
use crate::defect::Defect;
use crate::dispatch::Dispatcher;
use crate::events::Events;
use crate::history::{self, History};
use crate::parts::Parts;
use crate::probe::Hooks;
use crate::rollout::resume::{Restored, restore};
use crate::rollout::{Draft, Recorder, RolloutStore, Start, WriteFault, Writer};
use crate::shared::{Core, State};

/// How many submissions wait at most.
const SUBMISSIONS: usize = 64;

/// Why a session did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The rollout could not be created, or not be opened.
    #[error("the rollout at {path} can't be used: {error}")]
    Rollout {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The rollout could not be written.
    #[error("{0}")]
    Write(String),
}

/// The session has ended and takes no more submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Closed;

/// A running session. Dropping it kills it.
#[derive(Debug)]
pub struct Session {
    id: String,
    rollout_path: PathBuf,
    submissions: mpsc::Sender<Submission>,
    life: CancellationToken,
    root: JoinHandle<()>,
}

/// A rollout that is ready to be gone on with.
struct Opened {
    session_id: String,
    rollout_path: PathBuf,
    restored: Restored,
    recorder: Recorder,
    writer: Writer,
    is_new: bool,
}

impl Session {
    /// Starts a session, new or resumed, on the current runtime. The first event is
    /// `session_configured`.
    ///
    /// # Errors
    /// If the rollout can't be used.
    pub async fn start(
        config: Config,
        parts: Parts,
    ) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let clock = Clock::new(config.epoch);
        let hooks = Hooks::new(parts.probe.clone());
        let life = CancellationToken::new();
        let opened = open(&config, parts.store.as_ref(), clock, &hooks).await?;
        // A resumed session must not give the ids once more that the seed gave before,
        // and a new one not the id that became the session's.
        let seed = (config.seed ^ opened.restored.next_ordinal.rotate_left(32)).wrapping_add(1);
        let (sender, events) = mpsc::channel(config.event_queue.max(1));
        let (submissions, queue) = mpsc::channel(SUBMISSIONS);
        let core = Arc::new(Core {
            session_id: opened.session_id.clone(),
            hooks: hooks.clone(),
            events: Events::new(sender, hooks, life.clone()),
            recorder: opened.recorder,
            model: parts.model,
            tools: parts.tools,
            chance: Chance::new(seed, clock),
            life: life.clone(),
            state: Mutex::new(State::default()),
            config,
        });
        let mut session = Self {
            id: opened.session_id,
            rollout_path: opened.rollout_path,
            submissions,
            root: tokio::spawn(Core::until_killed(life.clone(), opened.writer.run())),
            life,
        };
        begin(&core, opened.restored, opened.is_new)
            .await
            .map_err(|fault| StartError::Write(fault.to_string()))?;
        let configured = EventMsg::SessionConfigured {
            session_id: session.id.clone(),
            rollout_path: session.rollout_path.display().to_string(),
        };
        core.events.emit_now("", configured);
        let dispatcher = Dispatcher::new(core, queue);
        session.root = tokio::spawn(Core::until_killed(session.life.clone(), dispatcher.run()));
        Ok((session, events))
    }

    /// Queues a submission, waiting for room.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn submit(&self, submission: Submission) -> Result<(), Closed> {
        self.submissions.send(submission).await.map_err(|_| Closed)
    }

    /// Where the session's rollout is.
    pub fn rollout_path(&self) -> &Path {
        &self.rollout_path
    }

    /// The session's id.
    pub fn session_id(&self) -> &str {
        &self.id
    }

    /// Ends the session as SIGKILL ends a process: no task of it runs on, nothing further is
    /// written or sent. On another thread of the runtime, a task may still finish the step it is
    /// in, as a process finishes its system call.
    pub fn kill(self) {
        // Dropping does it.
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.life.cancel();
        self.root.abort();
    }
}

async fn open(
    config: &Config,
    store: &dyn RolloutStore,
    clock: Clock,
    hooks: &Hooks,
) -> Result<Opened, StartError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Rollout { path, error }
    };
    hooks.point("rollout.open").await;
    let (mut file, content, fresh_id) = match &config.resume {
        Some(path) => {
            let (file, content) = store.open(path).await.map_err(at(path))?;
            (file, content, None)
        }
        None => {
            let id = Chance::new(config.seed, clock).id();
            let name = format!("rollout-{}-{id}.jsonl", clock.file_stamp());
            let file = store.create(&name).await.map_err(at(&config.rollout_dir))?;
            (file, Vec::new(), Some(id))
        }
    };
    let restored = restore(&content);
    if restored.keep_bytes < content.len() {
        let keep = restored.keep_bytes as u64;
        let cut = file.truncate(keep).await;
        cut.map_err(at(file.path()))?;
    }
    let rollout_path = file.path().to_owned();
    let known = restored.session_id.clone();
    let (recorder, writer) = Writer::new(Start {
        file,
        ordinal: restored.next_ordinal,
        repair: if restored.lacks_newline { b"\n" } else { b"" },
        clock,
        hooks: hooks.clone(),
        defects: config.defects,
        content: content[..restored.keep_bytes].to_vec(),
    });
    Ok(Opened {
        is_new: known.is_none(),
        session_id: known
            .or(fresh_id)
            .unwrap_or_else(|| Chance::new(config.seed, clock).id()),
        rollout_path,
        restored,
        recorder,
        writer,
    })
}

/// Takes up what the rollout told: open calls are answered as aborted, an open turn is closed as
/// interrupted. Nobody has asked for an interrupt, so no marker is added: one that is there already
/// stays.
async fn begin(core: &Core, restored: Restored, is_new: bool) -> Result<(), WriteFault> {
    let mut items = restored.items;
    if core.has(Defect::MarkerLostOnResume) {
        items.retain(|item| !cutpoint_protocol::marker::is_marker(item));
    }
    let mut drafts = Vec::new();
    if is_new {
        let cwd = core.config.cwd.display().to_string();
        drafts.push(Draft::session_meta(&core.session_id, &cwd));
    }
    for (call_id, kind) in history::open_calls(&items) {
        let output = Item::output(kind, &call_id, history::ABORTED);
        drafts.push(Draft::item(&output));
        items.push(output);
    }
    if let Some(turn_id) = restored.open_turn {
        drafts.push(if core.has(Defect::ResumedAsComplete) {
            Draft::turn_complete(&turn_id, None)
        } else {
            Draft::turn_aborted(&turn_id, AbortReason::Interrupted)
        });
    }
    core.record(|state| {
        state.history = History::new(history::paired(items));
        drafts
    })
    .await?;
    core.recorder.flush().await
}
