//! A session: how it starts, how it is spoken to, how it is killed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{ConversationId, SubmissionId, TurnId};
use cutpoint_protocol::session::{AbortReason, Event, EventMsg, Op, Submission};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::caller_ids::CallerIds;
use crate::clock::{Clock, SessionRng};
use crate::config::Config;
use crate::defect::Defect;
use crate::dispatch::Dispatcher;
use crate::events::{Events, SubmissionReply};
use crate::history::{self, History};
use crate::probe::Hooks;
use crate::rollout::resume::{RestoredSession, restore};
use crate::rollout::{LineDraft, Recorder, RolloutStore, RolloutWriteError, Writer, WriterStart};
use crate::services::Services;
use crate::session_core::{SessionCore, SessionState};

/// How many submissions wait at most, and how many answers to them.
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
pub struct SessionClosed;

/// A running session. Dropping it kills it.
#[derive(Debug)]
pub struct Session {
    id: ConversationId,
    rollout_path: PathBuf,
    submissions: mpsc::Sender<QueuedSubmission>,
    life: CancellationToken,
    root: JoinHandle<()>,
}

/// Submits to a session as long as that lives.
#[derive(Debug, Clone)]
pub struct Submitter(mpsc::WeakSender<QueuedSubmission>);

impl Submitter {
    /// Queues a submission, waiting for room.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn submit(&self, submission: Submission) -> Result<(), SessionClosed> {
        let only = None;
        let sender = self.0.upgrade().ok_or(SessionClosed)?;
        let queued = QueuedSubmission { submission, only };
        sender.send(queued).await.map_err(|_| SessionClosed)
    }
}

/// Kills a session as SIGKILL does a process; it does not keep the session alive.
#[derive(Debug, Clone, Default)]
pub struct Killer(CancellationToken);

impl Killer {
    /// Returns when the session has been killed.
    pub async fn killed(&self) {
        self.0.cancelled().await;
    }

    /// No task of the session runs on after this; nothing further is written or sent.
    pub fn kill(&self) {
        self.0.cancel();
    }
}

/// A submission on its way to the session.
#[derive(Debug)]
pub(crate) struct QueuedSubmission {
    pub(crate) submission: Submission,
    /// The only turn that an interrupt may abort; any turn unless given.
    pub(crate) only: Option<TurnId>,
}

/// A rollout that is ready to be continued.
struct OpenedRollout {
    session_id: ConversationId,
    rollout_path: PathBuf,
    restored: RestoredSession,
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
        services: Services,
    ) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        Self::start_under(&Killer::default(), config, services).await
    }

    /// The same for a session that can be killed while it starts: what waits for the start has to
    /// be dropped then.
    ///
    /// # Errors
    /// If the rollout can't be used.
    pub async fn start_under(
        killer: &Killer,
        config: Config,
        services: Services,
    ) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        Self::start_with(killer, config, services, None).await
    }

    /// The same, with answers to submissions of which no event tells what became of them.
    pub(crate) async fn start_answering(
        config: Config,
        services: Services,
    ) -> Result<(Self, mpsc::Receiver<Event>, mpsc::Receiver<SubmissionReply>), StartError> {
        let (answer, answers) = mpsc::channel(SUBMISSIONS);
        let killer = Killer::default();
        let (session, events) = Self::start_with(&killer, config, services, Some(answer)).await?;
        Ok((session, events, answers))
    }

    async fn start_with(
        killer: &Killer,
        config: Config,
        services: Services,
        answers: Option<mpsc::Sender<SubmissionReply>>,
    ) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let clock = Clock::new(config.epoch);
        let hooks = Hooks::new(services.probe.clone());
        let life = killer.0.clone();
        let opened = open(&config, services.store.as_ref(), clock, &hooks).await?;
        let seed = seed(&config, &opened);
        let (sender, events) = mpsc::channel(config.event_queue.max(1));
        let (submissions, queue) = mpsc::channel(SUBMISSIONS);
        let core = Arc::new(SessionCore {
            session_id: opened.session_id.clone(),
            hooks: hooks.clone(),
            events: Events::new(sender, hooks, life.clone(), answers),
            recorder: opened.recorder,
            model: services.model,
            store: services.store,
            tools: services.tools,
            clock,
            rng: SessionRng::new(seed, clock),
            life: life.clone(),
            state: Mutex::new(SessionState::default()),
            config,
        });
        let mut session = Self {
            id: opened.session_id,
            rollout_path: opened.rollout_path,
            submissions,
            root: tokio::spawn(SessionCore::until_killed(life.clone(), opened.writer.run())),
            life,
        };
        begin(&core, opened.restored, opened.is_new)
            .await
            .map_err(|fault| StartError::Write(fault.to_string()))?;
        let configured = EventMsg::SessionConfigured {
            session_id: session.id.clone(),
            rollout_path: session.rollout_path.display().to_string(),
        };
        core.events.emit_now(&SubmissionId::default(), configured);
        let dispatcher = Dispatcher::new(core, queue);
        session.root = tokio::spawn(SessionCore::until_killed(
            session.life.clone(),
            dispatcher.run(),
        ));
        Ok((session, events))
    }

    /// Queues a submission, waiting for room.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn submit(&self, submission: Submission) -> Result<(), SessionClosed> {
        self.queue(submission, None).await
    }

    /// Queues an interrupt that aborts no other turn than that one.
    pub(crate) async fn interrupt(
        &self,
        id: SubmissionId,
        only: Option<TurnId>,
    ) -> Result<(), SessionClosed> {
        let op = Op::Interrupt;
        self.queue(Submission { id, op }, only).await
    }

    async fn queue(
        &self,
        submission: Submission,
        only: Option<TurnId>,
    ) -> Result<(), SessionClosed> {
        let queued = QueuedSubmission { submission, only };
        self.submissions
            .send(queued)
            .await
            .map_err(|_| SessionClosed)
    }

    /// A way to submit that does not keep the session alive.
    pub fn submitter(&self) -> Submitter {
        Submitter(self.submissions.downgrade())
    }

    /// Where the session's rollout is.
    pub fn rollout_path(&self) -> &Path {
        &self.rollout_path
    }

    /// The session's id.
    pub fn session_id(&self) -> &ConversationId {
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
) -> Result<OpenedRollout, StartError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Rollout { path, error }
    };
    hooks.point("rollout.open").await;
    let mut lock_file = None;
    let (mut file, content, fresh_id) = match &config.resume {
        Some(path) => {
            let (file, content) = store.open(path).await.map_err(at(path))?;
            (file, content, None)
        }
        None => {
            let named = config.session_id.clone();
            let id = named.unwrap_or_else(|| SessionRng::new(config.seed, clock).id());
            let name = format!("rollout-{}-{id}.jsonl", clock.file_stamp());
            let file = store.create(&name).await.map_err(at(&config.rollout_dir))?;
            if config.defects.contains(Defect::SyncsLockFile) {
                let lock = store.create(&format!("{name}.lock")).await;
                lock_file = Some(lock.map_err(at(&config.rollout_dir))?);
            }
            (file, Vec::new(), Some(id))
        }
    };
    let mut restored = restore(&content);
    let is_torn = restored.keep_bytes < content.len();
    if is_torn && config.defects.contains(Defect::TornTailLosesLine) {
        restored.items.pop();
    }
    if is_torn && !config.defects.contains(Defect::TornTailKept) {
        let keep = restored.keep_bytes as u64;
        let cut = file.truncate(keep).await;
        cut.map_err(at(file.path()))?;
    }
    let rollout_path = file.path().to_owned();
    let known = restored.session_id.clone();
    let (recorder, writer) = Writer::new(WriterStart {
        file,
        lock_file,
        ordinal: if config.defects.contains(Defect::OrdinalsRestart) {
            0
        } else {
            restored.next_ordinal
        },
        repair: if restored.lacks_newline { b"\n" } else { b"" },
        clock,
        hooks: hooks.clone(),
        defects: config.defects,
        content: content[..restored.keep_bytes].to_vec(),
    });
    Ok(OpenedRollout {
        is_new: known.is_none(),
        session_id: known
            .or(fresh_id)
            .unwrap_or_else(|| SessionRng::new(config.seed, clock).id()),
        rollout_path,
        restored,
        recorder,
        writer,
    })
}

