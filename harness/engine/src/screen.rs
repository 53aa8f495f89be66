//! What a person sees of a case, where the harness has the agent's own view of its events.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutpoint_agent::{DefectSet, Transcript, TranscriptLine};
use cutpoint_protocol::session::{Event, EventMsg};
use cutpoint_scenario::ast::LateEvent;
use cutpoint_trace::{AgentEvent, Entry, Observation, ShownLine};

use crate::driver::kit::queue_protocol;
use crate::tracer::Tracer;

/// Why an event could not be delivered once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedeliveryError {
    /// The agent's view of its events is not known.
    #[error("the agent's view is not known")]
    NoView,
    /// No such event of a turn that has ended.
    #[error("no turn that has ended had such an event: {0}")]
    NoEvent(LateEvent),
}

/// The view of a case's agent. It stays closed for agents whose view is not known.
#[derive(Debug, Default)]
pub struct Screen(Mutex<Option<Transcript>>);

impl Screen {
    /// Begins with an empty view, as the agent was started.
    pub fn open(&self, defects: DefectSet) {
        *self.lock() = Some(Transcript::new(defects));
    }

    /// Records an event by `record`, then the lines that are new because of it. No other
    /// event comes between them.
    pub fn observe(&self, event: &Event, tracer: &Tracer, record: impl FnOnce()) {
        let mut transcript = self.lock();
        record();
        if let Some(transcript) = transcript.as_mut() {
            tracer.record_many(transcript.take(event).into_iter().map(shown));
        }
    }

