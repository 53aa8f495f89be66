//! VIEW-1: a turn's message consists of its own text.

use crate::fast_hash::HashMap;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature, Observation, ShownLine, TurnEnd};

pub(super) struct TextStaysInItsTurn;

const LATE_EVENT_SHOWN: Clause = Clause {
    kind: "late-event-shown",
    text: "an event of a turn that has ended shows {text:?}",
};
const FOREIGN_TEXT: Clause = Clause {
    kind: "foreign-text",
    text: "turn {turn} shows {text:?}, which its events did not give",
};

impl Invariant for TextStaysInItsTurn {
    fn id(&self) -> &'static str {
        "VIEW-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "No text of an aborted turn appears in a later turn's message: the message and the \
         reasoning shown for a turn come from that turn's own events, and an event that arrives \
         after its turn has ended shows nothing."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1610: stale deltas are dropped, and the buffers are cleared at a turn's start"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Transcript, Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &["LateEvent errors and late ends of turns are not judged here: errors are always shown."]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn after an aborted one shows text of the model, or a text or a command arrives late"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[LATE_EVENT_SHOWN, FOREIGN_TEXT]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut texts = TurnTexts::default();
        let mut aborted = false;
        // Whether a turn has started after an aborted one.
        let mut after = false;
        // The event that came late, as long as no other event follows it.
        let mut late: Option<At> = None;
        for (at, entry) in view.trace.entries.iter().enumerate() {
            match &entry.observation {
                Observation::Event { event, .. } => {
                    late = None;
                    aborted |= is_abort(event);
                    after |= aborted && matches!(event, AgentEvent::TurnStarted { .. });
                    texts.add(at, event);
                }
                Observation::Redelivered { event } => {
                    late = is_text_or_call(event).then_some(at);
                    findings.exercised += usize::from(late.is_some());
                }
                Observation::Shown { line } => {
                    if let Some(late) = late {
                        let fault = LATE_EVENT_SHOWN.with("text", start(line.text()));
                        findings.breach(view, fault, &[late, at]);
                    } else if let Some((turn, text, own)) = texts.of(line) {
                        findings.exercised += usize::from(after);
                        if !own.gave(text) {
                            let begun = texts.origin(turn, text);
                            let fault = FOREIGN_TEXT.with("turn", turn.unwrap_or("none"));
                            let fault = fault.with("text", start(text));
                            let shown_by: Vec<At> = begun.into_iter().chain([at]).collect();
                            findings.breach(view, fault, &shown_by);
                        }
                    }
                }
                _ => {}
            }
        }
        findings
    }
}

fn start(text: &str) -> String {
    text.chars().take(40).collect()
}

fn is_abort(event: &AgentEvent) -> bool {
    let aborted = |end: &TurnEnd| matches!(end, TurnEnd::Aborted { .. });
    matches!(event, AgentEvent::TurnEnded { end, .. } if aborted(end))
}

fn is_text_or_call(event: &AgentEvent) -> bool {
    !matches!(
        event,
        AgentEvent::Error { .. } | AgentEvent::TurnEnded { .. }
    )
}

/// The texts of one kind that a turn's events gave, in order.
#[derive(Debug, Default)]
struct Texts<'a> {
    pieces: Vec<&'a str>,
    whole: Vec<&'a str>,
}

impl Texts<'_> {
    /// Whether a text is one of the whole ones, or a run of pieces with none left out.
    fn gave(&self, text: &str) -> bool {
        self.whole.contains(&text)
            || (0..self.pieces.len()).any(|from| is_run(text, &self.pieces[from..]))
    }
}

/// Whether a text consists of the first of these pieces.
fn is_run(text: &str, pieces: &[&str]) -> bool {
    let mut rest = text;
    for piece in pieces {
        match rest.strip_prefix(piece) {
            Some(left) => rest = left,
            None => return false,
        }
        if rest.is_empty() {
            return true;
        }
    }
    false
}

/// What the events of each turn gave.
#[derive(Debug, Default)]
struct TurnTexts<'a> {
    answers: HashMap<&'a str, Texts<'a>>,
    reasoning: HashMap<&'a str, Texts<'a>>,
    nothing: Texts<'a>,
    /// Each piece with its turn and its event.
    all: Vec<(At, &'a str, &'a str)>,
}

