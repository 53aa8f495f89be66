//! TURN-3: a replaced turn ends before the new one starts.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Ending, InterruptState, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AbortReason, Decision, Feature, InputMode, TurnEnd};

pub(super) struct ReplacedTurnEndsFirst;

const STARTED_EARLY: Clause = Clause {
    kind: "started-early",
    text: "turn {turn} started before turn {replaced} had ended",
};
const WRONG_END: Clause = Clause {
    kind: "wrong-end",
    text: "turn {replaced}, replaced by turn {turn}, ended as {end}",
};

impl Invariant for ReplacedTurnEndsFirst {
    fn id(&self) -> &'static str {
        "TURN-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A turn that a new one replaces ends as replaced before the new turn starts."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle (starting a task aborts the running one first) and openai/codex \
         #2365 (the reason `replaced`)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Replace]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The old turn may have completed or failed before the new one starts: it finished as \
             the new input arrived.",
            "The old turn may end as interrupted if an interrupt was sent before the new turn \
             started, even before the start of the old one was announced, or if one of its \
             approvals was answered with \"abort\", which is an interrupt.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "input that replaces the active turn starts a new one"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[STARTED_EARLY, WRONG_END]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for input in &view.inputs {
            let replaces = input.mode == InputMode::Replace && input.begins;
            let (Some(old), Some(new)) = (input.active, input.turn) else {
                continue;
            };
            let (old, new) = (&view.turns[old], &view.turns[new]);
            let Some(started) = new.started.filter(|_| replaces) else {
                continue;
            };
            if old.killed.is_some() {
                continue;
            }
            findings.exercised += 1;
            let Some(ending) = old.ending_before(started) else {
                let fault = STARTED_EARLY.with("turn", new.id).with("replaced", old.id);
                let mut shown_by = vec![old.begun, input.at, started];
                shown_by.extend(old.ending().map(|ending| ending.at));
                findings.breach(view, fault, &shown_by);
                continue;
            };
            if !legal(view, old, ending, started) {
                let fault = WRONG_END.with("turn", new.id).with("replaced", old.id);
                let fault = fault.with("end", ending.in_words());
                findings.breach(view, fault, &[input.at, ending.at, started]);
            }
        }
        findings
    }
}

fn legal(view: &View<'_>, old: &Turn<'_>, ending: Ending<'_>, started: At) -> bool {
    match ending.end {
        TurnEnd::Complete | TurnEnd::Failed { .. } => true,
        TurnEnd::Aborted { reason } => match reason {
            None | Some(AbortReason::Replaced) => true,
            Some(AbortReason::Interrupted) => {
                interrupted(view, old, started) || answered_with_abort(view, old, started)
            }
        },
    }
}

/// Whether the turn was interrupted before an entry, even before its start was announced.
pub(super) fn interrupted(view: &View<'_>, turn: &Turn<'_>, before: At) -> bool {
    let asked = turn.input.map_or(turn.begun, |input| view.inputs[input].at);
    let (sent, until) = (
        view.interrupts.partition_point(|known| known.at < asked),
        view.interrupts.partition_point(|known| known.at < before),
    );
    view.interrupts
        .get(sent..until)
        .unwrap_or_default()
        .iter()
        .any(|interrupt| match interrupt.state {
            InterruptState::Active(met) if view.turns[met].id == turn.id => true,
            // Ops are taken in order, so it can't have met what was there before the turn.
            InterruptState::Active(_) | InterruptState::Early | InterruptState::Idle => {
                interrupt.at < turn.begun
            }
            _ => false,
        })
}

/// Whether an approval that the turn waited for was answered with "abort" before an entry.
fn answered_with_abort(view: &View<'_>, turn: &Turn<'_>, before: At) -> bool {
    let of_turn = |id: &str| {
        let call = view.call(id).and_then(|call| call.turn);
        call.is_some_and(|call| view.turns[call].id == turn.id)
    };
    view.approvals.iter().any(|approval| {
        let meant = approval.decision == Decision::Abort && approval.at < before;
        meant && approval.at > turn.begun && of_turn(approval.call_id)
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, is_idle, keeps, long_session, user};
    use cutpoint_trace::{Decision, InputMode};

    fn replacing() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Replace);
        t.reply(Some("t2"));
        t
    }

    #[test]
    fn a_turn_replaced_in_order_passes() {
        keeps("TURN-3", &long_session(), 1);
        keeps("TURN-3", replacing().replaced("t1").started("t2"), 1);
        keeps("TURN-3", replacing().completed("t1").started("t2"), 1);
    }

    #[test]
    fn a_turn_that_ends_too_late_or_never_is_a_breach() {
        let late = breaks(
            "TURN-3/started-early",
            replacing().started("t2").replaced("t1"),
        );
        assert_eq!(late.text(), "turn t2 started before turn t1 had ended");
        breaks("TURN-3/started-early", replacing().started("t2"));
    }

    #[test]
    fn the_wrong_reason_is_a_breach() {
        let wrong = breaks("TURN-3/wrong-end", replacing().aborted("t1").started("t2"));
        assert!(wrong.text().contains("interrupted"));
        keeps(
            "TURN-3",
            Tracer::new()
                .start("t1", "one")
                .interrupt()
                .input("two", InputMode::Replace)
                .aborted("t1")
                .started("t2"),
            1,
        );
    }

    #[test]
    fn an_approval_that_is_answered_with_abort_is_an_interrupt() {
        let answered = |decision: Decision| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            t.emit(1, call("c1")).finish(1).ask("t1", "c1");
            t.decide("c1", decision).input("two", InputMode::Replace);
            t.aborted("t1").started("t2");
            t
        };
        keeps("TURN-3", &answered(Decision::Abort), 1);
        breaks("TURN-3/wrong-end", &answered(Decision::Deny));
    }

    #[test]
    fn an_interrupt_may_overtake_the_start_of_the_turn() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start).interrupt().started("t1");
        t.input("two", InputMode::Replace)
            .aborted("t1")
            .started("t2");
        keeps("TURN-3", &t, 1);
        let mut t = Tracer::new();
        t.start("t1", "one")
            .input("two", InputMode::Replace)
            .interrupt();
        t.replaced("t1")
            .started("t2")
            .input("three", InputMode::Replace);
        keeps("TURN-3", t.aborted("t2").started("t3"), 2);
        let mut t = Tracer::new();
        t.interrupt().start("t1", "one");
        t.input("two", InputMode::Replace)
            .aborted("t1")
            .started("t2");
        breaks("TURN-3/wrong-end", &t);
    }

    #[test]
    fn an_interrupt_may_meet_a_turn_whose_input_came_before_the_last_ones_end() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .input("two", InputMode::Start)
            .completed("t1");
        t.interrupt()
            .started("t2")
            .input("three", InputMode::Replace);
        keeps("TURN-3", t.aborted("t2").started("t3"), 1);
        let mut t = Tracer::new();
        t.start("t1", "one").completed("t1").interrupt();
        t.start("t2", "two").input("three", InputMode::Replace);
        breaks("TURN-3/wrong-end", t.aborted("t2").started("t3"));
    }

    #[test]
    fn input_that_is_refused_replaces_nothing() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Replace);
        is_idle("TURN-3", t.refuse().completed("t1"));
    }
}
