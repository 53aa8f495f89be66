//! The task that takes submissions, one after the other.

use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::session::{AbortReason, EventMsg, InputItem, Op, Submission};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::defect::Defect;
use crate::lock;
use crate::rollout::Draft;
use crate::shared::{Active, Core, Turn};
use crate::turn;

/// Takes submissions and starts and aborts turns. As it does one thing at a time, a second
/// interrupt finds the first one's work done.
pub(crate) struct Dispatcher {
    pub(crate) core: Arc<Core>,
    queue: mpsc::Receiver<Submission>,
    /// The running turn's task, if there is one. Dropped with the dispatcher, and so ended with it.
    pub(crate) task: JoinSet<()>,
    /// For planted defects: the last turn, and whether an interrupt ended it just now.
    pub(crate) last: Option<Arc<Turn>>,
    pub(crate) just_interrupted: bool,
}

impl Dispatcher {
    pub(crate) fn new(core: Arc<Core>, queue: mpsc::Receiver<Submission>) -> Self {
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
            self.stray_request().await;
        }
        loop {
            let submission = tokio::select! {
                biased;
                Some(ended) = self.task.join_next() => {
                    if let Err(error) = ended {
                        self.crashed(&error.to_string()).await;
                    }
                    continue;
                }
                submission = self.queue.recv() => submission,
            };
            let Some(submission) = submission else {
                return;
            };
            self.core.hooks.point("submission.taken").await;
            if self.handle(submission).await {
                return;
            }
        }
    }

    /// Returns whether the session is over.
    async fn handle(&mut self, submission: Submission) -> bool {
        let id = submission.id;
        if let Op::UserInput { items } | Op::UserTurn { items } = &submission.op
            && items.is_empty()
        {
            let message = "the input is empty".to_owned();
            self.core
                .events
                .emit(&id, EventMsg::Error { message })
                .await;
            return false;
        }
        match submission.op {
            Op::UserInput { items } => self.user_input(&id, &items).await,
            Op::UserTurn { items } => {
                self.abort(AbortReason::Replaced).await;
                self.start_turn(&id, &items).await;
            }
            Op::Interrupt => self.interrupt().await,
            Op::ExecApproval { call_id, decision } => self.approval(&call_id, decision).await,
            Op::Shutdown => {
                self.shutdown(&id).await;
                return true;
            }
            Op::Unknown(op) => {
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

    /// Input joins the running turn, or starts one.
    async fn user_input(&mut self, id: &str, items: &[InputItem]) {
        self.core.hooks.point("input.join").await;
        let joined = {
            let mut state = lock(&self.core.state);
            let active = state.active.as_mut();
            active
                .map(|active| active.input.push(user_message(items)))
                .is_some()
        };
        if !joined {
            self.start_turn(id, items).await;
        }
    }

    async fn start_turn(&mut self, id: &str, items: &[InputItem]) {
        // A turn that is just finishing says so before the next one starts.
        self.task_ended().await;
        self.just_interrupted = false;
        let core = &self.core;
        let turn_id = core.chance.id();
        let item = user_message(items);
        let mut started = None;
        let recorded = core
            .record(|state| {
                let turn = Arc::new(Turn::new(id, turn_id.clone(), state.history.len()));
                state.active = Some(Active {
                    turn: Arc::clone(&turn),
                    input: Vec::new(),
                });
                let cwd = core.config.cwd.display().to_string();
                let mut drafts = vec![
                    Draft::turn_started(&turn_id),
                    Draft::turn_context(&turn_id, &cwd, &core.config.model),
                ];
                drafts.extend(Draft::user_input(&turn_id, &item));
                state.history.push(item);
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
        let work = turn::run(Arc::clone(core), turn);
        self.task.spawn(Core::until_killed(core.life.clone(), work));
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

    async fn shutdown(&mut self, id: &str) {
        lock(&self.core.state).shutting_down = true;
        self.abort(AbortReason::Interrupted).await;
        self.task_ended().await;
        self.core.hooks.point("shutdown.flush").await;
        let flushed = self.core.recorder.flush().await;
        self.core.report(id, flushed).await;
        self.core.events.emit(id, EventMsg::ShutdownComplete).await;
    }
}

/// One message for all items of a submission.
fn user_message(items: &[InputItem]) -> Item {
    let texts = items.iter().map(|InputItem::Text { text }| text);
    let parts: Vec<Value> = texts
        .map(|text| json!({"type": "input_text", "text": text}))
        .collect();
    let message = json!({"type": "message", "role": "user", "content": parts});
    Item::from_value(message).unwrap_or_else(|_| Item::user_text(""))
}
