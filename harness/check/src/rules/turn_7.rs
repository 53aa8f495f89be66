//! TURN-7: two interrupts, one abort.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, InterruptState, Turn, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct AbortedOnce;

const NEVER_ABORTED: Clause = Clause {
    kind: "never-aborted",
    text: "turn {turn} was interrupted {interrupts} times and never aborted",
};
const SEVERAL_ABORTS: Clause = Clause {
    kind: "several-aborts",
    text: "turn {turn} was interrupted {interrupts} times and aborted {aborts} times",
};

impl Invariant for AbortedOnce {
    fn id(&self) -> &'static str {
        "TURN-7"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "However often a turn is interrupted, it is aborted once."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 (TurnAborted once) and #36926 (a second interrupt of an aborted turn)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The turn may have completed or failed as the interrupts arrived: then nothing was \
             aborted.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is interrupted a second time before the next one starts"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NEVER_ABORTED, SEVERAL_ABORTS]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (index, turn) in view.turns.iter().enumerate() {
            let Some(first) = turn.interrupts.first() else {
                continue;
            };
            if turn.killed.is_some() || turn.phantom(&view.turns) {
                continue;
            }
            let next = view.turns.get(index + 1).map(|turn| turn.begun);
            let until = next.unwrap_or(view.trace.entries.len());
            let mut interrupts: Vec<At> = view.interrupts[*first..]
                .iter()
                .take_while(|interrupt| interrupt.at < until)
                .filter(|interrupt| match interrupt.state {
                    InterruptState::Active(target) => target == index,
                    InterruptState::Idle => true,
                    _ => false,
                })
                .map(|interrupt| interrupt.at)
                .collect();
            if interrupts.len() < 2 {
                continue;
            }
            findings.exercised += 1;
            let aborts = aborts(view, turn, until);
            let ended = !turn.endings.is_empty();
            if aborts.len() > 1 || !ended {
                let fault = match aborts.len() {
                    0 => NEVER_ABORTED.with("turn", turn.id),
                    times => SEVERAL_ABORTS.with("turn", turn.id).with("aborts", times),
                };
                let fault = fault.with("interrupts", interrupts.len());
                interrupts.extend(aborts);
                findings.breach(view, fault, &interrupts);
            }
        }
        findings
    }
}

/// The abort events of a turn, and those of no turn before the next one.
fn aborts(view: &View<'_>, turn: &Turn<'_>, until: At) -> Vec<At> {
    let own = turn.endings.iter().filter(|ending| ending.aborted());
    let first = view.strays.partition_point(|stray| stray.at < turn.begun);
    let strays = view.strays[first..]
        .iter()
        .map(|stray| stray.at)
        .take_while(|at| *at < until)
        .filter(|at| view.aborts.binary_search(at).is_ok());
    own.map(|ending| ending.at).chain(strays).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps, long_session};
    use cutpoint_trace::TurnEnd;

    fn twice() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt().interrupt();
        t
    }

    #[test]
    fn one_abort_passes() {
        keeps("TURN-7", twice().aborted("t1"), 1);
        keeps("TURN-7", twice().completed("t1"), 1);
        keeps("TURN-7", &long_session(), 1);
        is_idle("TURN-7", &interrupted_tool());
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt().aborted("t1").interrupt();
        keeps("TURN-7", t.start("t2", "ho").interrupt().aborted("t2"), 1);
    }

    #[test]
    fn an_abort_for_each_interrupt_is_a_breach() {
        let breach = breaks("TURN-7/several-aborts", twice().aborted("t1").aborted("t1"));
        assert_eq!(
            breach.text(),
            "turn t1 was interrupted 2 times and aborted 2 times"
        );
    }

    #[test]
    fn a_second_abort_without_a_name_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt().aborted("t1").interrupt();
        breaks(
            "TURN-7/several-aborts",
            t.ended(None, TurnEnd::Aborted { reason: None }),
        );
    }

    #[test]
    fn a_turn_that_never_ends_is_a_breach() {
        breaks("TURN-7/never-aborted", &twice());
    }
}
