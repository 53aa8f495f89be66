//! What can be read off a trace in the making: turns, tools, texts.

use cutpoint_check::trace::ClientOp;
use cutpoint_check::trace::{AbortReason, AgentEvent, Entry, InputMode, TurnEnd, What};
use cutpoint_scenario::ast::{Outcome, Reason};

/// The turn that was announced last, by the answer to its start or by its event.
pub fn last_turn(entries: &[Entry]) -> Option<String> {
    entries
        .iter()
        .rev()
        .find_map(|entry| announced(&entry.what).map(str::to_owned))
}

/// The turn that the entry announces as started.
pub fn announced(what: &What) -> Option<&str> {
    match what {
        What::OpReply {
            turn_id: Some(turn_id),
            ..
        } => Some(turn_id),
        What::Event {
            event: AgentEvent::TurnStarted { turn_id },
            ..
        } => Some(turn_id),
        _ => None,
    }
}

/// Whether the agent runs: it was started, and has not ended since.
pub fn is_running(entries: &[Entry]) -> bool {
    let state = entries.iter().rev().find_map(|entry| match entry.what {
        What::AgentStarted { .. } => Some(true),
        What::AgentKilled | What::AgentExited { .. } => Some(false),
        _ => None,
    });
    state.unwrap_or(false)
}

/// Whether a turn is active: one was announced and has not ended, or input that starts one was sent
/// and neither answered nor followed by a turn.
pub fn turn_is_active(entries: &[Entry]) -> bool {
    let mut active: Option<&str> = None;
    let mut ended: Vec<&str> = Vec::new();
    let mut asked = false;
    for Entry { what, .. } in entries {
        if let Some(turn) = announced(what) {
            asked = false;
            // The event may come after the turn's end was told; it does not bring it to life.
            if !ended.contains(&turn) {
                active = Some(turn);
            }
        }
        match what {
            What::Op {
                op: ClientOp::Input { mode, .. },
                ..
            } => {
                asked = *mode != InputMode::Steer;
            }
            What::OpReply { error: Some(_), .. } => asked = false,
            What::Event {
                event: AgentEvent::TurnEnded { turn_id, .. },
                ..
            } => match turn_id.as_deref() {
                Some(turn) => {
                    ended.push(turn);
                    if active == Some(turn) {
                        active = None;
                    }
                }
                None => active = None,
            },
            What::AgentKilled | What::AgentExited { .. } => (active, asked) = (None, false),
            _ => {}
        }
    }
    active.is_some() || asked
}

/// How a turn ended, as scenarios name it.
pub fn outcome(end: &TurnEnd) -> Outcome {
    match end {
        TurnEnd::Complete => Outcome::Complete,
        TurnEnd::Aborted {
            reason: Some(AbortReason::Replaced),
        } => Outcome::Replaced,
        TurnEnd::Aborted { .. } => Outcome::Aborted,
        TurnEnd::Failed { .. } => Outcome::Failed,
    }
}

/// Whether an end is an abort for that reason. A protocol that gives no reason means the user's.
pub fn is_abort(end: &TurnEnd, wanted: Option<Reason>) -> bool {
    match (end, wanted) {
        (TurnEnd::Aborted { .. }, None) => true,
        (TurnEnd::Aborted { reason }, Some(Reason::Interrupted)) => {
            *reason != Some(AbortReason::Replaced)
        }
        (TurnEnd::Aborted { reason }, Some(Reason::Replaced)) => {
            *reason == Some(AbortReason::Replaced)
        }
        _ => false,
    }
}

/// A turn's end in words.
pub fn end_in_words(end: &TurnEnd) -> String {
    match end {
        TurnEnd::Complete => "complete".to_owned(),
        TurnEnd::Aborted {
            reason: Some(AbortReason::Replaced),
        } => "aborted as replaced".to_owned(),
        TurnEnd::Aborted { .. } => "aborted as interrupted".to_owned(),
        TurnEnd::Failed { message } => format!("failed: {message}"),
    }
}

/// The turn's end that an entry tells.
pub fn turn_end(what: &What) -> Option<&TurnEnd> {
    match what {
        What::Event {
            event: AgentEvent::TurnEnded { end, .. },
            ..
        } => Some(end),
        _ => None,
    }
}

/// Whether the entry says that this call's tool began.
pub fn begins(what: &What, call: &str) -> bool {
    matches!(what, What::Event { event: AgentEvent::CallBegin { call_id, .. }, .. } if call_id == call)
}

/// Whether the entry says that this call's tool ended.
pub fn ends(what: &What, call: &str) -> bool {
    matches!(what, What::Event { event: AgentEvent::CallEnd { call_id, .. }, .. } if call_id == call)
}

/// Whether the entry says that this call waits for approval.
pub fn asks(what: &What, call: &str) -> bool {
    matches!(what, What::Event { event: AgentEvent::ApprovalRequest { call_id, .. }, .. } if call_id == call)
}
