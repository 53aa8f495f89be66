//! VIEW-4: an abort reads as what it was.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AbortReason, AgentEvent, Feature, Observation, ShownLine, TurnEnd};

pub(super) struct AbortReadsAsItWas;

const UNANNOUNCED_ABORT: Clause = Clause {
    kind: "unannounced-abort",
    text: "an abort is shown that no event announced",
};
const SHOWN_AGAIN: Clause = Clause {
    kind: "shown-again",
    text: "the abort of turn {turn} is shown once more",
};
const NOT_SHOWN: Clause = Clause {
    kind: "not-shown",
    text: "the abort of turn {turn} is not shown",
};
const WRONG_TEXT: Clause = Clause {
    kind: "wrong-text",
    text: "the abort of turn {turn} is shown as {shown:?} instead of {expected:?}",
};
const SHOWN_TWICE: Clause = Clause {
    kind: "shown-twice",
    text: "the abort of turn {turn} is shown {count} times",
};

const INTERRUPTED: &str = "task interrupted";
const REPLACED: &str = "task aborted: replaced by a new task";

impl Invariant for AbortReadsAsItWas {
    fn id(&self) -> &'static str {
        "VIEW-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "The abort of a turn is shown once, as \"task interrupted\" or as \"task aborted: \
         replaced by a new task\", according to its reason."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365: the view distinguishes an interrupted turn from a replaced one"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Transcript, Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &["A turn that a crash cut off has no abort to show: no event announced it."]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is aborted, or its abort is delivered again"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            UNANNOUNCED_ABORT,
            SHOWN_AGAIN,
            NOT_SHOWN,
            WRONG_TEXT,
            SHOWN_TWICE,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut known = HashSet::default();
        for (at, entry) in view.trace.entries.iter().enumerate() {
            let (event, is_late) = match &entry.observation {
                Observation::Event { event, .. } => (event, false),
                Observation::Redelivered { event } => (event, true),
                _ => continue,
            };
            let abort = abort(event);
            findings.exercised += usize::from(abort.is_some());
            let first = abort.filter(|(turn, _)| known.insert(*turn) && !is_late);
            let wanted = first.map(|(_, text)| text);
            let lines: Vec<(At, &str)> = statuses(view, at, wanted.is_some());
            if lines.iter().map(|(_, text)| *text).eq(wanted) {
                continue;
            }
            let fault = fault(abort, wanted, &lines);
            let mut shown_by = vec![at];
            shown_by.extend(lines.iter().map(|(at, _)| *at));
            findings.breach(view, fault, &shown_by);
        }
        findings
    }
}

/// The turn whose abort an event reports, and how that reads.
fn abort(event: &AgentEvent) -> Option<(&str, &'static str)> {
    let AgentEvent::TurnEnded {
        turn_id: Some(turn),
        end: TurnEnd::Aborted { reason },
    } = event
    else {
        return None;
    };
    let text = match reason {
        Some(AbortReason::Replaced) => REPLACED,
        None | Some(AbortReason::Interrupted) => INTERRUPTED,
    };
    Some((turn, text))
}

/// The lines after an event that say how a turn ended; for other events only those that read as an
/// abort.
fn statuses<'a>(view: &View<'a>, at: At, all: bool) -> Vec<(At, &'a str)> {
    let lines = view.shown_after(at).filter_map(|(at, line)| match line {
        ShownLine::Status { text } => Some((at, text.as_str())),
        _ => None,
    });
    lines
        .filter(|(_, text)| all || [INTERRUPTED, REPLACED].contains(text))
        .collect()
}

fn fault(abort: Option<(&str, &str)>, wanted: Option<&str>, lines: &[(At, &str)]) -> Fault {
    let Some((turn, _)) = abort else {
        return UNANNOUNCED_ABORT.into();
    };
    let fault = match (wanted, lines) {
        (None, _) => SHOWN_AGAIN.into(),
        (Some(_), []) => NOT_SHOWN.into(),
        (Some(text), [(_, line)]) => WRONG_TEXT.with("shown", *line).with("expected", text),
        (Some(_), lines) => SHOWN_TWICE.with("count", lines.len()),
    };
    fault.with("turn", turn)
}

#[cfg(test)]
mod tests {
    use super::{INTERRUPTED, REPLACED};
    use crate::testing::{Tracer, breaks, is_idle, keeps, watched_session};
    use cutpoint_trace::{AbortReason, AgentEvent, TurnEnd};

    fn aborted_once_more() -> AgentEvent {
        let reason = Some(AbortReason::Interrupted);
        AgentEvent::TurnEnded {
            turn_id: Some("t1".into()),
            end: TurnEnd::Aborted { reason },
        }
    }

    fn cut() -> Tracer {
        let mut t = Tracer::watched();
        t.start("t1", "one").aborted("t1");
        t
    }

    #[test]
    fn aborts_that_read_as_they_were_pass() {
        keeps("VIEW-4", &watched_session(), 1);
        let mut t = cut();
        t.sees_status(INTERRUPTED)
            .start("t2", "two")
            .late(aborted_once_more());
        keeps("VIEW-4", t.replaced("t2").sees_status(REPLACED), 3);
        let mut t = Tracer::watched();
        is_idle(
            "VIEW-4",
            t.start("t1", "one").completed("t1").sees_status("done"),
        );
    }

    #[test]
    fn an_abort_that_is_not_shown_is_a_breach() {
        breaks("VIEW-4/not-shown", &cut());
    }

    #[test]
    fn a_replaced_turn_is_not_interrupted() {
        let mut t = Tracer::watched();
        t.start("t1", "one").replaced("t1").sees_status(INTERRUPTED);
        breaks("VIEW-4/wrong-text", &t);
        breaks("VIEW-4/wrong-text", cut().sees_status(REPLACED));
        breaks("VIEW-4/wrong-text", cut().sees_status("Task interrupted!"));
    }

    #[test]
    fn an_abort_that_is_shown_twice_is_a_breach() {
        let mut t = cut();
        t.sees_status(INTERRUPTED).sees_status(INTERRUPTED);
        assert!(breaks("VIEW-4/shown-twice", &t).text().contains("2 times"));
        let mut t = cut();
        t.sees_status(INTERRUPTED).late(aborted_once_more());
        let breach = breaks("VIEW-4/shown-again", t.sees_status(INTERRUPTED));
        assert!(breach.text().contains("once more"));
    }

    #[test]
    fn an_abort_that_no_event_announced_is_a_breach() {
        let mut t = Tracer::watched();
        t.start("t1", "one").completed("t1");
        breaks("VIEW-4/unannounced-abort", t.sees_status(INTERRUPTED));
    }
}
