//! TURN-1: one terminal event per turn.

use crate::invariant::{Findings, Invariant};
use crate::view::{Turn, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct OneEndPerTurn;

const NO_END: Clause = Clause {
    kind: "no-end",
    text: "turn {turn} has no terminal event up to the end of the run",
};
const NO_END_BEFORE_EXIT: Clause = Clause {
    kind: "no-end-before-exit",
    text: "turn {turn} has no terminal event before the agent exited",
};
const SEVERAL_ENDS: Clause = Clause {
    kind: "several-ends",
    text: "turn {turn} has {count} terminal events: {ends}",
};

impl Invariant for OneEndPerTurn {
    fn id(&self) -> &'static str {
        "TURN-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Each turn that started gets exactly one terminal event: complete, aborted or failed."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 (one TurnAborted per turn) and #4173 (a turn both completed and aborted)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn that is active when the agent is killed needs no terminal event, and may get \
             one after a resume: a dead agent reports nothing.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn starts"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NO_END, NO_END_BEFORE_EXIT, SEVERAL_ENDS]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for turn in &view.turns {
            // A turn that was only ever announced is TURN-8's.
            if turn.phantom(&view.turns) {
                continue;
            }
            findings.exercised += 1;
            match &turn.endings[..] {
                [] if turn.killed.is_none() => {
                    let exit = turn.exited.map(|at| (NO_END_BEFORE_EXIT, at));
                    let (clause, at) = exit.unwrap_or((NO_END, turn.begun));
                    findings.breach(view, clause.with("turn", turn.id), &[turn.begun, at]);
                }
                [] | [_] => {}
                several => {
                    let mut shown_by = vec![turn.begun];
                    shown_by.extend(several.iter().map(|ending| ending.at));
                    findings.breach(view, too_many(turn), &shown_by);
                }
            }
        }
        findings
    }
}

fn too_many(turn: &Turn<'_>) -> Fault {
    let ends: Vec<&str> = (turn.endings.iter())
        .map(|ending| ending.in_words())
        .collect();
    let fault = SEVERAL_ENDS.with("turn", turn.id).with("count", ends.len());
    fault.with("ends", ends.join(", then "))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, keeps, long_session};
    use cutpoint_trace::{ClientOp, TurnEnd};

    #[test]
    fn one_end_each_passes() {
        keeps("TURN-1", &interrupted_tool(), 2);
        keeps("TURN-1", &long_session(), 5);
    }

    #[test]
    fn a_turn_without_an_end_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi");
        breaks("TURN-1/no-end", &t);
        t.op(ClientOp::Shutdown).exit();
        breaks("TURN-1/no-end-before-exit", &t);
    }

    #[test]
    fn a_second_end_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").aborted("t1");
        assert_eq!(
            breaks("TURN-1/several-ends", &t).text(),
            "turn t1 has 2 terminal events: complete, then aborted (interrupted)"
        );
        let mut t = Tracer::new();
        t.start("t1", "hi");
        t.ended(None, TurnEnd::Complete)
            .ended(None, TurnEnd::Complete);
        breaks("TURN-1/several-ends", &t);
    }

    #[test]
    fn a_killed_turn_needs_no_end() {
        let mut t = Tracer::new();
        t.start("t1", "hi").kill().resume();
        keeps("TURN-1", &t, 1);
        keeps("TURN-1", t.aborted("t1"), 1);
    }

    #[test]
    fn ids_may_count_anew_in_each_session() {
        let mut t = Tracer::new();
        t.start("0", "hi").completed("0").kill().resume();
        keeps("TURN-1", t.start("0", "ho").completed("0"), 2);
    }
}
