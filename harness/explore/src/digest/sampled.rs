//! Which runs of an agent in another process have the same trace.

use std::collections::HashMap;

use cutpoint_trace::{AgentEvent, ClientOp, Entry, Observation, TurnEnd};
use serde_json::Value;

use super::digest_of_text;

/// A digest that is the same for traces in which the same happened in the same order, without ids,
/// times and the pieces in which texts came. What the server sends is left out, since it is not known
/// when the agent reads it.
pub fn sampled_digest(entries: &[Entry]) -> u64 {
    let mut words = Words::default();
    for entry in entries {
        words.take(&entry.observation);
    }
    digest_of_text(&words.words.join("\n"))
}

#[derive(Default)]
struct Words {
    words: Vec<String>,
    /// The turns by the order in which they are first named.
    turns: HashMap<String, usize>,
}

impl Words {
    fn take(&mut self, what: &Observation) {
        let word = match what {
            Observation::Op { op, .. } => op_word(op),
            Observation::OpReply { turn_id, error, .. } => {
                let turn = self.turn(turn_id.as_deref());
                let how = if error.is_some() {
                    "refused"
                } else {
                    "accepted"
                };
                format!("{how} {turn}")
            }
            Observation::Request {
                conversation, body, ..
            } => format!("request {conversation} {}", items(body)),
            Observation::Refused { status, .. } => format!("refused {status}"),
            Observation::AgentKilled => "killed".to_owned(),
            Observation::AgentStarted { resumed, .. } => format!("started {resumed}"),
            Observation::AgentExited { expected, .. } => format!("exited {expected}"),
            Observation::TimedOut { waiting_for, .. } => format!("waited for {waiting_for}"),
            Observation::Event { event, .. } => match self.event(event) {
                Some(word) => word,
                None => return,
            },
            _ => return,
        };
        // Pieces of one text are one.
        if self.words.last() != Some(&word) || !word.ends_with('…') {
            self.words.push(word);
        }
    }

    fn turn(&mut self, turn: Option<&str>) -> usize {
        let Some(turn) = turn else { return 0 };
        let next = self.turns.len() + 1;
        *self.turns.entry(turn.to_owned()).or_insert(next)
    }

    fn event(&mut self, event: &AgentEvent) -> Option<String> {
        let turn = self.turn(event.turn_id());
        let word = match event {
            AgentEvent::TurnStarted { .. } => "starts".to_owned(),
            AgentEvent::TurnEnded { end, .. } => match end {
                TurnEnd::Complete => "completes".to_owned(),
                TurnEnd::Aborted { reason } => format!("aborted {reason:?}"),
                TurnEnd::Failed { .. } => "fails".to_owned(),
            },
            AgentEvent::TextDelta { .. } => "text…".to_owned(),
            AgentEvent::ReasoningDelta { .. } => "reasoning…".to_owned(),
            AgentEvent::CallOutput { call_id, .. } => format!("output {call_id}…"),
            AgentEvent::Message { .. } => "message".to_owned(),
            AgentEvent::CallBegin { call_id, .. } => format!("begin {call_id}"),
            AgentEvent::CallEnd {
                call_id, exit_code, ..
            } => format!("end {call_id} {exit_code:?}"),
            AgentEvent::ApprovalRequest { call_id, .. } => format!("asks {call_id}"),
            AgentEvent::Question { call_id, .. } => format!("question {call_id}"),
            AgentEvent::UserMessage { text, .. } => format!("user {text}"),
            AgentEvent::Compacted { .. } => "compacted".to_owned(),
            AgentEvent::Error { .. } => "error".to_owned(),
            AgentEvent::SubAgentEvent { event, .. } => return self.event(event),
            // Usage, warnings and the like come at any time.
            _ => return None,
        };
        Some(format!("{turn} {word}"))
    }
}

fn op_word(op: &ClientOp) -> String {
    match op {
        ClientOp::Input { text, mode, .. } => format!("input {mode:?} {text}"),
        ClientOp::Interrupt { .. } => "interrupt".to_owned(),
        ClientOp::Approval { call_id, decision } => format!("{decision:?} {call_id}"),
        op => serde_json::to_string(op).unwrap_or_default(),
    }
}

/// The kinds of the items of a request, with the calls that they belong to.
fn items(body: &Value) -> String {
    let items = body["input"].as_array().map(Vec::as_slice);
    let kind = |item: &Value| {
        let word = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        format!("{}{}{}", word("type"), word("role"), word("call_id"))
    };
    let items = items.unwrap_or_default().iter().map(kind);
    items.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(turn: &str, pieces: usize, end: TurnEnd) -> Vec<Entry> {
        let turn_id = Some(turn.into());
        let mut events = vec![AgentEvent::TurnStarted {
            turn_id: turn.into(),
        }];
        events.extend((0..pieces).map(|at| AgentEvent::TextDelta {
            turn_id: turn_id.clone(),
            text: at.to_string(),
        }));
        events.push(AgentEvent::TurnEnded { turn_id, end });
        let entry = |(seq, event)| Entry {
            seq,
            at_ns: seq * turn.len() as u64,
            observation: Observation::Event {
                event,
                raw: cutpoint_trace::RawMessage::default(),
            },
        };
        (0..).zip(events).map(entry).collect()
    }

    #[test]
    fn ids_times_and_pieces_make_no_difference_and_what_happens_does() {
        let one = sampled_digest(&trace("a", 2, TurnEnd::Complete));
        assert_eq!(one, sampled_digest(&trace("another", 5, TurnEnd::Complete)));
        assert_ne!(one, sampled_digest(&trace("a", 0, TurnEnd::Complete)));
        let aborted = TurnEnd::Aborted { reason: None };
        assert_ne!(one, sampled_digest(&trace("a", 2, aborted)));
    }
}
