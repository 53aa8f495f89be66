//! The event queue, seen from the agent.

use std::sync::Mutex;

use cutpoint_protocol::session::{Event, EventMsg};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lock;
use crate::probe::Hooks;

/// The sending end of the event queue.
///
/// A full queue makes the sender wait. Whoever waits here for a turn is dropped when the turn is
/// cancelled, so that a client which doesn't read can't hold up an interrupt's work.
#[derive(Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Event>,
    hooks: Hooks,
    life: CancellationToken,
    /// Held while an event is shown to the probe and queued, so that both see one order.
    order: Mutex<()>,
}

impl Events {
    pub(crate) fn new(sender: mpsc::Sender<Event>, hooks: Hooks, life: CancellationToken) -> Self {
        Self {
            sender,
            hooks,
            life,
            order: Mutex::new(()),
        }
    }

    /// Queues an event, waiting for room. A client that is gone is no error: the session goes on
    /// until it is told to end.
    pub(crate) async fn emit(&self, id: &str, msg: EventMsg) {
        self.hooks.point(label(&msg)).await;
        if let Ok(permit) = self.sender.reserve().await {
            self.enter(permit, id, msg);
        }
    }

    /// Queues an event if there is room, and drops it otherwise.
    pub(crate) fn emit_now(&self, id: &str, msg: EventMsg) {
        if let Ok(permit) = self.sender.try_reserve() {
            self.enter(permit, id, msg);
        }
    }

    fn enter(&self, permit: mpsc::Permit<'_, Event>, id: &str, msg: EventMsg) {
        if self.life.is_cancelled() {
            return;
        }
        let event = Event {
            id: id.to_owned(),
            msg,
        };
        let _order = lock(&self.order);
        self.hooks.emitted(&event);
        permit.send(event);
    }
}

/// The cut point in front of an event.
fn label(msg: &EventMsg) -> &'static str {
    match msg {
        EventMsg::SessionConfigured { .. } => "event.session_configured",
        EventMsg::TurnStarted { .. } => "event.turn_started",
        EventMsg::TurnComplete { .. } => "event.turn_complete",
        EventMsg::TurnAborted { .. } => "event.turn_aborted",
        EventMsg::TurnFailed { .. } => "event.turn_failed",
        EventMsg::AgentMessageDelta { .. } => "event.agent_message_delta",
        EventMsg::AgentMessage { .. } => "event.agent_message",
        EventMsg::AgentReasoningDelta { .. } => "event.agent_reasoning_delta",
        EventMsg::ExecCommandBegin { .. } => "event.exec_command_begin",
        EventMsg::ExecCommandOutputDelta { .. } => "event.exec_command_output_delta",
        EventMsg::ExecCommandEnd { .. } => "event.exec_command_end",
        EventMsg::ExecApprovalRequest { .. } => "event.exec_approval_request",
        EventMsg::BackgroundEvent { .. } => "event.background_event",
        EventMsg::StreamError { .. } => "event.stream_error",
        EventMsg::TokenCount { .. } => "event.token_count",
        EventMsg::Error { .. } => "event.error",
        EventMsg::ShutdownComplete => "event.shutdown_complete",
        EventMsg::Unknown(_) => "event.unknown",
    }
}
