//! The submission/event queue protocol: its ops and events, as the trace names them.

use std::path::PathBuf;

use cutpoint_protocol::TurnId;
use cutpoint_protocol::field::text;
use cutpoint_protocol::session::{self, Event, EventMsg, InputItem, Op};
use cutpoint_trace::{
    AbortReason, AgentEvent, ClientOp, Decision, InputMode, Observation, RawMessage, TaskKind,
    TurnEnd,
};

use super::record;
use crate::driver::{AgentError, AgentSession, CaseEnv};

/// The protocol's op for an op of the client.
///
/// # Errors
/// If it has none.
pub(crate) fn op(op: &ClientOp) -> Result<Op, AgentError> {
    Ok(match op.clone() {
        ClientOp::Input {
            text,
            mode,
            turn_id,
        } => {
            let items = vec![InputItem::Text { text }];
            match mode {
                InputMode::Start | InputMode::Steer => Op::UserInput { items, turn_id },
                InputMode::Replace => Op::UserTurn { items, turn_id },
            }
        }
        ClientOp::Task { task, text } => match task {
            TaskKind::Shell => Op::UserShell { command: text },
            TaskKind::Review => Op::Review { prompt: text },
            TaskKind::Compact => Op::Compact,
        },
        ClientOp::Interrupt { .. } => Op::Interrupt,
        ClientOp::Approval { call_id, decision } => Op::ExecApproval {
            call_id,
            decision: match decision {
                Decision::Approve => session::Decision::Approved,
                Decision::Deny => session::Decision::Denied,
                Decision::Abort => session::Decision::Abort,
            },
        },
        ClientOp::Answer { call_id, text } => Op::UserInputAnswer {
            call_id,
            answers: vec![text],
        },
        ClientOp::Fork => Op::Fork,
        ClientOp::Rollback { turns } => Op::Rollback { turns },
        ClientOp::Shutdown => Op::Shutdown,
        ClientOp::Open { .. } => return Err(AgentError::UnsupportedOp),
    })
}

/// Records an event, and what it shows on the user's screen.
pub(crate) fn record(event: &Event, env: &CaseEnv) {
    env.screen.observe(event, &env.tracer, || {
        record::event(env, meaning(&event.msg), RawMessage::of(event));
    });
}

/// Has the agent copy the conversation, and kills it. Gives the copy's rollout, from which it is to be
/// resumed.
pub(crate) async fn fork(
    session: &mut dyn AgentSession,
    env: &CaseEnv,
    id: &str,
) -> Result<PathBuf, AgentError> {
    let seen = env.tracer.len();
    session.submit(id, &ClientOp::Fork).await?;
    let forked = |observation: &Observation| match observation {
        Observation::Event {
            event: AgentEvent::Forked { path },
            ..
        } => Some(PathBuf::from(path)),
        _ => None,
    };
    let Ok((_, path)) = env.tracer.wait(seen, env.limit, forked).await else {
        return Err(AgentError::TimedOut {
            what: "fork the conversation".to_owned(),
            limit: env.limit,
        });
    };
    env.tracer.record(Observation::AgentKilled);
    session.kill().await?;
    Ok(path)
}

/// What an event means.
pub(crate) fn meaning(msg: &EventMsg) -> AgentEvent {
    let turn_id = msg.turn_id().cloned();
    match msg {
        EventMsg::TurnStarted { .. }
        | EventMsg::TurnComplete { .. }
        | EventMsg::TurnAborted { .. }
        | EventMsg::TurnFailed { .. } => of_turn(turn_id, msg),
        EventMsg::AgentMessageDelta { delta, .. } => AgentEvent::TextDelta {
            turn_id,
            text: delta.clone(),
        },
        EventMsg::AgentReasoningDelta { delta, .. } => AgentEvent::ReasoningDelta {
            turn_id,
            text: delta.clone(),
        },
        EventMsg::AgentMessage { message, .. } => AgentEvent::Message {
            turn_id,
            text: message.clone(),
        },
        EventMsg::UserMessage { message, .. } => AgentEvent::UserMessage {
            turn_id,
            text: message.clone(),
        },
        EventMsg::ExecCommandBegin { .. }
        | EventMsg::ExecCommandOutputDelta { .. }
        | EventMsg::ExecCommandEnd { .. }
        | EventMsg::ExecApprovalRequest { .. }
        | EventMsg::ApplyPatchApprovalRequest { .. }
        | EventMsg::UserInputRequest { .. } => of_call(turn_id, msg),
        EventMsg::SubAgentStarted { .. }
        | EventMsg::SubAgentEnded { .. }
        | EventMsg::SubAgentEvent { .. } => of_sub_agent(turn_id, msg),
        EventMsg::ContextCompacted { .. } => AgentEvent::Compacted { turn_id },
        EventMsg::Forked { rollout_path, .. } => AgentEvent::Forked {
            path: rollout_path.clone(),
        },
        EventMsg::RolledBack { turns } => AgentEvent::RolledBack { turns: *turns },
        EventMsg::BackgroundEvent { message } => AgentEvent::Background {
            message: message.clone(),
        },
        EventMsg::StreamError { message, .. } | EventMsg::Error { message } => AgentEvent::Error {
            turn_id,
            message: message.clone(),
        },
        EventMsg::ShutdownComplete => AgentEvent::ShutdownComplete,
        EventMsg::SessionConfigured { .. } => other(turn_id, "session_configured"),
        EventMsg::TokenCount { .. } => other(turn_id, "token_count"),
        EventMsg::Unknown(fields) => other(turn_id, text(fields, "type").unwrap_or("unknown")),
    }
}

