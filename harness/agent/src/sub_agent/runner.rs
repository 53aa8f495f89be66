//! A sub-agent at work: its events go to the client, its ops come from calls, until it ends or is
//! cancelled.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::session::{Event, EventMsg, InputItem, Op, SubAgentEnd, Submission};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::agents::SubAgentStatus;
use crate::config::Config;
use crate::defect::Defect;
use crate::services::Services;
use crate::session::{Session, StartError};
use crate::session_core::{SessionCore, Turn};
use crate::turn::tool_tasks::ToolTasks;

/// How long a sub-agent may take to end once it was told to. Then it is ended hard.
const PATIENCE: Duration = Duration::from_millis(500);

/// A session with its events.
pub(super) struct SubAgentSession {
    pub(super) session: Arc<Session>,
    events: mpsc::Receiver<Event>,
}

/// A sub-agent, seen from its own task.
pub(super) struct SubAgentRunner {
    /// The session that it works for.
    pub(super) core: Arc<SessionCore>,
    /// The turn of that session which started it.
    pub(super) turn: Arc<Turn>,
    pub(super) token: CancellationToken,
    pub(super) task: String,
    pub(super) one_shot: bool,
    pub(super) status: watch::Sender<SubAgentStatus>,
    /// For a planted defect: the call that asked the user first.
    pub(super) asked_first: Mutex<Option<CallId>>,
}

/// Why forwarding stopped.
enum StopReason {
    /// The sub-agent was cancelled.
    Cancelled,
    /// A one-shot has done its task.
    Done,
    /// The session is over.
    Over,
}

