//! What can be read off a trace in the making: turns, tools, texts.

use std::collections::BTreeSet;

use cutpoint_protocol::ids::{CallId, TurnId};
use cutpoint_scenario::ast::{AwaitedReason, ExpectedTurnEnd};
use cutpoint_trace::ClientOp;
use cutpoint_trace::{AbortReason, AgentEvent, Entry, InputMode, Observation, TurnEnd};

/// The turn that a client interrupts: the one that the answer to the last start returned, while it has
/// not ended, or else the one that was announced last. An agent may announce another turn within the
/// one that it returned; the client knows the one that it has asked for.
pub fn last_turn(entries: &[Entry]) -> Option<TurnId> {
    let returned = last_returned(entries).filter(|turn| {
        let ends = |entry: &Entry| match &entry.observation {
            Observation::Event {
                event: AgentEvent::TurnEnded { turn_id, .. },
                ..
            } => turn_id.as_deref() == Some(*turn),
            _ => false,
        };
        !entries.iter().any(ends)
    });
    let last = || {
        entries
            .iter()
            .rev()
            .find_map(|entry| announced(&entry.observation))
    };
    returned.or_else(last).map(TurnId::from)
}

/// The turn that the answer to the last start names.
fn last_returned(entries: &[Entry]) -> Option<&str> {
    let starts = |entry: &Entry| match &entry.observation {
        Observation::Op {
            id,
            op: ClientOp::Input { .. } | ClientOp::Task { .. },
        } => Some(id.clone()),
        _ => None,
    };
    let start = entries.iter().rev().find_map(starts)?;
    entries.iter().find_map(|entry| match &entry.observation {
        Observation::OpReply {
            id,
            turn_id: Some(turn_id),
            ..
        } if *id == start => Some(turn_id.as_str()),
        _ => None,
    })
}

/// The turn that the entry announces as started.
pub fn announced(observation: &Observation) -> Option<&str> {
    match observation {
        Observation::OpReply {
            turn_id: Some(turn_id),
            ..
        } => Some(turn_id),
        Observation::Event {
            event: AgentEvent::TurnStarted { turn_id },
            ..
        } => Some(turn_id),
        _ => None,
    }
}

/// Whether the agent runs: it was started, and has not ended since.
pub fn is_running(entries: &[Entry]) -> bool {
    let state = entries
        .iter()
        .rev()
        .find_map(|entry| match entry.observation {
            Observation::AgentStarted { .. } => Some(true),
            Observation::AgentKilled | Observation::AgentExited { .. } => Some(false),
            _ => None,
        });
    state.unwrap_or(false)
}

