//! ROLL-6: a turn that a crash cut off resumes as interrupted.

use cutpoint_protocol::rollout::TurnEnd as LineEnd;

use crate::invariant::{Findings, Invariant};
use crate::view::{At, LineKind, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature, TurnEnd};

pub(super) struct CutTurnsAreInterrupted;

const REPORTED_COMPLETE: Clause = Clause {
    kind: "reported-complete",
    text: "turn {turn} was cut by a kill, but was reported as complete when the session was \
           resumed",
};
const RECORDED_COMPLETE: Clause = Clause {
    kind: "recorded-complete",
    text: "turn {turn} was cut by a kill, but the rollout closed it as complete when the session \
           was resumed",
};
const WENT_ON: Clause = Clause {
    kind: "went-on",
    text: "turn {turn} was cut by a kill, but went on when the session was resumed",
};

impl Invariant for CutTurnsAreInterrupted {
    fn id(&self) -> &'static str {
        "ROLL-6"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A turn that was cut by a crash counts as interrupted when its session is resumed: \
         neither the events nor the rollout complete it, and it does not continue."
    }

    fn source(&self) -> &'static str {
        "openai/codex #13379, #20392, #12382 and PR 14125 (a cold resume shows the turn as completed, \
         or as running)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn whose terminal line was in the rollout when the agent was killed had \
             finished; only its event was lost.",
            "If that line lacks only its line break, it is complete, and a resumed session may \
             add the break (ROLL-3) or drop the line.",
            "A rollout that leaves the turn open is for ROLL-4 to judge.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a session is resumed in which a kill had cut a turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[REPORTED_COMPLETE, RECORDED_COMPLETE, WENT_ON]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (index, turn) in view.turns.iter().enumerate() {
            let Some(killed) = turn.killed else { continue };
            let resumed = view.starts.iter().find(|start| start.at > killed);
            let Some(resumed) = resumed.filter(|start| start.resumed) else {
                continue;
            };
            findings.exercised += 1;
            // An agent that counts its turns anew in each session means another turn.
            let mut again = view.turns[index + 1..]
                .iter()
                .filter(|other| other.id == turn.id);
            let until = again
                .next()
                .map_or(view.trace.entries.len(), |other| other.begun);
            if let Some((fault, at)) = fault(view, turn, killed, resumed.at, until) {
                let fault = fault.with("turn", turn.id);
                findings.breach(view, fault, &[killed, resumed.at, at]);
            }
        }
        findings
    }
}

fn fault(
    view: &View<'_>,
    turn: &Turn<'_>,
    killed: At,
    resumed: At,
    until: At,
) -> Option<(Clause, At)> {
    let mut endings = turn
        .endings
        .iter()
        .filter(|ending| (resumed..until).contains(&ending.at));
    if let Some(ending) = endings.find(|ending| *ending.end == TurnEnd::Complete) {
        return Some((REPORTED_COMPLETE, ending.at));
    }
    if let Some(at) = completed_line(view, turn.id, killed, until) {
        return Some((RECORDED_COMPLETE, at));
    }
    let goes_on = |at: At| {
        let event = view.event(at)?;
        let own = event.turn_id() == Some(turn.id);
        (own && !matches!(event, AgentEvent::TurnEnded { .. })).then_some(at)
    };
    // Events while a session is restored are about its past; a turn that goes on is seen
    // after the next one's start.
    let next = view.next_turn_after(resumed);
    (next..until).find_map(goes_on).map(|at| (WENT_ON, at))
}

/// The read that first showed a line, written after the kill, which completes the turn.
fn completed_line(view: &View<'_>, id: &str, killed: At, until: At) -> Option<At> {
    let starts = &view.starts;
    let resumed = starts.iter().find(|start| start.at > killed)?.at;
    let lines = view.rollouts.iter().flat_map(|file| &file.lines);
    let complete = lines.filter(|line| match &line.kind {
        LineKind::Turn(bracket) => {
            bracket.end == Some(LineEnd::Complete) && bracket.turn_id.as_deref() == Some(id)
        }
        _ => false,
    });
    complete
        .map(|line| line.read_at)
        .find(|at| (resumed..until).contains(at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, is_idle, keeps, long_session, user};
    use cutpoint_trace::{AgentEvent, ReadTrigger};

    fn cut() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]).kill();
        t.read(ReadTrigger::Exit);
        t
    }

    fn closed(kind: &str) -> Tracer {
        let mut t = cut();
        t.resume()
            .wrote_line("event_msg", &json!({"type": kind, "turn_id": "t1"}));
        t.start("t2", "next").completed("t2").read(ReadTrigger::End);
        t
    }

    #[test]
    fn a_turn_that_is_closed_as_interrupted_passes() {
        keeps("ROLL-6", &closed("turn_aborted"), 1);
        keeps("ROLL-6", &long_session(), 1);
        is_idle("ROLL-6", &cut());
    }

    #[test]
    fn a_turn_that_is_closed_as_complete_is_a_breach() {
        breaks("ROLL-6/recorded-complete", &closed("task_complete"));
    }

    #[test]
    fn a_turn_that_is_reported_as_complete_is_a_breach() {
        let mut t = cut();
        breaks("ROLL-6/reported-complete", t.resume().completed("t1"));
    }

    #[test]
    fn a_turn_that_goes_on_is_a_breach() {
        let mut t = cut();
        t.resume().start("t2", "next").event(AgentEvent::TextDelta {
            turn_id: Some("t1".into()),
            text: "still here".into(),
        });
        breaks("ROLL-6/went-on", &t);
    }

    /// A turn's last line, of which a crash takes so many bytes; the resumed agent completes it.
    fn mended(lost_bytes: usize) -> Tracer {
        let line = r#"{"timestamp":"t","ordinal":9,"type":"event_msg","payload":{"type":"task_complete","turn_id":"t1"}}"#;
        let line = format!("{line}\n");
        let mut t = Tracer::new();
        t.start("t1", "run").wrote_raw(&line);
        t.kill().read(ReadTrigger::Exit);
        t.tear(lost_bytes).resume();
        t.wrote_raw(&line[line.len() - lost_bytes..]);
        t.start("t2", "next").completed("t2").read(ReadTrigger::End);
        t
    }

    #[test]
    fn a_line_that_lacks_its_line_break_only_is_no_breach() {
        keeps("ROLL-6", &mended(1), 1);
        breaks("ROLL-6/recorded-complete", &mended(2));
    }

    #[test]
    fn a_turn_that_had_finished_is_no_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run");
        t.wrote_line(
            "event_msg",
            &json!({"type": "task_complete", "turn_id": "t1"}),
        );
        t.kill()
            .read(ReadTrigger::Exit)
            .resume()
            .start("t2", "next");
        keeps("ROLL-6", t.read(ReadTrigger::End), 1);
    }
}
