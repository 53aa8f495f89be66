//! What a person sees, in traces of tests.

use serde_json::json;

use super::{Tracer, marker, user};
use cutpoint_trace::{AgentEvent, Feature, Observation, RawMessage, ShownLine, TurnEnd};

impl Tracer {
    /// An agent whose view is observed.
    pub(crate) fn watched() -> Self {
        Self::new().with(Feature::Transcript)
    }

    /// A person sees this from now on.
    pub(crate) fn sees(&mut self, line: ShownLine) -> &mut Self {
        self.push(Observation::Shown { line })
    }

    /// A message of the model is seen while that turn is active.
    pub(crate) fn sees_message(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.sees(ShownLine::Message { turn_id, text })
    }

    /// The model's reasoning is seen while that turn is active.
    pub(crate) fn sees_reasoning(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.sees(ShownLine::Reasoning { turn_id, text })
    }

    /// An error is seen, and the turn that it stops as far as the view knows.
    pub(crate) fn sees_error(&mut self, text: &str, stopped: Option<&str>) -> &mut Self {
        let (text, stopped) = (text.to_owned(), stopped.map(Into::into));
        self.sees(ShownLine::Error { text, stopped })
    }

    /// The end of a turn is seen.
    pub(crate) fn sees_status(&mut self, text: &str) -> &mut Self {
        let text = text.to_owned();
        self.sees(ShownLine::Status { text })
    }

    /// The model reasons.
    pub(crate) fn reasons(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.event(AgentEvent::ReasoningDelta { turn_id, text })
    }

    /// An error event with the submission that it answers.
    pub(crate) fn error(&mut self, submission: &str, message: &str) -> &mut Self {
        let message = message.to_owned();
        let event = AgentEvent::Error {
            turn_id: None,
            message,
        };
        let raw = RawMessage::of(&json!({"id": submission}));
        self.push(Observation::Event { event, raw })
    }

    /// The stream of that turn broke and is asked for anew.
    pub(crate) fn stream_error(&mut self, turn: &str, message: &str) -> &mut Self {
        self.event(stream_error(turn, message))
    }

    /// A turn starts, by that submission.
    pub(crate) fn started_by(&mut self, turn: &str, submission: &str) -> &mut Self {
        let event = AgentEvent::TurnStarted {
            turn_id: turn.into(),
        };
        let raw = RawMessage::of(&json!({"id": submission}));
        self.push(Observation::Event { event, raw })
    }

    pub(crate) fn failed(&mut self, turn: &str, message: &str) -> &mut Self {
        let message = message.to_owned();
        self.ended(Some(turn), TurnEnd::Failed { message })
    }

    /// The view gets an event once more, late.
    pub(crate) fn late(&mut self, event: AgentEvent) -> &mut Self {
        self.push(Observation::Redelivered { event })
    }

    /// The view gets a piece of a message once more, late.
    pub(crate) fn late_delta(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.late(AgentEvent::TextDelta { turn_id, text })
    }
}

pub(crate) fn stream_error(turn: &str, message: &str) -> AgentEvent {
    AgentEvent::Error {
        turn_id: Some(turn.into()),
        message: message.to_owned(),
    }
}

/// A session whose view is observed: a turn is cut in mid-sentence, pieces of it come late, the next
/// one fails. Everything is as it should be.
pub(crate) fn watched_session() -> Tracer {
    let mut t = Tracer::watched();
    t.start("t1", "hi").request(1, &[user("hi")]).created(1);
    t.delta("t1", "The qu").interrupt().reply(None);
    t.wrote(&super::assistant("The qu")).wrote(&marker());
    t.written().synced().disconnected(1).aborted("t1");
    t.sees_message("t1", "The qu")
        .sees_status("task interrupted");
    t.read_at_end("t1").start("t2", "go on");
    t.late_delta("t1", "The qu");
    let history = [
        user("hi"),
        super::assistant("The qu"),
        marker(),
        user("go on"),
    ];
    t.request(2, &history).created(2).delta("t2", "Now");
    t.message("t2", "Now").sees_message("t2", "Now");
    t.failed("t2", "no more").sees_error("no more", Some("t2"));
    t.read_at_end("t2");
    t
}