impl<'a> TurnTexts<'a> {
    fn add(&mut self, at: At, event: &'a AgentEvent) {
        let Some(turn) = event.turn_id() else { return };
        let text = match event {
            AgentEvent::TextDelta { text, .. } => {
                self.answers.entry(turn).or_default().pieces.push(text);
                text
            }
            AgentEvent::Message { text, .. } => {
                self.answers.entry(turn).or_default().whole.push(text);
                text
            }
            AgentEvent::ReasoningDelta { text, .. } => {
                self.reasoning.entry(turn).or_default().pieces.push(text);
                text
            }
            _ => return,
        };
        self.all.push((at, turn, text));
    }

    /// The turn and the text of a line that the model wrote, and what the turn's events gave.
    fn of<'b>(&self, line: &'b ShownLine) -> Option<(Option<&'b str>, &'b str, &Texts<'a>)> {
        let (turn_id, text, given) = match line {
            ShownLine::Message { turn_id, text } => (turn_id, text, &self.answers),
            ShownLine::Reasoning { turn_id, text } => (turn_id, text, &self.reasoning),
            _ => return None,
        };
        let turn = turn_id.as_deref();
        let own = turn.and_then(|turn| given.get(turn));
        Some((turn, text, own.unwrap_or(&self.nothing)))
    }

    /// The last event of another turn that may have given a part of the text.
    fn origin(&self, turn: Option<&str>, text: &str) -> Option<At> {
        let mut pieces = self.all.iter().rev();
        let other = pieces
            .find(|(_, of, piece)| Some(*of) != turn && !piece.is_empty() && text.contains(piece));
        other.map(|(at, ..)| *at)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, is_idle, keeps, stream_error, watched_session};
    use cutpoint_trace::{AgentEvent, ShownLine};

    /// A turn that is cut when it has shown half a sentence, and the next one's start.
    fn cut() -> Tracer {
        let mut t = Tracer::watched();
        t.start("t1", "hi")
            .reasons("t1", "Hm. ")
            .delta("t1", "The ")
            .delta("t1", "quick");
        t.aborted("t1")
            .sees_reasoning("t1", "Hm. ")
            .sees_message("t1", "The quick");
        t.sees_status("task interrupted").start("t2", "next");
        t
    }

    #[test]
    fn a_turns_own_text_passes() {
        keeps("VIEW-1", &watched_session(), 2);
        let mut t = cut();
        t.reasons("t2", "Well.")
            .delta("t2", "No")
            .sees_reasoning("t2", "Well.");
        t.delta("t2", "w.")
            .message("t2", "Now.")
            .sees_message("t2", "Now.");
        keeps("VIEW-1", &t, 2);
        let mut t = Tracer::watched();
        t.start("t1", "hi")
            .message("t1", "Hello.")
            .sees_message("t1", "Hello.");
        is_idle("VIEW-1", &t);
    }

    #[test]
    fn text_of_the_aborted_turn_is_a_breach() {
        let mut t = cut();
        t.delta("t2", "Now.").message("t2", "Now.");
        let breach = breaks("VIEW-1/foreign-text", t.sees_message("t2", "The quickNow."));
        assert!(breach.text().contains("turn t2 shows"));
        assert_eq!(breach.evidence.len(), 2, "the piece and the line");
    }

    #[test]
    fn one_stale_piece_is_a_breach() {
        let mut t = cut();
        t.late_delta("t1", "quick")
            .delta("t2", "Now.")
            .message("t2", "Now.");
        breaks("VIEW-1/foreign-text", t.sees_message("t2", "quickNow."));
    }

    #[test]
    fn reasoning_of_the_aborted_turn_is_a_breach() {
        let mut t = cut();
        breaks(
            "VIEW-1/foreign-text",
            t.reasons("t2", "Well.").sees_reasoning("t2", "Hm. Well."),
        );
    }

    #[test]
    fn text_without_a_turn_is_a_breach() {
        let mut t = cut();
        t.delta("t2", "Now.").completed("t2");
        let text = "quick".to_owned();
        breaks(
            "VIEW-1/foreign-text",
            t.sees(ShownLine::Message {
                turn_id: None,
                text,
            }),
        );
    }

    #[test]
    fn an_event_that_comes_late_shows_nothing_but_errors() {
        let mut t = cut();
        t.late(AgentEvent::CallBegin {
            turn_id: Some("t1".into()),
            call_id: "c1".into(),
            command: "ls".into(),
            pid: None,
        });
        let (call_id, text) = ("c1".to_owned(), "ls".to_owned());
        breaks(
            "VIEW-1/late-event-shown",
            t.sees(ShownLine::Command {
                call_id: call_id.into(),
                text,
            }),
        );
        let mut t = cut();
        t.late(stream_error("t1", "broken"))
            .sees_error("broken", None);
        is_idle("VIEW-1", &t);
    }
}
