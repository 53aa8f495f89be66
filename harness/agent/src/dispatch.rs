//! The task that takes submissions, one after the other.

use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{CallId, SubmissionId, TurnId};
use cutpoint_protocol::session::{AbortReason, EventMsg, InputItem, Op};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::caller_ids::CallerIdError;
use crate::defect::Defect;
use crate::events::SubmissionResult;
use crate::lock;
use crate::rollout::LineDraft;
use crate::session::QueuedSubmission;
use crate::session_core::{ActiveTurn, SessionCore, Turn};
use crate::sub_agent::Review;
use crate::turn;
use crate::turn_task::{Compact, ModelTurn, TurnTask, UserShell};

/// Takes submissions and starts and aborts turns. As it does one thing at a time, a second
/// interrupt finds the first one's work done.
pub(crate) struct Dispatcher {
    pub(crate) core: Arc<SessionCore>,
    queue: mpsc::Receiver<QueuedSubmission>,
    /// The running turn's task, if there is one. Dropped with the dispatcher, and so ended with it.
    pub(crate) task: JoinSet<()>,
    /// For planted defects: the last turn, and whether an interrupt ended it just now.
    pub(crate) last: Option<Arc<Turn>>,
    pub(crate) just_interrupted: bool,
}

impl Dispatcher {
    pub(crate) fn new(core: Arc<SessionCore>, queue: mpsc::Receiver<QueuedSubmission>) -> Self {
        Self {
            core,
            queue,
            task: JoinSet::new(),
            last: None,
            just_interrupted: false,
        }
    }

    /// Works until the client shuts the session down.
    pub(crate) async fn run(mut self) {
        if self.core.config.resume.is_some() && self.core.has(Defect::RequestOnResume) {
            turn::stray_request(&self.core).await;
        }
        loop {
            let queued = tokio::select! {
                biased;
                Some(ended) = self.task.join_next() => {
                    if let Err(error) = ended {
                        self.crashed(&error.to_string()).await;
                    }
                    continue;
                }
                queued = self.queue.recv() => queued,
            };
            let Some(queued) = queued else {
                return;
            };
            self.core.hooks.point("submission.taken").await;
            if self.handle(queued).await {
                return;
            }
        }
    }

    /// Returns whether the session is over.
    async fn handle(&mut self, queued: QueuedSubmission) -> bool {
        let QueuedSubmission { submission, only } = queued;
        let id = submission.id;
        if let Op::UserInput { items, .. } | Op::UserTurn { items, .. } = &submission.op
            && says_nothing(items)
        {
            let message = "the input is empty".to_owned();
            self.core.events.refuse(&id, message).await;
            return false;
        }
        match submission.op {
            Op::UserInput { items, turn_id } => self.user_input(&id, &items, turn_id).await,
            Op::UserTurn { items, turn_id } => {
                // An id that can't be had must not cost the running turn its life.
                if let Ok(turn_id) = self.claim(&id, turn_id).await {
                    let old = self.last.clone();
                    let replaced = self.abort(AbortReason::Replaced).await;
                    self.start_turn(&id, turn_id, &items).await;
                    let late = replaced && self.core.has(Defect::ReplacedTooLate);
                    if let Some(old) = old.filter(|_| late) {
                        self.tell(&old, AbortReason::Replaced).await;
                    }
                }
            }
            Op::UserShell { command } => self.user_shell(&id, command).await,
            Op::Compact => {
                self.abort(AbortReason::Replaced).await;
                self.start(&id, Arc::new(Compact)).await;
            }
            Op::Fork => self.fork(&id).await,
            Op::Rollback { turns } => self.rollback(&id, turns).await,
            Op::Interrupt => {
                if self.is_other(only.as_ref()) || !self.interrupt().await {
                    self.core.events.answer(&id, SubmissionResult::Idle).await;
                }
            }
            Op::ExecApproval { call_id, decision } => self.approval(&call_id, decision).await,
            Op::PatchApproval { call_id, decision } => self.approval(&call_id, decision).await,
            Op::UserInputAnswer { call_id, answers } => {
                self.user_input_answer(&call_id, answers).await;
            }
            Op::Review { prompt } => {
                self.abort(AbortReason::Replaced).await;
                self.start(&id, Arc::new(Review::new(prompt))).await;
            }
            Op::Shutdown => {
                self.shutdown(&id).await;
                return true;
            }
            op => {
                let op = serde_json::to_value(&op).unwrap_or_default();
                let name = op["type"].as_str().unwrap_or("without a type");
                let message = format!("the agent does not know the op `{name}`");
                self.core
                    .events
                    .emit(&id, EventMsg::Error { message })
                    .await;
            }
        }
        false
    }

