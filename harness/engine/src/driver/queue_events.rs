//! Events of the submission/event queue protocol, as the trace names them.

use cutpoint_protocol::field::text;
use cutpoint_protocol::ids::TurnId;
use cutpoint_protocol::session::{self, Event, EventMsg};
use cutpoint_trace::{AbortReason, AgentEvent, Observation, RawMessage, ReadTrigger, TurnEnd};

use crate::driver::CaseEnv;

/// Records an event, and what a person sees of it; one that ends a turn together with the rollout
/// at this very moment.
pub(super) fn record(event: &Event, env: &CaseEnv) {
    env.screen
        .observe(event, &env.tracer, || record_event(event, env));
}

fn record_event(event: &Event, env: &CaseEnv) {
    let meaning = meaning(&event.msg);
    let raw = RawMessage::of(event);
    let ended = matches!(meaning, AgentEvent::TurnEnded { .. });
    let turn_id = meaning.turn_id().map(TurnId::from);
    let what = Observation::Event {
        event: meaning,
        raw,
    };
    if ended {
        env.rollout
            .record_with(what, ReadTrigger::TurnEnded { turn_id });
    } else {
        env.tracer.record(what);
    }
}

/// What an event means.
pub fn meaning(msg: &EventMsg) -> AgentEvent {
    let turn_id = msg.turn_id().cloned();
    match msg.clone() {
        EventMsg::TurnStarted { turn_id } => AgentEvent::TurnStarted { turn_id },
        EventMsg::TurnComplete { .. } => AgentEvent::TurnEnded {
            turn_id,
            end: TurnEnd::Complete,
        },
        EventMsg::TurnAborted { reason, .. } => {
            let reason = match reason {
                session::AbortReason::Interrupted => AbortReason::Interrupted,
                session::AbortReason::Replaced => AbortReason::Replaced,
            };
            AgentEvent::TurnEnded {
                turn_id,
                end: TurnEnd::Aborted {
                    reason: Some(reason),
                },
            }
        }
        EventMsg::TurnFailed { message, .. } => AgentEvent::TurnEnded {
            turn_id,
            end: TurnEnd::Failed { message },
        },
        EventMsg::AgentMessageDelta { delta, .. } => AgentEvent::TextDelta {
            turn_id,
            text: delta,
        },
        EventMsg::AgentReasoningDelta { delta, .. } => AgentEvent::ReasoningDelta {
            turn_id,
            text: delta,
        },
        EventMsg::AgentMessage { message, .. } => AgentEvent::Message {
            turn_id,
            text: message,
        },
        EventMsg::ExecCommandBegin {
            call_id,
            command,
            pid,
            ..
        } => AgentEvent::CallBegin {
            turn_id,
            call_id,
            command: command.join(" "),
            pid,
        },
        EventMsg::ExecCommandOutputDelta { call_id, chunk, .. } => AgentEvent::CallOutput {
            turn_id,
            call_id,
            chunk,
        },
        EventMsg::ExecCommandEnd {
            call_id,
            exit_code,
            output,
            ..
        } => AgentEvent::CallEnd {
            turn_id,
            call_id,
            exit_code,
            output,
        },
        EventMsg::ExecApprovalRequest { call_id, .. } => {
            AgentEvent::ApprovalRequest { turn_id, call_id }
        }
        EventMsg::ApplyPatchApprovalRequest { call_id, .. } => {
            AgentEvent::ApprovalRequest { turn_id, call_id }
        }
        EventMsg::UserInputRequest {
            call_id, questions, ..
        } => AgentEvent::Question {
            turn_id,
            call_id,
            questions,
        },
        EventMsg::UserMessage { message, .. } => AgentEvent::UserMessage {
            turn_id,
            text: message,
        },
        EventMsg::SubAgentStarted {
            agent_id,
            task,
            one_shot,
            ..
        } => AgentEvent::SubAgentStarted {
            turn_id,
            agent_id,
            task,
            one_shot,
        },
        EventMsg::SubAgentEnded { agent_id, end, .. } => AgentEvent::SubAgentEnded {
            turn_id,
            agent_id,
            how: end.as_str().to_owned(),
        },
        EventMsg::SubAgentEvent { agent_id, msg, .. } => AgentEvent::SubAgentEvent {
            turn_id,
            agent_id,
            event: Box::new(meaning(&msg)),
        },
        EventMsg::ContextCompacted { .. } => AgentEvent::Compacted { turn_id },
        EventMsg::Forked { rollout_path, .. } => AgentEvent::Forked { path: rollout_path },
        EventMsg::RolledBack { turns } => AgentEvent::RolledBack { turns },
        EventMsg::BackgroundEvent { message } => AgentEvent::Background { message },
        EventMsg::StreamError { message, .. } | EventMsg::Error { message } => {
            AgentEvent::Error { turn_id, message }
        }
        EventMsg::ShutdownComplete => AgentEvent::ShutdownComplete,
        EventMsg::SessionConfigured { .. } => other(turn_id, "session_configured"),
        EventMsg::TokenCount { .. } => other(turn_id, "token_count"),
        EventMsg::Unknown(fields) => other(turn_id, text(&fields, "type").unwrap_or("unknown")),
    }
}

fn other(turn_id: Option<TurnId>, name: &str) -> AgentEvent {
    let name = name.to_owned();
    AgentEvent::Other { turn_id, name }
}
