//! VIEW-2: every error is shown, and stops its own turn only.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature, Observation, RawMessage, ShownLine, TurnEnd};

pub(super) struct ErrorsAreShown;

const NOT_SHOWN: Clause = Clause {
    kind: "not-shown",
    text: "the error {text:?} is not shown",
};
const STOPS_OTHER_TURN: Clause = Clause {
    kind: "stops-other-turn",
    text: "the error {text:?} is not an error of turn {turn}, but stops it",
};
const DOES_NOT_STOP: Clause = Clause {
    kind: "does-not-stop",
    text: "the error {text:?} is an error of turn {turn}, but does not stop it",
};

impl Invariant for ErrorsAreShown {
    fn id(&self) -> &'static str {
        "VIEW-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Every error is shown, even one of a turn that has ended; the active turn counts as \
         stopped because of its own failure and of no other error."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1610: errors are always shown, a stale one does not stop the active turn"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Transcript, Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[]
    }

    fn exercised_when(&self) -> &'static str {
        "an error is reported, or arrives late"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NOT_SHOWN, STOPS_OTHER_TURN, DOES_NOT_STOP]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut active = None;
        for (at, entry) in view.trace.entries.iter().enumerate() {
            match &entry.observation {
                Observation::Event { event, raw } => {
                    if let AgentEvent::TurnStarted { turn_id } = event {
                        active = Some(ActiveTurn {
                            turn_id,
                            begun: raw,
                        });
                    }
                    if let Some(message) = error(event) {
                        let stops = active.filter(|active| active.stops(event, raw));
                        let stopped = stops.map(|active| active.turn_id);
                        check_shown(view, &mut findings, at, message, stopped);
                    }
                    if let AgentEvent::TurnEnded { turn_id, .. } = event {
                        active = active.filter(|active| turn_id.as_deref() != Some(active.turn_id));
                    }
                }
                Observation::Redelivered { event } => {
                    if let Some(message) = error(event) {
                        check_shown(view, &mut findings, at, message, None);
                    }
                }
                Observation::AgentStarted { .. } => active = None,
                _ => {}
            }
        }
        findings
    }
}

/// The active turn, and the message that announced its start, which names its submission.
#[derive(Debug, Clone, Copy)]
struct ActiveTurn<'a> {
    turn_id: &'a str,
    begun: &'a RawMessage,
}

impl ActiveTurn<'_> {
    /// Whether an error stops this turn: it is the turn's failure, or what came of its submission.
    /// An error that names a turn without ending it is one that the turn tries to get over.
    fn stops(&self, error: &AgentEvent, raw: &RawMessage) -> bool {
        match error {
            AgentEvent::TurnEnded { turn_id, .. } => turn_id.as_deref() == Some(self.turn_id),
            AgentEvent::Error { turn_id: None, .. } => {
                let submission = self.begun.value()["id"].take();
                submission.is_string() && raw.value()["id"] == submission
            }
            _ => false,
        }
    }
}

fn error(event: &AgentEvent) -> Option<&str> {
    match event {
        AgentEvent::Error { message, .. }
        | AgentEvent::TurnEnded {
            end: TurnEnd::Failed { message },
            ..
        } => Some(message),
        _ => None,
    }
}

fn check_shown(
    view: &View<'_>,
    findings: &mut Findings,
    at: At,
    message: &str,
    wanted: Option<&str>,
) {
    findings.exercised += 1;
    let shown = view.shown_after(at).find_map(|(line_at, line)| match line {
        ShownLine::Error { text, stopped } if text.contains(message.trim()) => {
            Some((line_at, stopped.as_deref()))
        }
        _ => None,
    });
    let start: String = message.chars().take(40).collect();
    let Some((line_at, stopped)) = shown else {
        return findings.breach(view, NOT_SHOWN.with("text", start), &[at]);
    };
    let fault = match (stopped, wanted) {
        (stopped, wanted) if stopped == wanted => return,
        (Some(turn), _) => STOPS_OTHER_TURN.with("turn", turn),
        (None, turn) => DOES_NOT_STOP.with("turn", turn.unwrap_or_default()),
    };
    findings.breach(view, fault.with("text", start), &[at, line_at]);
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, is_idle, keeps, stream_error, watched_session};
    use cutpoint_trace::{AgentEvent, TurnEnd};

    /// A turn that ran into trouble and has ended, and the next one.
    fn troubled() -> Tracer {
        let mut t = Tracer::watched();
        t.started_by("t1", "op1")
            .stream_error("t1", "broken")
            .sees_error("broken", None);
        t.aborted("t1")
            .sees_status("task interrupted")
            .started_by("t2", "op2");
        t
    }

    #[test]
    fn errors_that_are_shown_pass() {
        keeps("VIEW-2", &watched_session(), 1);
        let mut t = troubled();
        t.error("op3", "no such op").sees_error("no such op", None);
        t.late(stream_error("t1", "broken"))
            .sees_error("broken", None);
        t.error("op2", "disk full")
            .sees_error("disk full", Some("t2"));
        t.failed("t2", "over").sees_error("over", Some("t2"));
        t.error("op2", "once more").sees_error("once more", None);
        keeps("VIEW-2", &t, 6);
        is_idle("VIEW-2", Tracer::watched().start("t1", "hi"));
    }

    #[test]
    fn an_error_that_is_not_shown_is_a_breach() {
        let breach = breaks("VIEW-2/not-shown", troubled().error("op3", "no such op"));
        assert!(breach.text().contains("is not shown"));
        breaks(
            "VIEW-2/not-shown",
            troubled().late(stream_error("t1", "broken")),
        );
        breaks("VIEW-2/not-shown", troubled().failed("t2", "over"));
    }

    #[test]
    fn a_line_of_another_event_does_not_count() {
        let mut t = troubled();
        t.error("op3", "no").background("wait");
        breaks("VIEW-2/not-shown", t.sees_error("no", None));
    }

    #[test]
    fn a_stale_error_that_stops_the_active_turn_is_a_breach() {
        let mut t = troubled();
        t.late(stream_error("t1", "broken"));
        let breach = breaks(
            "VIEW-2/stops-other-turn",
            t.sees_error("broken", Some("t2")),
        );
        assert!(breach.text().contains("not an error of turn t2"));
        let mut t = troubled();
        breaks("VIEW-2", t.error("op3", "no").sees_error("no", Some("t2")));
        let end = TurnEnd::Failed {
            message: "over".into(),
        };
        let turn_id = Some("t1".into());
        let mut t = troubled();
        t.late(AgentEvent::TurnEnded { turn_id, end });
        breaks("VIEW-2", t.sees_error("over", Some("t2")));
    }

    #[test]
    fn a_broken_stream_that_is_tried_again_stops_nothing() {
        let mut t = troubled();
        t.stream_error("t2", "broken");
        breaks(
            "VIEW-2/stops-other-turn",
            t.sees_error("broken", Some("t2")),
        );
    }

    #[test]
    fn a_failure_that_does_not_stop_its_turn_is_a_breach() {
        let mut t = troubled();
        let breach = breaks(
            "VIEW-2/does-not-stop",
            t.failed("t2", "over").sees_error("over", None),
        );
        assert!(breach.text().contains("an error of turn t2"));
        let mut t = troubled();
        breaks(
            "VIEW-2",
            t.error("op2", "disk full").sees_error("disk full", None),
        );
    }
}