fn of_turn(turn_id: Option<TurnId>, msg: &EventMsg) -> AgentEvent {
    let end = match msg {
        EventMsg::TurnStarted { turn_id } => {
            let turn_id = turn_id.clone();
            return AgentEvent::TurnStarted { turn_id };
        }
        EventMsg::TurnAborted { reason, .. } => TurnEnd::Aborted {
            reason: Some(match reason {
                session::AbortReason::Interrupted => AbortReason::Interrupted,
                session::AbortReason::Replaced => AbortReason::Replaced,
            }),
        },
        EventMsg::TurnFailed { message, .. } => TurnEnd::Failed {
            message: message.clone(),
        },
        _ => TurnEnd::Complete,
    };
    AgentEvent::TurnEnded { turn_id, end }
}

fn of_call(turn_id: Option<TurnId>, msg: &EventMsg) -> AgentEvent {
    match msg {
        EventMsg::ExecCommandBegin {
            call_id,
            command,
            pid,
            ..
        } => AgentEvent::CallBegin {
            turn_id,
            call_id: call_id.clone(),
            command: command.join(" "),
            pid: *pid,
        },
        EventMsg::ExecCommandOutputDelta { call_id, chunk, .. } => AgentEvent::CallOutput {
            turn_id,
            call_id: call_id.clone(),
            chunk: chunk.clone(),
        },
        EventMsg::ExecCommandEnd {
            call_id,
            exit_code,
            output,
            ..
        } => AgentEvent::CallEnd {
            turn_id,
            call_id: call_id.clone(),
            exit_code: *exit_code,
            output: output.clone(),
        },
        EventMsg::ExecApprovalRequest { call_id, .. }
        | EventMsg::ApplyPatchApprovalRequest { call_id, .. } => AgentEvent::ApprovalRequest {
            turn_id,
            call_id: call_id.clone(),
        },
        EventMsg::UserInputRequest {
            call_id, questions, ..
        } => AgentEvent::Question {
            turn_id,
            call_id: call_id.clone(),
            questions: questions.clone(),
        },
        _ => other(turn_id, "call"),
    }
}

fn of_sub_agent(turn_id: Option<TurnId>, msg: &EventMsg) -> AgentEvent {
    match msg {
        EventMsg::SubAgentStarted {
            agent_id,
            task,
            one_shot,
            ..
        } => AgentEvent::SubAgentStarted {
            turn_id,
            agent_id: agent_id.clone(),
            task: task.clone(),
            one_shot: *one_shot,
        },
        EventMsg::SubAgentEnded { agent_id, end, .. } => AgentEvent::SubAgentEnded {
            turn_id,
            agent_id: agent_id.clone(),
            how: end.as_str().to_owned(),
        },
        EventMsg::SubAgentEvent { agent_id, msg, .. } => AgentEvent::SubAgentEvent {
            turn_id,
            agent_id: agent_id.clone(),
            event: Box::new(meaning(msg)),
        },
        _ => other(turn_id, "sub_agent"),
    }
}

fn other(turn_id: Option<TurnId>, name: &str) -> AgentEvent {
    let name = name.to_owned();
    AgentEvent::Other { turn_id, name }
}