impl SubAgentRunner {
    /// Works until the sub-agent has ended, and reports it.
    pub(super) async fn run(self, mut ops: mpsc::Receiver<Op>) {
        let started = tokio::select! {
            biased;
            () = self.token.cancelled() => return self.ended(SubAgentEnd::Closed).await,
            started = start(self.config(), self.services()) => started,
        };
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                let why = error.to_string();
                self.status.send_modify(|status| status.failure = Some(why));
                return self.ended(SubAgentEnd::Failed).await;
            }
        };
        let tool_tasks = ToolTasks::default();
        let stop = tool_tasks
            .drive(self.forward(&mut child, &mut ops, &tool_tasks))
            .await;
        // What still waits for the user waits for nothing: the sub-agent is about to end.
        tool_tasks.dismiss();
        let end = self.end(stop, &mut child).await;
        // Whatever is left of the session ends here.
        drop(child);
        self.ended(end).await;
    }

    /// Forwards events and hands on ops until there is a reason to stop.
    async fn forward(
        &self,
        child: &mut SubAgentSession,
        ops: &mut mpsc::Receiver<Op>,
        tool_tasks: &ToolTasks,
    ) -> StopReason {
        if !self.begin(child, tool_tasks).await {
            return StopReason::Cancelled;
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.token.cancelled() => return StopReason::Cancelled,
                event = child.events.recv() => event,
                Some(op) = ops.recv() => {
                    self.hand_on(child, op, tool_tasks);
                    continue;
                }
            };
            let Some(Event { msg, .. }) = event else {
                return StopReason::Over;
            };
            let ended = msg.is_terminal();
            self.note(&msg);
            if !self.take(child, msg, tool_tasks).await {
                return StopReason::Cancelled;
            }
            if ended {
                self.status.send_modify(|status| {
                    status.turns += 1;
                    status.idle = true;
                });
                let stays = self.core.has(Defect::OneShotLingers)
                    || self.core.has(Defect::OneShotTakesInput);
                if self.one_shot && !stays {
                    return StopReason::Done;
                }
            }
        }
    }

    /// Tells the client that there is a sub-agent, and the sub-agent what to do. Returns whether it
    /// may go on.
    async fn begin(&self, child: &SubAgentSession, tool_tasks: &ToolTasks) -> bool {
        let agent_id = child.session.session_id().to_owned();
        let started = EventMsg::SubAgentStarted {
            turn_id: self.turn.id.clone(),
            agent_id: agent_id.clone(),
            task: self.task.clone(),
            one_shot: self.one_shot,
        };
        tokio::select! {
            biased;
            () = self.token.cancelled() => return false,
            () = self.core.events.emit(&self.turn.submission, started) => {}
        }
        self.status.send_modify(|status| status.id = Some(agent_id));
        self.hand_on(child, input(&self.task), tool_tasks);
        true
    }

    /// Gives the sub-agent an op. It waits for room beside the forwarding, as the sub-agent may be
    /// waiting for its events to be taken.
    fn hand_on(&self, child: &SubAgentSession, op: Op, tool_tasks: &ToolTasks) {
        if matches!(op, Op::UserInput { .. }) {
            self.status.send_modify(|status| status.idle = false);
        }
        let session = Arc::clone(&child.session);
        tool_tasks.add(async move { submit(&session, op).await });
    }

    /// Remembers what calls will want to know.
    fn note(&self, msg: &EventMsg) {
        self.status.send_if_modified(|status| {
            match msg {
                EventMsg::TurnStarted { .. } => status.idle = false,
                EventMsg::TurnComplete {
                    last_agent_message, ..
                } => {
                    status.last_message.clone_from(last_agent_message);
                    status.failure = None;
                }
                EventMsg::TurnAborted { .. } => {
                    status.failure = Some("it was interrupted".to_owned());
                }
                EventMsg::TurnFailed { message, .. } => status.failure = Some(message.clone()),
                _ => return false,
            }
            true
        });
    }

    /// Forwards an event, or has the user asked. Returns whether it may go on.
    async fn take(&self, child: &SubAgentSession, msg: EventMsg, tool_tasks: &ToolTasks) -> bool {
        if is_internal(&msg) {
            return true;
        }
        if let Some(asking) = self.asking(child, &msg) {
            tool_tasks.add(asking);
            if !self.core.has(Defect::SubApprovalForwarded) {
                return true;
            }
        }
        let forwarded = EventMsg::SubAgentEvent {
            turn_id: self.turn.id.clone(),
            agent_id: child.session.session_id().to_owned(),
            msg: Box::new(msg),
        };
        let deaf = self.core.has(Defect::ForwardIgnoresCancel);
        tokio::select! {
            biased;
            // The client may not be reading, and the cancellation must not wait for it.
            () = self.token.cancelled(), if !deaf => false,
            () = self.core.events.emit(&self.turn.submission, forwarded) => true,
        }
    }

    /// Ends the session and says how it ended.
    async fn end(&self, stop: StopReason, child: &mut SubAgentSession) -> SubAgentEnd {
        let failed = self.status.borrow().failure.is_some();
        let (ops, end) = match stop {
            StopReason::Cancelled => (vec![Op::Interrupt, Op::Shutdown], SubAgentEnd::Closed),
            StopReason::Done if failed => (vec![Op::Shutdown], SubAgentEnd::Failed),
            StopReason::Done => (vec![Op::Shutdown], SubAgentEnd::Complete),
            StopReason::Over => return SubAgentEnd::Killed,
        };
        let SubAgentSession { session, events } = child;
        let tell = async {
            for op in ops {
                submit(session, op).await;
            }
        };
        // Events are taken meanwhile: a sub-agent whose queue is full could not end otherwise.
        let drain = async {
            while let Some(event) = events.recv().await {
                if event.msg == EventMsg::ShutdownComplete {
                    break;
                }
            }
        };
        let patience = if self.core.has(Defect::CloseWaits) {
            Duration::MAX
        } else {
            PATIENCE
        };
        let both = async { tokio::join!(tell, drain) };
        match tokio::time::timeout(patience, both).await {
            Ok(_) => end,
            Err(_) => SubAgentEnd::Killed,
        }
    }

    /// Notes the end for the calls that wait for it, for the turn, and for the client.
    async fn ended(self, end: SubAgentEnd) {
        let id = self.status.borrow().id.clone();
        if let Some(id) = id {
            self.turn.agents.note_end(id, end);
        }
        self.status.send_modify(|status| {
            status.idle = true;
            status.end = Some(end);
        });
        self.turn.agents.tell_ends(&self.core, &self.turn).await;
    }

    fn config(&self) -> Config {
        let parent = &self.core.config;
        Config {
            seed: self.core.rng.seed(),
            resume: None,
            depth: parent.depth + 1,
            ..parent.clone()
        }
    }

    fn services(&self) -> Services {
        Services {
            model: Arc::clone(&self.core.model),
            store: Arc::clone(&self.core.store),
            tools: Arc::clone(&self.core.tools),
            probe: self.core.hooks.of_sub_agent(),
        }
    }
}

/// Whether an event tells the client nothing that it could use.
fn is_internal(msg: &EventMsg) -> bool {
    matches!(
        msg,
        EventMsg::SessionConfigured { .. }
            | EventMsg::TokenCount { .. }
            | EventMsg::ShutdownComplete
    )
}

/// Starts the session. It is boxed, as a session's own calls can come back to here.
fn start(
    config: Config,
    services: Services,
) -> Pin<Box<dyn Future<Output = Result<SubAgentSession, StartError>> + Send>> {
    Box::pin(async move {
        let (session, events) = Session::start(config, services).await?;
        let session = Arc::new(session);
        Ok(SubAgentSession { session, events })
    })
}

/// Input for a sub-agent.
pub(super) fn input(text: &str) -> Op {
    let text = text.to_owned();
    Op::UserInput {
        items: vec![InputItem::Text { text }],
        turn_id: None,
    }
}

/// Gives a session an op. One that is over needs none.
pub(super) async fn submit(session: &Session, op: Op) {
    let id = match op {
        Op::UserInput { .. } => "input",
        _ => "",
    };
    let id = id.into();
    let _ = session.submit(Submission { id, op }).await;
}