    /// Gives the view the last event of that kind of a turn that has ended once more, as a client
    /// whose queue is slow may see it.
    ///
    /// # Errors
    /// If there is no such event, or no view.
    pub fn redeliver(&self, kind: LateEvent, tracer: &Tracer) -> Result<(), RedeliveryError> {
        let mut transcript = self.lock();
        let transcript = transcript.as_mut().ok_or(RedeliveryError::NoView)?;
        let event = tracer
            .with(0, |entries| last_of_an_ended_turn(kind, entries))
            .ok_or(RedeliveryError::NoEvent(kind))?;
        let meaning = queue_protocol::meaning(&event.msg);
        let redelivered = Observation::Redelivered { event: meaning };
        let lines = transcript.take(&event).into_iter().map(shown);
        tracer.record_many(std::iter::once(redelivered).chain(lines));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Transcript>> {
        // A panic while the lock is held leaves a view that shows too little, never a broken one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event as the agent sent it.
fn last_of_an_ended_turn(kind: LateEvent, entries: &[Entry]) -> Option<Event> {
    let mut ended = HashSet::new();
    let mut submissions = HashSet::new();
    for entry in entries {
        let Observation::Event { event, raw } = &entry.observation else {
            continue;
        };
        if let AgentEvent::TurnEnded { turn_id, .. } = event {
            ended.extend(turn_id.as_deref());
            // An error names the submission that its turn was started by, and no turn.
            submissions.extend(raw.value()["id"].as_str().map(str::to_owned));
        }
    }
    let late = |entry: &Entry| {
        let Observation::Event { raw, .. } = &entry.observation else {
            return None;
        };
        let event: Event = serde_json::from_str(raw.text()).ok()?;
        let over = match event.msg.turn_id() {
            Some(turn_id) => ended.contains(turn_id.as_str()),
            None => submissions.contains(event.id.as_str()),
        };
        (over && is_of(kind, &event.msg)).then_some(event)
    };
    entries.iter().rev().find_map(late)
}

fn is_of(kind: LateEvent, msg: &EventMsg) -> bool {
    match kind {
        LateEvent::Delta => matches!(
            msg,
            EventMsg::AgentMessageDelta { .. } | EventMsg::AgentReasoningDelta { .. }
        ),
        LateEvent::Message => matches!(msg, EventMsg::AgentMessage { .. }),
        LateEvent::Command => matches!(msg, EventMsg::ExecCommandBegin { .. }),
        LateEvent::Error => matches!(msg, EventMsg::Error { .. } | EventMsg::StreamError { .. }),
        LateEvent::End => msg.is_terminal(),
    }
}

fn shown(line: TranscriptLine) -> Observation {
    let line = match line {
        TranscriptLine::User { text } => ShownLine::User { text },
        TranscriptLine::Message { turn_id, text } => ShownLine::Message { turn_id, text },
        TranscriptLine::Reasoning { turn_id, text } => ShownLine::Reasoning { turn_id, text },
        TranscriptLine::Command { call_id, text } => ShownLine::Command { call_id, text },
        TranscriptLine::Waiting { call_id, text } => ShownLine::Waiting { call_id, text },
        TranscriptLine::Error { text, stopped } => ShownLine::Error { text, stopped },
        TranscriptLine::Status { text } => ShownLine::Status { text },
    };
    Observation::Shown { line }
}

#[cfg(test)]
mod tests {
    use cutpoint_trace::RawMessage;
    use serde_json::json;

    use super::*;

    /// A client of a view: events go to the trace and to the view alike.
    struct Client {
        screen: Screen,
        tracer: Tracer,
    }

    impl Client {
        fn new() -> Self {
            let (screen, tracer) = (Screen::default(), Tracer::default());
            screen.open(DefectSet::default());
            Self { screen, tracer }
        }

        fn take(&self, id: &str, msg: &serde_json::Value) {
            let raw = json!({"id": id, "msg": msg});
            let event: Event = serde_json::from_value(raw.clone()).unwrap();
            self.screen.observe(&event, &self.tracer, || {
                let (event, raw) = (queue_protocol::meaning(&event.msg), RawMessage::of(&raw));
                self.tracer.record(Observation::Event { event, raw });
            });
        }

        fn turn(&self, turn: &str, last: &str) {
            self.take(turn, &json!({"type": "turn_started", "turn_id": turn}));
            let delta = json!({"type": "agent_message_delta", "turn_id": turn, "delta": last});
            self.take(turn, &delta);
            self.take(turn, &json!({"type": "error", "message": last}));
        }

        fn abort(&self, turn: &str) {
            let end = json!({"type": "turn_aborted", "turn_id": turn, "reason": "interrupted"});
            self.take(turn, &end);
        }

        /// What is recorded when an event comes late.
        fn late(&self, kind: LateEvent) -> Result<Vec<Observation>, RedeliveryError> {
            let seen = self.tracer.len();
            self.screen.redeliver(kind, &self.tracer)?;
            let new = |entries: &[Entry]| {
                entries
                    .iter()
                    .map(|entry| entry.observation.clone())
                    .collect()
            };
            Ok(self.tracer.with(seen, new))
        }
    }

    #[test]
    fn lines_stand_right_behind_their_event() {
        let client = Client::new();
        client.turn("t1", "Hel");
        client.abort("t1");
        let entries = client.tracer.entries();
        let lines = entries.iter().filter_map(|entry| match &entry.observation {
            Observation::Shown { line } => Some((entry.seq, line.text())),
            _ => None,
        });
        let wanted = [(3, "Hel"), (5, "Hel"), (6, "task interrupted")];
        assert_eq!(lines.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn only_what_a_turn_that_has_ended_told_comes_late() {
        let client = Client::new();
        client.turn("t1", "one");
        let failure = client.late(LateEvent::Delta).unwrap_err();
        assert_eq!(failure, RedeliveryError::NoEvent(LateEvent::Delta));
        client.abort("t1");
        client.turn("t2", "two");
        let late = client.late(LateEvent::Delta).unwrap();
        let [Observation::Redelivered { event }] = &late[..] else {
            panic!("{late:?}")
        };
        assert!(matches!(event, AgentEvent::TextDelta { text, .. } if text == "one"));
        let late = client.late(LateEvent::Error).unwrap();
        let stopped = None;
        let text = "one".to_owned();
        let line = ShownLine::Error { text, stopped };
        assert_eq!(late.last(), Some(&Observation::Shown { line }));
        assert!(client.late(LateEvent::Command).is_err());
        assert_eq!(client.late(LateEvent::End).unwrap().len(), 1);
    }

    #[test]
    fn a_view_that_is_not_known_shows_nothing() {
        let client = Client {
            screen: Screen::default(),
            ..Client::new()
        };
        client.turn("t1", "one");
        assert_eq!(client.tracer.len(), 3);
        let failure = client.late(LateEvent::Delta).unwrap_err();
        assert_eq!(failure, RedeliveryError::NoView);
    }
}
