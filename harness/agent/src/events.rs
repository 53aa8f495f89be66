//! The event queue, seen from the agent.

use std::sync::Mutex;

use cutpoint_protocol::ids::{SubmissionId, TurnId};
use cutpoint_protocol::session::{Event, EventMsg};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lock;
use crate::probe::Hooks;

/// What became of a submission, where no event says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubmissionResult {
    /// The input joined that turn.
    Joined { turn_id: TurnId },
    /// The interrupt found nothing that it could abort.
    Idle,
    /// It was not carried out, and why.
    Refused(String),
}

/// The answer to a submission, for a front whose protocol has answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubmissionReply {
    /// The submission.
    pub(crate) submission: SubmissionId,
    /// What became of it.
    pub(crate) taken: SubmissionResult,
    /// How many events had entered the queue before: the answer belongs right after them.
    pub(crate) behind: u64,
}

/// The sending end of the event queue.
///
/// A full queue makes the sender wait. A future that waits here for a turn is dropped when the turn is
/// cancelled, so that a client which doesn't read can't hold up an interrupt's work.
#[derive(Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Event>,
    hooks: Hooks,
    life: CancellationToken,
    /// How many events have entered the queue. Held while an event is shown to the probe and
    /// queued, so that both see one order.
    entered: Mutex<u64>,
    /// Where answers go, if the client's protocol has any.
    answers: Option<mpsc::Sender<SubmissionReply>>,
}

impl Events {
    pub(crate) fn new(
        sender: mpsc::Sender<Event>,
        hooks: Hooks,
        life: CancellationToken,
        answers: Option<mpsc::Sender<SubmissionReply>>,
    ) -> Self {
        Self {
            sender,
            hooks,
            life,
            entered: Mutex::new(0),
            answers,
        }
    }

    /// Answers a submission, if the client's protocol has answers.
    pub(crate) async fn answer(&self, submission: &SubmissionId, taken: SubmissionResult) {
        let Some(answers) = &self.answers else {
            return;
        };
        let answer = SubmissionReply {
            submission: submission.to_owned(),
            taken,
            behind: *lock(&self.entered),
        };
        // A session that is being killed has no client left to answer.
        let _ = answers.send(answer).await;
    }

    /// Tells that a submission is not carried out: by an answer, or else by an event.
    pub(crate) async fn refuse(&self, submission: &SubmissionId, message: String) {
        if self.answers.is_some() {
            self.answer(submission, SubmissionResult::Refused(message))
                .await;
        } else {
            self.emit(submission, EventMsg::Error { message }).await;
        }
    }

    /// Queues an event, waiting for room. A client that is gone is not an error: the session goes on
    /// until it is asked to end.
    pub(crate) async fn emit(&self, id: &SubmissionId, msg: EventMsg) {
        self.hooks.point(label(&msg)).await;
        if let Ok(permit) = self.sender.reserve().await {
            self.enter(permit, id, msg);
        }
    }

    /// Queues an event if there is room, and drops it otherwise.
    pub(crate) fn emit_now(&self, id: &SubmissionId, msg: EventMsg) {
        if let Ok(permit) = self.sender.try_reserve() {
            self.enter(permit, id, msg);
        }
    }

    fn enter(&self, permit: mpsc::Permit<'_, Event>, id: &SubmissionId, msg: EventMsg) {
        if self.life.is_cancelled() {
            return;
        }
        let event = Event {
            id: id.to_owned(),
            msg,
        };
        let mut entered = lock(&self.entered);
        *entered += 1;
        self.hooks.emitted(&event);
        permit.send(event);
    }
}

/// The cut point before an event.
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
        EventMsg::ApplyPatchApprovalRequest { .. } => "event.apply_patch_approval_request",
        EventMsg::UserInputRequest { .. } => "event.user_input_request",
        EventMsg::UserMessage { .. } => "event.user_message",
        EventMsg::SubAgentStarted { .. } => "event.sub_agent_started",
        EventMsg::SubAgentEnded { .. } => "event.sub_agent_ended",
        EventMsg::SubAgentEvent { .. } => "event.sub_agent_event",
        EventMsg::ContextCompacted { .. } => "event.context_compacted",
        EventMsg::Forked { .. } => "event.forked",
        EventMsg::RolledBack { .. } => "event.rolled_back",
        EventMsg::BackgroundEvent { .. } => "event.background_event",
        EventMsg::StreamError { .. } => "event.stream_error",
        EventMsg::TokenCount { .. } => "event.token_count",
        EventMsg::Error { .. } => "event.error",
        EventMsg::ShutdownComplete => "event.shutdown_complete",
        EventMsg::Unknown(_) => "event.unknown",
    }
}