/// The seed of a session's ids. A resumed session must not give the ids once more that the seed gave
/// before, and a new one not the id that became the session's.
fn seed(config: &Config, opened: &OpenedRollout) -> u64 {
    let mut seed = config.seed ^ opened.restored.next_ordinal.rotate_left(32);
    // A fork may go on after as many lines as a session did that was resumed before.
    if opened.restored.is_fork
        && let Ok(id) = Uuid::try_parse(&opened.session_id)
    {
        let (high, low) = id.as_u64_pair();
        seed ^= high ^ low;
    }
    seed.wrapping_add(1)
}

/// Takes up what the rollout told: open calls are answered as aborted, an open turn is closed as
/// interrupted. Nobody has asked for an interrupt, so no marker is added: one that is there already
/// stays.
async fn begin(
    core: &SessionCore,
    restored: RestoredSession,
    is_new: bool,
) -> Result<(), RolloutWriteError> {
    let mut items = restored.items;
    if core.has(Defect::MarkerLostOnResume) {
        items.retain(|item| !cutpoint_protocol::marker::is_marker(item));
    }
    if core.has(Defect::ResumeDropsTail) {
        while items.pop_if(|item| item.role() == Some("user")).is_some() {}
    }
    let mut drafts = Vec::new();
    if is_new {
        let cwd = core.config.cwd.display().to_string();
        drafts.push(LineDraft::session_meta(&core.session_id, &cwd, None));
    }
    let mut open = history::open_calls(&items);
    if core.has(Defect::ForkLeavesCallOpen) && restored.is_fork {
        open.clear();
    }
    for (call_id, kind) in open {
        let output = Item::output(kind, &call_id, history::ABORTED);
        drafts.push(LineDraft::item(&output));
        items.push(output);
    }
    if let Some(turn_id) = restored.open_turn
        && !core.has(Defect::ResumedAsRunning)
    {
        drafts.push(if core.has(Defect::ResumedAsComplete) {
            LineDraft::turn_complete(&turn_id, None)
        } else {
            LineDraft::turn_aborted(&turn_id, AbortReason::Interrupted)
        });
    }
    core.record(|state| {
        let commands = items.iter().filter(|item| history::is_user_command(item));
        state.user_commands = commands.count();
        state.history = History::new(history::paired(items), restored.openings);
        state.turn_ids = CallerIds::new(restored.turn_ids);
        drafts
    })
    .await?;
    core.recorder.flush().await
}