    /// Whether an interrupt names a turn other than the running one.
    fn is_other(&self, only: Option<&TurnId>) -> bool {
        let state = lock(&self.core.state);
        let active = state.active.as_ref();
        only.is_some_and(|only| active.is_some_and(|active| active.turn.id != *only))
    }

    /// Takes the id that the caller wants for a new turn, if it wants one. One that can't be had is
    /// refused.
    async fn claim(
        &self,
        id: &SubmissionId,
        wanted: Option<TurnId>,
    ) -> Result<Option<TurnId>, CallerIdError> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let claimed = {
            let mut state = lock(&self.core.state);
            state.turn_ids.claim(&wanted, self.core.config.defects)
        };
        if let Err(fault) = &claimed {
            self.core.events.refuse(id, fault.to_string()).await;
        }
        claimed.map(Some)
    }

    /// Input joins the running turn, or starts one.
    async fn user_input(&mut self, id: &SubmissionId, items: &[InputItem], wanted: Option<TurnId>) {
        let core = Arc::clone(&self.core);
        core.hooks.point("input.join").await;
        let running = {
            let mut state = lock(&core.state);
            state.active.as_mut().map(|active| {
                if wanted.is_none() {
                    active.input.push(user_message(items));
                }
                active.turn.id.clone()
            })
        };
        match running {
            // A caller that names the turn relies on a turn of that name.
            Some(turn_id) if wanted.is_some() => {
                let message =
                    format!("input for the running turn {turn_id} can't give it another id");
                core.events.refuse(id, message).await;
            }
            Some(mut turn_id) => {
                if core.has(Defect::PhantomTurn) {
                    turn_id = core.rng.id();
                }
                core.events
                    .answer(id, SubmissionResult::Joined { turn_id })
                    .await;
            }
            None => {
                if let Ok(turn_id) = self.claim(id, wanted).await {
                    self.start_turn(id, turn_id, items).await;
                }
            }
        }
    }

    async fn start_turn(
        &mut self,
        id: &SubmissionId,
        turn_id: Option<TurnId>,
        items: &[InputItem],
    ) {
        let input = user_message(items);
        let task = Arc::new(ModelTurn { input });
        match turn_id {
            Some(turn_id) => self.start_as(id, turn_id, task).await,
            None => self.start(id, task).await,
        }
    }

    /// A command of the user's replaces what runs.
    async fn user_shell(&mut self, id: &SubmissionId, command: String) {
        if command.trim().is_empty() || command.contains('\0') {
            let message = "the command is empty or has a NUL character in it".to_owned();
            let error = EventMsg::Error { message };
            return self.core.events.emit(id, error).await;
        }
        self.abort(AbortReason::Replaced).await;
        let call_id = {
            let mut state = lock(&self.core.state);
            state.user_commands += 1;
            CallId::from(format!("user-shell-{}", state.user_commands))
        };
        self.start(id, Arc::new(UserShell { call_id, command }))
            .await;
    }

    /// Starts a turn for the submission `id`. What ran before must have been aborted.
    pub(crate) async fn start(&mut self, id: &SubmissionId, task: Arc<dyn TurnTask>) {
        let turn_id = self.core.rng.id();
        self.start_as(id, turn_id, task).await;
    }

    /// The same with this id for the turn.
    async fn start_as(&mut self, id: &SubmissionId, turn_id: TurnId, task: Arc<dyn TurnTask>) {
        // A turn that is just finishing says so before the next one starts.
        self.task_ended().await;
        self.just_interrupted = false;
        let core = &self.core;
        let mut started = None;
        let recorded = core
            .record(|state| {
                let turn = Arc::new(Turn::new(id, turn_id.clone(), state.history.len()));
                task.take_up(&turn);
                state.turn_ids.note(&turn_id);
                state.active = Some(ActiveTurn {
                    turn: Arc::clone(&turn),
                    task: Arc::clone(&task),
                    input: Vec::new(),
                });
                let cwd = core.config.cwd.display().to_string();
                let mut drafts = vec![
                    LineDraft::turn_started(&turn_id),
                    LineDraft::turn_context(&turn_id, &cwd, &core.config.model),
                ];
                if let Some(item) = task.opening() {
                    drafts.extend(LineDraft::opening(&turn_id, item));
                    turn.joined(item);
                    state.history.open_turn(&turn_id, item.clone());
                }
                state
                    .late_marker
                    .take()
                    .into_iter()
                    .for_each(|marker| state.history.push(marker));
                started = Some(turn);
                drafts
            })
            .await;
        let Some(turn) = started else {
            return core.report(id, recorded).await;
        };
        self.last = Some(Arc::clone(&turn));
        core.events
            .emit(id, EventMsg::TurnStarted { turn_id })
            .await;
        if let Err(fault) = recorded {
            if let Some(active) = core.take(&turn) {
                turn::failed(core, active, fault.to_string()).await;
            }
            return;
        }
        core.hooks.point("turn.spawn").await;
        let work = turn::run(Arc::clone(core), turn, task);
        self.task
            .spawn(SessionCore::until_killed(core.life.clone(), work));
    }

    /// For a planted defect: drops what was submitted and not yet looked at.
    pub(crate) fn clear_queue(&mut self) {
        while self.queue.try_recv().is_ok() {}
    }

    /// Waits for the running turn's task, which must be on its way to its end.
    pub(crate) async fn task_ended(&mut self) {
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended {
                self.crashed(&error.to_string()).await;
            }
        }
    }

    /// The turn's task panicked or was stopped: its turn must not stay open.
    async fn crashed(&mut self, error: &str) {
        let active = lock(&self.core.state).active.take();
        if let Some(active) = active {
            let message = format!("the turn's task broke down: {error}");
            turn::failed(&self.core, active, message).await;
        }
    }

    async fn shutdown(&mut self, id: &SubmissionId) {
        lock(&self.core.state).shutting_down = true;
        self.abort(AbortReason::Interrupted).await;
        self.task_ended().await;
        self.core.hooks.point("shutdown.flush").await;
        let flushed = self.core.recorder.flush().await;
        self.core.report(id, flushed).await;
        self.core.events.emit(id, EventMsg::ShutdownComplete).await;
    }
}

/// Whether there is nothing in it that the model could read: the API refuses an empty message.
fn says_nothing(items: &[InputItem]) -> bool {
    let blank = |InputItem::Text { text }: &InputItem| text.trim().is_empty();
    items.iter().all(blank)
}

/// One message for all items of a submission.
fn user_message(items: &[InputItem]) -> Item {
    if let [InputItem::Text { text }] = items {
        return Item::user_text(text);
    }
    let texts = items.iter().map(|InputItem::Text { text }| text);
    let parts: Vec<Value> = texts
        .map(|text| json!({"type": "input_text", "text": text}))
        .collect();
    let message = json!({"type": "message", "role": "user", "content": parts});
    Item::from_value(message).unwrap_or_else(|_| Item::user_text(""))
}
