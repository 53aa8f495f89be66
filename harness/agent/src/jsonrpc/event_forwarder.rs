//! Writes a conversation's events to its listeners, and the answers that are due after them.

use std::sync::Arc;

use cutpoint_protocol::ids::{SubmissionId, TurnId};
use cutpoint_protocol::session::{AbortReason, Event, EventMsg};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client_requests::ClientRequests;
use super::conversation::Conversation;
use super::interrupts::PendingInterrupt;
use super::message::{Outbox, RpcError, answer_to};
use crate::defect::Defect;
use crate::events::{SubmissionReply, SubmissionResult};

/// The forwarder of one conversation.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) conversation: Arc<Conversation>,
    pub(super) asks: Arc<ClientRequests>,
    pub(super) out: Outbox,
}

impl Forwarder {
    /// Works until the session is over, and leaves no request unanswered.
    pub(super) async fn run(
        self,
        mut events: mpsc::Receiver<Event>,
        mut answers: mpsc::Receiver<SubmissionReply>,
    ) {
        let mut received = 0;
        // An answer waits here for the events that were emitted before it.
        let mut held: Option<SubmissionReply> = None;
        loop {
            if let Some(answer) = held.take_if(|answer| answer.behind <= received) {
                self.answer(answer).await;
                continue;
            }
            tokio::select! {
                biased;
                Some(answer) = answers.recv(), if held.is_none() => held = Some(answer),
                event = events.recv() => {
                    let Some(event) = event else { break };
                    received += 1;
                    self.event(event).await;
                }
            }
        }
        while let Some(answer) = held.take().or_else(|| answers.try_recv().ok()) {
            self.answer(answer).await;
        }
        let (inputs, interrupts) = self.conversation.close();
        for request in inputs {
            let error = RpcError::invalid("the conversation has ended");
            self.out.answer(request, Err(error)).await;
        }
        self.answer_interrupts(interrupts, None).await;
    }

    /// Writes an event. An answer that reports a start, and a request of the agent's own, come
    /// before it; what the event makes due comes after it.
    async fn event(&self, event: Event) {
        let thread_id = &self.conversation.id;
        if let EventMsg::TurnStarted { turn_id } = &event.msg {
            self.conversation.started(turn_id);
            self.answer_input(&event.id, turn_id).await;
        }
        if let Some(request) = self.asks.request(thread_id, &event.msg) {
            self.out.send(request).await;
        }
        for listener in self.conversation.listeners() {
            let params = json!({
                "threadId": thread_id,
                "listener": listener,
                "id": event.id,
                "msg": event.msg,
            });
            let message = json!({"method": "event", "params": params});
            self.out.send(message).await;
        }
        // Only now the turn counts as over: an interrupt that comes while its end is on the way to
        // the client is answered after it as well.
        match &event.msg {
            EventMsg::TurnAborted { turn_id, reason } => {
                let due = self.conversation.ended(turn_id, true);
                let mut reason = *reason;
                if self
                    .conversation
                    .defects
                    .contains(Defect::AnswerMisnamesReason)
                {
                    reason = AbortReason::Replaced;
                }
                self.answer_interrupts(due, Some(reason)).await;
            }
            EventMsg::TurnComplete { turn_id, .. } | EventMsg::TurnFailed { turn_id, .. } => {
                let due = self.conversation.ended(turn_id, false);
                self.answer_interrupts(due, None).await;
            }
            EventMsg::Error { message } => {
                if let Some(request) = self.conversation.input(&event.id) {
                    let error = RpcError::internal(message.as_str());
                    self.out.answer(request, Err(error)).await;
                }
            }
            _ => {}
        }
    }

    async fn answer(&self, answer: SubmissionReply) {
        match answer.taken {
            SubmissionResult::Joined { turn_id } => {
                self.answer_input(&answer.submission, &turn_id).await
            }
            SubmissionResult::Idle => {
                let due = self.conversation.idle(&answer.submission);
                self.answer_interrupts(due, None).await;
            }
            SubmissionResult::Refused(message) => {
                if let Some(request) = self.conversation.input(&answer.submission) {
                    let error = RpcError::invalid(message);
                    self.out.answer(request, Err(error)).await;
                }
            }
        }
    }

    /// Says which turn an input started or joined.
    async fn answer_input(&self, submission: &SubmissionId, turn_id: &TurnId) {
        if let Some(request) = self.conversation.input(submission) {
            let result = json!({"turn": {"id": turn_id}});
            self.out.answer(request, Ok(result)).await;
        }
    }

    async fn answer_interrupts(
        &self,
        due: impl IntoIterator<Item = PendingInterrupt>,
        reason: Option<AbortReason>,
    ) {
        let defects = self.conversation.defects;
        let mut due: Vec<PendingInterrupt> = due.into_iter().collect();
        if due.len() > 1 && defects.contains(Defect::LastInterruptUnanswered) {
            due.pop();
        }
        for waiting in due {
            let answer = answer_to(waiting.request, Ok(abort_reason(reason)));
            if defects.contains(Defect::InterruptAnsweredTwice) {
                self.out.send(answer.clone()).await;
            }
            self.out.send(answer).await;
        }
    }
}

/// The result of an interrupt request.
pub(super) fn abort_reason(reason: Option<AbortReason>) -> Value {
    json!({"abortReason": reason.map(AbortReason::as_str)})
}
