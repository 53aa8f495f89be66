//! What all parts of a session share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{CallId, ConversationId, ItemId, SubmissionId, TurnId};
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::EventMsg;
use tokio_util::sync::CancellationToken;

use crate::approvals::Approvals;
use crate::caller_ids::CallerIds;
use crate::clock::{Clock, SessionRng};
use crate::config::Config;
use crate::defect::Defect;
use crate::events::Events;
use crate::history::{self, History};
use crate::lock;
use crate::model::ModelClient;
use crate::probe::Hooks;
use crate::rollout::{AppendDefects, LineDraft, Recorder, RolloutStore, RolloutWriteError};
use crate::sub_agent::SubAgents;
use crate::tools::capture::OutputCapture;
use crate::tools::{ToolRunner, call_text};
use crate::turn_task::TurnTask;

/// What all parts of a session share.
pub(crate) struct SessionCore {
    pub(crate) config: Config,
    pub(crate) session_id: ConversationId,
    pub(crate) hooks: Hooks,
    pub(crate) events: Events,
    pub(crate) recorder: Recorder,
    pub(crate) model: Arc<dyn ModelClient>,
    pub(crate) store: Arc<dyn RolloutStore>,
    pub(crate) tools: Arc<dyn ToolRunner>,
    pub(crate) clock: Clock,
    pub(crate) rng: SessionRng,
    /// Ends every task of the session at once.
    pub(crate) life: CancellationToken,
    pub(crate) state: Mutex<SessionState>,
}

/// What changes. It is behind one lock, never held across an await.
#[derive(Default)]
pub(crate) struct SessionState {
    pub(crate) history: History,
    /// The running turn. Taking it out obliges to end it, so finish and abort can't both do so.
    pub(crate) active: Option<ActiveTurn>,
    pub(crate) approvals: Approvals,
    /// How many commands the user has run.
    pub(crate) user_commands: usize,
    /// The ids that the session's turns have had.
    pub(crate) turn_ids: CallerIds<TurnId>,
    /// For a planted defect: a marker that waits for the next user message.
    pub(crate) late_marker: Option<Item>,
    /// For a planted defect: the client has asked for the end of the session.
    pub(crate) shutting_down: bool,
    /// For a planted defect: a routing header that outlived its turn.
    pub(crate) stale_header: Option<String>,
}

/// The running turn, with what was said to it while it ran.
pub(crate) struct ActiveTurn {
    pub(crate) turn: Arc<Turn>,
    /// What kind of work it is.
    pub(crate) task: Arc<dyn TurnTask>,
    /// Input that joins the turn's next request.
    pub(crate) input: Vec<Item>,
}

/// One turn.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The submission that started it.
    pub(crate) submission: SubmissionId,
    pub(crate) id: TurnId,
    pub(crate) token: CancellationToken,
    /// Whether a request was sent.
    pub(crate) requested: AtomicBool,
    /// How long the history was when the turn began.
    pub(crate) history_start: usize,
    pub(crate) progress: Mutex<TurnProgress>,
    /// The sub-agents that its calls have started.
    pub(crate) agents: SubAgents,
}

/// What a turn has in hand. It outlives the turn's task, so that an abort finds it however hard
/// the task was stopped.
#[derive(Debug, Default)]
pub(crate) struct TurnProgress {
    /// Messages that have begun and not ended: their item ids and the texts so far.
    pub(crate) texts: Vec<(ItemId, String)>,
    /// Calls whose outputs are not in the history yet, in the order of the calls.
    pub(crate) calls: Vec<ActiveCall>,
    /// For a planted defect: the call that is being written, and its text so far.
    pub(crate) half_call: Option<(Item, String)>,
    /// For a planted defect: lines that are written when the turn is complete.
    pub(crate) late: Vec<LineDraft>,
    /// What the user said that is in the history, and that the client was not informed of yet.
    pub(crate) unreported: VecDeque<String>,
    pub(crate) last_message: Option<String>,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// What the server wants to be sent with every request of this turn. It ends with the turn as
    /// it is kept nowhere else.
    pub(crate) routing: Option<String>,
}

/// Who wants a command to be run.
#[derive(Debug)]
pub(crate) enum CallOrigin {
    /// The model, by a call of this kind, which is owed an output.
    Model(CallKind),
    /// The user, by this command line. The model learns of it in a message.
    User(String),
}

