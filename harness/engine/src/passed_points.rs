//! The cut points that a run has passed, as a client and a server see them: where an agent in another
//! process can be cut.

use std::collections::HashMap;

use cutpoint_scenario::ast::{Action, AgentEventKind, CutPoint, Scenario};
use cutpoint_trace::{AgentEvent, Entry, Observation};

/// The kind of an event, if a cut point can name it.
pub fn event_kind(event: &AgentEvent) -> Option<AgentEventKind> {
    Some(match event {
        AgentEvent::TurnStarted { .. } => AgentEventKind::TurnStarted,
        AgentEvent::TurnEnded { .. } => AgentEventKind::TurnEnded,
        AgentEvent::UserMessage { .. } => AgentEventKind::UserMessage,
        AgentEvent::TextDelta { .. } => AgentEventKind::TextDelta,
        AgentEvent::ReasoningDelta { .. } => AgentEventKind::ReasoningDelta,
        AgentEvent::Message { .. } => AgentEventKind::Message,
        AgentEvent::CallBegin { .. } => AgentEventKind::CallBegin,
        AgentEvent::CallEnd { .. } => AgentEventKind::CallEnd,
        AgentEvent::ApprovalRequest { .. } => AgentEventKind::ApprovalRequest,
        AgentEvent::Question { .. } => AgentEventKind::Question,
        AgentEvent::Compacted { .. } => AgentEventKind::Compacted,
        AgentEvent::Error { .. } => AgentEventKind::Error,
        _ => return None,
    })
}

/// What finds the entry in which the agent nth_event something for the n-th time.
pub fn nth_event(wanted: AgentEventKind, nth: usize) -> impl FnMut(&Observation) -> Option<()> {
    let mut left = nth;
    move |what| {
        left -= usize::from(event_kind_of(what) == Some(wanted));
        (left == 0).then_some(())
    }
}

fn event_kind_of(what: &Observation) -> Option<AgentEventKind> {
    match what {
        Observation::Event { event, .. } => event_kind(event),
        _ => None,
    }
}

/// All cut points that a run of the scenario has passed, in order, each with the number of steps that
/// stand in front of one that acts there: all that leads to the point, and none that waits for what
/// comes after it. With a stride also those inside the events of the first stream: one after every
/// so many bytes.
pub fn passed(
    scenario: &Scenario,
    entries: &[Entry],
    stride_bytes: Option<usize>,
) -> Vec<(CutPoint, usize)> {
    let mut run = PointCollector::default();
    for Entry { observation, .. } in entries {
        run.take(scenario, observation, stride_bytes);
    }
    run.cuts
}

#[derive(Default)]
struct PointCollector {
    cuts: Vec<(CutPoint, usize)>,
    /// The number of the step that the client is at.
    step: usize,
    /// Whether that step is done: everything from here on comes after it.
    done: bool,
    /// By exchange, the reply that it got.
    replies: HashMap<usize, usize>,
    seen: HashMap<AgentEventKind, usize>,
    /// The exchange whose bytes are cut.
    first_stream: Option<usize>,
}

impl PointCollector {
    fn take(&mut self, scenario: &Scenario, what: &Observation, stride_bytes: Option<usize>) {
        match what {
            Observation::Step { number, .. } => {
                self.step = *number;
                let step = scenario.steps.get(number.wrapping_sub(1));
                let waits =
                    |action: &Action| matches!(action, Action::Await(_) | Action::Wait { .. });
                self.done = step.is_some_and(|step| step.at.is_none() && !waits(&step.action));
            }
            Observation::Op { .. } | Observation::Reached { .. } | Observation::AgentKilled => {
                self.acts(scenario)
            }
            Observation::ResponseHead {
                exchange,
                reply: Some(reply),
                status,
                ..
            } => {
                self.replies.insert(*exchange, *reply);
                self.add(CutPoint::Request { reply: *reply });
                if *status == 200 {
                    self.add(CutPoint::Headers { reply: *reply });
                }
            }
            Observation::Sent {
                exchange,
                index,
                data,
            } => {
                let Some(reply) = self.replies.get(exchange).copied() else {
                    return;
                };
                let event = *index;
                let first = *self.first_stream.get_or_insert(*exchange);
                if let Some(stride) = stride_bytes.filter(|_| first == *exchange) {
                    for byte in (stride..frame_bytes(data)).step_by(stride) {
                        self.add(CutPoint::Byte { reply, event, byte });
                    }
                }
                self.add(CutPoint::StreamEvent { reply, event });
            }
            what => {
                if let Some(event) = event_kind_of(what) {
                    let nth = self.seen.entry(event).or_default();
                    *nth += 1;
                    let nth = *nth;
                    self.add(CutPoint::AgentEvent { event, nth });
                }
            }
        }
    }

