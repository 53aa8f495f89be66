//! TURN-5: an interrupt without a turn changes nothing, and is answered.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Interrupt, InterruptState, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct IdleInterruptIsHarmless;

const ABORT: Clause = Clause {
    kind: "abort",
    text: "an interrupt with no active turn led to a TurnAborted",
};
const NEVER_ANSWERED: Clause = Clause {
    kind: "never-answered",
    text: "an interrupt with no active turn was never answered",
};
const ANSWERED_TWICE: Clause = Clause {
    kind: "answered-twice",
    text: "an interrupt with no active turn was answered {count} times",
};

/// How soon after an interrupt the agent's end excuses a missing answer.
const UNANSWERED_NS: u64 = 100_000_000;

impl Invariant for IdleInterruptIsHarmless {
    fn id(&self) -> &'static str {
        "TURN-5"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An interrupt with no active turn aborts nothing, and its request is answered once."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 (answers wait for TurnAborted), #18392 and #12478 (an interrupt of an \
         idle session never answered)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An interrupt that is sent before the turn's terminal event was received is not idle.",
            "An interrupt that is sent after input whose turn has not been acknowledged yet may \
             abort that turn.",
            "An agent that ends within 100 ms after the interrupt need not answer it.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an interrupt is sent while no turn is active"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[ABORT, NEVER_ANSWERED, ANSWERED_TWICE]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let closed_late: HashSet<At> = view
            .turns
            .iter()
            .filter(|turn| turn.killed.is_some())
            .filter_map(|turn| turn.ending().map(|ending| ending.at))
            .collect();
        let mut reported = HashSet::default();
        for interrupt in &view.interrupts {
            if interrupt.state != InterruptState::Idle {
                continue;
            }
            findings.exercised += 1;
            let until = view.next_turn_after(interrupt.at);
            let first = view.aborts.partition_point(|at| *at < interrupt.at);
            for abort in view.aborts[first..].iter().take_while(|at| **at < until) {
                if !closed_late.contains(abort) && reported.insert(*abort) {
                    findings.breach(view, ABORT, &[interrupt.at, *abort]);
                }
            }
            if view.has(Feature::OpReplies) {
                check_answers(view, interrupt, &mut findings);
            }
        }
        findings
    }
}

fn check_answers(view: &View<'_>, interrupt: &Interrupt<'_>, findings: &mut Findings) {
    let mut shown_by = vec![interrupt.at];
    shown_by.extend(interrupt.answers.iter().map(|answer| answer.at));
    match interrupt.answers.len() {
        1 => {}
        0 => {
            let stop = view.stops.partition_point(|at| *at < interrupt.at);
            let stop = view.stops.get(stop);
            if stop.is_none_or(|at| view.between_ns(interrupt.at, *at) > UNANSWERED_NS) {
                findings.breach(view, NEVER_ANSWERED, &shown_by);
            }
        }
        count => {
            let fault = ANSWERED_TWICE.with("count", count);
            findings.breach(view, fault, &shown_by);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps, long_session};
    use cutpoint_trace::{Feature, InputMode, TurnEnd};

    fn idle() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").interrupt();
        t
    }

    #[test]
    fn an_idle_interrupt_that_is_answered_passes() {
        keeps("TURN-5", idle().reply(None), 1);
        keeps("TURN-5", idle().refuse(), 1);
        keeps("TURN-5", &idle().without(Feature::OpReplies), 1);
        keeps("TURN-5", &long_session(), 1);
        is_idle("TURN-5", &interrupted_tool());
    }

    #[test]
    fn an_abort_of_nothing_is_a_breach() {
        let mut t = idle();
        t.reply(None).ended(None, TurnEnd::Aborted { reason: None });
        breaks("TURN-5/abort", &t);
        breaks("TURN-5/abort", idle().reply(None).aborted("t1"));
        let mut t = idle();
        t.reply(None).start("t2", "ho").interrupt().aborted("t2");
        keeps("TURN-5", &t, 1);
    }

    #[test]
    fn no_answer_or_two_are_breaches() {
        let never = breaks("TURN-5/never-answered", &idle());
        assert!(never.text().contains("never answered"));
        let twice = breaks("TURN-5/answered-twice", idle().reply(None).reply(None));
        assert!(twice.text().contains("2 times"));
        keeps("TURN-5", idle().kill(), 1);
    }

    #[test]
    fn an_interrupt_after_input_is_early_and_not_idle() {
        let mut t = Tracer::new();
        t.input("hi", InputMode::Start).interrupt();
        t.started("t1").aborted("t1");
        is_idle("TURN-5", &t);
    }
}