/// A call in hand.
#[derive(Debug)]
pub(crate) struct ActiveCall {
    pub(crate) call_id: CallId,
    pub(crate) origin: CallOrigin,
    pub(crate) started: bool,
    pub(crate) printed: OutputCapture,
    /// The output, once there is one.
    pub(crate) output: Option<String>,
}

impl ActiveCall {
    pub(crate) fn new(call_id: &CallId, origin: CallOrigin) -> Self {
        Self {
            call_id: call_id.to_owned(),
            origin,
            started: false,
            printed: OutputCapture::default(),
            output: None,
        }
    }

    /// What the history holds of the call's end.
    pub(crate) fn item(&self, output: &str) -> Item {
        match &self.origin {
            CallOrigin::Model(kind) => Item::output(*kind, &self.call_id, output),
            CallOrigin::User(command) => history::user_command(command, output),
        }
    }

    /// The output if the call ends now: its own if it has one.
    pub(crate) fn output_now(&self) -> String {
        let cut = || call_text::aborted(self.started, &self.printed.text());
        self.output.clone().unwrap_or_else(cut)
    }
}

impl Turn {
    pub(crate) fn new(submission: &SubmissionId, id: TurnId, history_start: usize) -> Self {
        Self {
            submission: submission.clone(),
            id,
            token: CancellationToken::new(),
            requested: AtomicBool::new(false),
            history_start,
            progress: Mutex::new(TurnProgress::default()),
            agents: SubAgents::default(),
        }
    }

    pub(crate) fn was_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Notes that a text of the user is in the history.
    pub(crate) fn joined(&self, item: &Item) {
        lock(&self.progress)
            .unreported
            .push_back(item.all_text().to_owned());
    }

    /// Changes a call in hand.
    pub(crate) fn with_call(&self, call_id: &CallId, change: impl FnOnce(&mut ActiveCall)) {
        let mut progress = lock(&self.progress);
        if let Some(call) = progress
            .calls
            .iter_mut()
            .find(|call| call.call_id == *call_id)
        {
            change(call);
        }
    }
}

impl SessionCore {
    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.config.defects.contains(defect)
    }

    /// Changes the state and writes the lines that tell of it, as one step: the history and the
    /// rollout have the same order whoever else records at the same time. Returns when the lines
    /// are written.
    pub(crate) async fn record(
        &self,
        change: impl FnOnce(&mut SessionState) -> Vec<LineDraft>,
    ) -> Result<(), RolloutWriteError> {
        self.record_with(AppendDefects::default(), change).await
    }

    pub(crate) async fn record_with(
        &self,
        append_defects: AppendDefects,
        change: impl FnOnce(&mut SessionState) -> Vec<LineDraft>,
    ) -> Result<(), RolloutWriteError> {
        self.hooks.point("rollout.append").await;
        let slot = self.recorder.slot().await?;
        self.hooks.point("state.lock").await;
        let ack = {
            let mut state = lock(&self.state);
            let drafts = change(&mut state);
            (!drafts.is_empty()).then(|| slot.append(drafts, append_defects))
        };
        match ack {
            Some(ack) if !append_defects.unawaited => ack.done().await,
            _ => Ok(()),
        }
    }

    /// Tells the client when something that must not be lost could not be written.
    pub(crate) async fn report(&self, id: &SubmissionId, result: Result<(), RolloutWriteError>) {
        if let Err(fault) = result {
            let message = fault.to_string();
            self.events.emit(id, EventMsg::Error { message }).await;
        }
    }

    /// Tells the client which texts of the user are in the history by now.
    pub(crate) async fn tell_joined(&self, turn: &Turn) {
        loop {
            let next = lock(&turn.progress).unreported.front().cloned();
            let Some(message) = next else { return };
            let turn_id = turn.id.clone();
            let msg = EventMsg::UserMessage { turn_id, message };
            self.events.emit(&turn.submission, msg).await;
            // A text whose sender is dropped while it waits for room is announced at the end of
            // the turn, so it leaves the list only now.
            lock(&turn.progress).unreported.pop_front();
        }
    }

    /// Takes the turn out of the session, unless an abort was quicker.
    pub(crate) fn take(&self, turn: &Turn) -> Option<ActiveTurn> {
        let mut state = lock(&self.state);
        state.active.take_if(|active| active.turn.id == turn.id)
    }

    /// Runs a future until it ends or the session is killed. Once the session is killed, the future
    /// is not polled again.
    pub(crate) async fn until_killed(
        life: CancellationToken,
        work: impl Future<Output = ()> + Send,
    ) {
        tokio::select! {
            biased;
            () = life.cancelled() => {}
            () = work => {}
        }
    }
}