    /// A step with a cut point has come to it, or has acted.
    fn acts(&mut self, scenario: &Scenario) {
        let step = scenario.steps.get(self.step.wrapping_sub(1));
        self.done |= step.is_some_and(|step| step.at.is_some());
    }

    fn add(&mut self, at: CutPoint) {
        if self.step == 0 || self.cuts.iter().any(|(known, _)| *known == at) {
            return;
        }
        self.cuts.push((at, self.step - usize::from(!self.done)));
    }
}

/// The least size of a frame that carries an event: after more bytes there is no cut inside it.
fn frame_bytes(event: &serde_json::Value) -> usize {
    event.to_string().len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cutpoint_trace::{ClientOp, TurnEnd};
    use serde_json::json;

    use super::*;

    const TEXT: &str = r#"scenario "s" {
    model { reply { text "Hello" } }
    user "hi"
    interrupt at="reply 1 event 2"
    await turn-ended
}
"#;

    fn step(number: usize) -> Observation {
        Observation::Step {
            number,
            line: 0,
            text: String::new(),
        }
    }

    fn op(op: ClientOp) -> Observation {
        let id = "op".to_owned();
        Observation::Op { id: id.into(), op }
    }

    fn sent(index: usize) -> Observation {
        Observation::Sent {
            exchange: 1,
            index,
            data: Arc::new(json!({"type": "x"})),
        }
    }

    fn event(event: AgentEvent) -> Observation {
        let raw = cutpoint_trace::RawMessage::default();
        Observation::Event { event, raw }
    }

    fn trace() -> Vec<Entry> {
        let ended = AgentEvent::TurnEnded {
            turn_id: None,
            end: TurnEnd::Complete,
        };
        let whats = vec![
            step(1),
            op(crate::injections::input(
                "hi",
                cutpoint_trace::InputMode::Start,
                None,
            )),
            Observation::ResponseHead {
                exchange: 1,
                status: 200,
                reply: Some(1),
                retry_after_ms: None,
            },
            step(2),
            sent(1),
            sent(2),
            op(ClientOp::Interrupt { turn_id: None }),
            step(3),
            event(ended),
        ];
        let entry = |(seq, what)| Entry {
            seq,
            at_ns: seq,
            observation: what,
        };
        (0..).zip(whats).map(entry).collect()
    }

    #[test]
    fn a_step_stands_behind_what_leads_to_its_point_and_before_what_waits_for_it() {
        let scenario =
            cutpoint_scenario::parse("s.kdl", TEXT).unwrap_or_else(|error| panic!("{error}"));
        let cuts = passed(&scenario.scenarios[0], &trace(), None);
        let cuts: Vec<(String, usize)> = cuts
            .iter()
            .map(|(at, place)| (at.to_string(), *place))
            .collect();
        let wanted = [
            ("request 1", 1),
            ("headers of reply 1", 1),
            // In front of the scenario's own interrupt, which had not acted yet.
            ("reply 1 event 1", 1),
            ("reply 1 event 2", 1),
            ("event turn-ended", 2),
        ];
        assert_eq!(cuts, wanted.map(|(at, place)| (at.to_owned(), place)));
        let bytes = passed(&scenario.scenarios[0], &trace(), Some(4));
        assert!(
            bytes
                .iter()
                .any(|(at, _)| at.to_string() == "byte 8 of reply 1 event 2")
        );
    }

    #[test]
    fn the_nth_telling_is_found_once() {
        let trace = trace();
        let found = |nth| {
            let mut nth_event = nth_event(AgentEventKind::TurnEnded, nth);
            trace
                .iter()
                .position(|entry| nth_event(&entry.observation).is_some())
        };
        assert_eq!((found(1), found(2)), (Some(8), None));
    }
}