/// Whether a turn is active: one was announced and has not ended, or input that starts one was sent
/// and neither answered nor followed by a turn.
pub fn turn_is_active(entries: &[Entry]) -> bool {
    let mut active: Option<&str> = None;
    let mut ended: Vec<&str> = Vec::new();
    // The text that may begin a turn; other tasks have none.
    let mut asked: Option<&str> = None;
    // Ops are taken in order: what is sent after a shutdown begins no turn.
    let mut shut = false;
    for Entry { observation, .. } in entries {
        if let Some(turn) = announced(observation) {
            asked = None;
            // The event may come after the turn's end was announced; it does not revive the turn.
            if !ended.contains(&turn) {
                active = Some(turn);
            }
        }
        match observation {
            Observation::Op {
                op: ClientOp::Input { mode, text, .. },
                ..
            } => {
                asked = (*mode != InputMode::Steer && !shut).then_some(text);
            }
            Observation::Op {
                op: ClientOp::Task { .. },
                ..
            } => asked = (!shut).then_some(""),
            Observation::Op {
                op: ClientOp::Shutdown,
                ..
            } => shut = true,
            Observation::AgentStarted { .. } => shut = false,
            Observation::OpReply { error: Some(_), .. } => asked = None,
            Observation::Event {
                event:
                    AgentEvent::UserMessage {
                        turn_id: Some(turn),
                        text,
                    },
                ..
            } => {
                // It joined a turn and will begin none.
                let known = active == Some(turn) || ended.contains(&turn.as_str());
                asked = asked.filter(|asked| !known || asked.trim() != text.trim());
            }
            Observation::Event {
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
            Observation::AgentKilled | Observation::AgentExited { .. } => {
                (active, asked) = (None, None)
            }
            _ => {}
        }
    }
    active.is_some() || asked.is_some()
}

/// Whether the agent has reason to wait: a command runs, the user is asked something, or a response
/// is on its way.
pub fn agent_waits(entries: &[Entry]) -> bool {
    let (mut calls, mut exchanges) = (BTreeSet::new(), BTreeSet::new());
    for Entry { observation, .. } in entries {
        match observation {
            Observation::Request { exchange, .. } => {
                exchanges.insert(*exchange);
            }
            Observation::Refused { exchange, .. }
            | Observation::Unscripted { exchange, .. }
            | Observation::StreamEnd { exchange, .. }
            | Observation::Disconnected { exchange, .. } => {
                exchanges.remove(exchange);
            }
            Observation::Op {
                op: ClientOp::Approval { call_id, .. } | ClientOp::Answer { call_id, .. },
                ..
            } => {
                calls.remove(call_id);
            }
            Observation::AgentKilled | Observation::AgentExited { .. } => calls.clear(),
            observation => match event_of(observation) {
                Some(
                    AgentEvent::CallBegin { call_id, .. }
                    | AgentEvent::ApprovalRequest { call_id, .. }
                    | AgentEvent::Question { call_id, .. },
                ) => {
                    calls.insert(call_id);
                }
                Some(AgentEvent::CallEnd { call_id, .. }) => {
                    calls.remove(call_id);
                }
                _ => {}
            },
        }
    }
    !calls.is_empty() || !exchanges.is_empty()
}

/// How a turn ended, as scenarios name it.
pub fn outcome(end: &TurnEnd) -> ExpectedTurnEnd {
    match end {
        TurnEnd::Complete => ExpectedTurnEnd::Complete,
        TurnEnd::Aborted {
            reason: Some(AbortReason::Replaced),
        } => ExpectedTurnEnd::Replaced,
        TurnEnd::Aborted { .. } => ExpectedTurnEnd::Aborted,
        TurnEnd::Failed { .. } => ExpectedTurnEnd::Failed,
    }
}

/// Whether an end is an abort for that reason. A protocol that gives no reason means the user's.
pub fn is_abort(end: &TurnEnd, wanted: Option<AwaitedReason>) -> bool {
    match (end, wanted) {
        (TurnEnd::Aborted { .. }, None) => true,
        (TurnEnd::Aborted { reason }, Some(AwaitedReason::Interrupted)) => {
            *reason != Some(AbortReason::Replaced)
        }
        (TurnEnd::Aborted { reason }, Some(AwaitedReason::Replaced)) => {
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

/// The end of a turn that an entry reports.
pub fn turn_end(observation: &Observation) -> Option<&TurnEnd> {
    match observation {
        Observation::Event {
            event: AgentEvent::TurnEnded { end, .. },
            ..
        } => Some(end),
        _ => None,
    }
}

/// The event of an entry: the agent's own, or the one that it forwards.
pub fn event_of(observation: &Observation) -> Option<&AgentEvent> {
    match observation {
        Observation::Event { event, .. } => Some(match event {
            AgentEvent::SubAgentEvent { event, .. } => event,
            event => event,
        }),
        _ => None,
    }
}

/// The call that has waited longest for the user's approval.
pub fn waiting_approval(entries: &[Entry]) -> Option<CallId> {
    waiting(entries, |observation| match observation {
        Observation::Event {
            event: AgentEvent::ApprovalRequest { call_id, .. },
            ..
        } => Some((call_id, true)),
        Observation::Op {
            op: ClientOp::Approval { call_id, .. },
            ..
        } => Some((call_id, false)),
        _ => None,
    })
}

/// The call that has waited longest for an answer of the user.
pub fn waiting_question(entries: &[Entry]) -> Option<CallId> {
    waiting(entries, |observation| match observation {
        Observation::Event {
            event: AgentEvent::Question { call_id, .. },
            ..
        } => Some((call_id, true)),
        Observation::Op {
            op: ClientOp::Answer { call_id, .. },
            ..
        } => Some((call_id, false)),
        _ => None,
    })
}

/// The first call that began to wait and has not ceased to: by itself, with its turn, or with the
/// agent.
fn waiting(
    entries: &[Entry],
    change: impl Fn(&Observation) -> Option<(&CallId, bool)>,
) -> Option<CallId> {
    let mut calls: Vec<&CallId> = Vec::new();
    for Entry { observation, .. } in entries {
        let gone = matches!(
            observation,
            Observation::AgentKilled | Observation::AgentExited { .. }
        );
        if gone || turn_end(observation).is_some() {
            calls.clear();
        }
        match change(observation) {
            Some((call, true)) => calls.push(call),
            Some((call, false)) => calls.retain(|known| *known != call),
            None => {}
        }
    }
    calls.first().map(|call| (*call).clone())
}

/// Whether the entry says that this call waits for approval.
pub fn asks(observation: &Observation, call: &str) -> bool {
    matches!(observation, Observation::Event { event: AgentEvent::ApprovalRequest { call_id, .. }, .. } if call_id == call)
}

/// Whether the entry says that this call waits for answers to its questions.
pub fn questions(observation: &Observation, call: &str) -> bool {
    matches!(observation, Observation::Event { event: AgentEvent::Question { call_id, .. }, .. } if call_id == call)
}

#[cfg(test)]
mod tests {
    use cutpoint_trace::TaskKind;

    use super::*;

    fn trace(whats: Vec<Observation>) -> Vec<Entry> {
        let number = |(seq, observation)| Entry {
            seq,
            at_ns: seq,
            observation,
        };
        (0..).zip(whats).map(number).collect()
    }

    fn event(event: AgentEvent) -> Observation {
        let raw = cutpoint_trace::RawMessage::default();
        Observation::Event { event, raw }
    }

    fn review() -> Vec<Observation> {
        let op = ClientOp::Task {
            task: TaskKind::Review,
            text: "the last commit".into(),
        };
        let reply = Observation::OpReply {
            id: "op-1".into(),
            turn_id: Some("returned".into()),
            thread_id: None,
            reason: None,
            error: None,
        };
        let id = "op-1".into();
        let inner = event(AgentEvent::TurnStarted {
            turn_id: "inner".into(),
        });
        vec![Observation::Op { id, op }, reply, inner]
    }

    #[test]
    fn an_interrupt_names_the_turn_that_the_client_knows() {
        let found = last_turn(&trace(review()));
        assert_eq!(found.as_deref(), Some("returned"));
    }

    #[test]
    fn what_starts_behind_the_returned_turn_is_interrupted_as_itself() {
        let mut whats = review();
        whats.push(event(AgentEvent::TurnEnded {
            turn_id: Some("returned".into()),
            end: TurnEnd::Complete,
        }));
        whats.push(event(AgentEvent::TurnStarted {
            turn_id: "next".into(),
        }));
        assert_eq!(last_turn(&trace(whats)).as_deref(), Some("next"));
    }

    #[test]
    fn input_behind_a_shutdown_begins_no_turn() {
        let op = |op: ClientOp| Observation::Op {
            id: "op".into(),
            op,
        };
        let input = || {
            op(ClientOp::Input {
                text: "more".into(),
                mode: InputMode::Replace,
                turn_id: None,
            })
        };
        let shutdown = || op(ClientOp::Shutdown);
        let started = Observation::AgentStarted {
            pid: None,
            resumed: true,
        };
        assert!(!turn_is_active(&trace(vec![shutdown(), input()])));
        assert!(turn_is_active(&trace(vec![input(), shutdown()])));
        assert!(turn_is_active(&trace(vec![shutdown(), started, input()])));
    }
}
