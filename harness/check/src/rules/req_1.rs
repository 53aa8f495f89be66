//! REQ-1: every interrupt is answered, once.

use super::turn_3::interrupted;
use crate::invariant::{Findings, Invariant};
use crate::pause_time::PauseTimes;
use crate::view::{At, Ending, Interrupt, InterruptState, OpAnswer, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AbortReason, Feature, Observation, TurnEnd};

pub(super) struct InterruptsAreAnswered;

const NEVER_ANSWERED: Clause = Clause {
    kind: "never-answered",
    text: "an interrupt was never answered",
};
const ANSWERED_TWICE: Clause = Clause {
    kind: "answered-twice",
    text: "an interrupt was answered {count} times",
};
const IDLE_REASON: Clause = Clause {
    kind: "idle-reason",
    text: "an interrupt with no active turn was answered with a reason",
};
const EARLY_ANSWER: Clause = Clause {
    kind: "early-answer",
    text: "an interrupt of turn {turn} was answered before the turn had ended",
};
const WRONG_REASON: Clause = Clause {
    kind: "wrong-reason",
    text: "turn {turn} ended as {end}, and an interrupt of it was answered with {reason}",
};

/// How soon after an interrupt the agent's end, or the run's, excuses a missing answer.
const UNANSWERED_NS: u64 = 100_000_000;

impl Invariant for InterruptsAreAnswered {
    fn id(&self) -> &'static str {
        "REQ-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Each interrupt request is answered exactly once, even if several of them wait for one \
         abort; where the protocol defers the answer, it comes after the turn's end and gives the \
         reason of its abort."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 (answers wait for TurnAborted), #36926 and #34711 (a second interrupt is \
         never answered)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::OpReplies]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Where the protocol does not defer the answer, it may come before the abort or after \
             it: protocols differ, and some leave the order open.",
            "A deferred answer may give no reason if something else requested the abort earlier: \
             the turn may have been over when the request arrived.",
            "While a turn is being replaced, an interrupt that names no turn may meet the new \
             turn, and is answered when that one ends.",
            "A refusal is an answer: the turn may have ended as the request arrived.",
            "An agent, or a run, that ends within 100 ms after the interrupt need not answer it. \
             If the agent is killed, time for which the harness held it at one of its own cut \
             points does not count.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an interrupt is sent to a running agent"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            NEVER_ANSWERED,
            ANSWERED_TWICE,
            IDLE_REASON,
            EARLY_ANSWER,
            WRONG_REASON,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for interrupt in &view.interrupts {
            if interrupt.state == InterruptState::Down {
                continue;
            }
            let count = interrupt.answers.len();
            if count == 0 && ended_soon(view, interrupt.at) {
                continue;
            }
            findings.exercised += 1;
            if count != 1 {
                let fault = match count {
                    0 => NEVER_ANSWERED.into(),
                    count => ANSWERED_TWICE.with("count", count),
                };
                let answers = interrupt.answers.iter().map(|answer| answer.at);
                let shown_by: Vec<At> = std::iter::once(interrupt.at).chain(answers).collect();
                findings.breach(view, fault, &shown_by);
            } else if view.has(Feature::DeferredAnswers) {
                check_deferred(view, interrupt, &mut findings);
            }
        }
        findings
    }
}

/// Checks the one answer to an interrupt that met a turn.
fn check_deferred(view: &View<'_>, interrupt: &Interrupt<'_>, findings: &mut Findings) {
    let answers = interrupt.answers.iter();
    let accepted = answers.filter(|answer| answer.error.is_none());
    for answer in accepted {
        let (fault, ending): (Option<Fault>, _) = match interrupt.state {
            InterruptState::Active(turn) => {
                let ending = view.turns[turn].ending_before(answer.at);
                let fault = fault(view, turn, interrupt.at, answer, ending);
                let met_next = met_next(view, turn, interrupt, answer);
                (fault.filter(|_| !met_next), ending)
            }
            InterruptState::Idle if answer.reason.is_some() => (Some(IDLE_REASON.into()), None),
            _ => (None, None),
        };
        if let Some(fault) = fault {
            let mut shown_by = vec![interrupt.at, answer.at];
            shown_by.extend(ending.map(|ending| ending.at));
            findings.breach(view, fault, &shown_by);
        }
    }
}

/// Whether the turn was replaced, and the interrupt answered with the end of the one that replaced it.
fn met_next(
    view: &View<'_>,
    turn: usize,
    interrupt: &Interrupt<'_>,
    answer: &OpAnswer<'_>,
) -> bool {
    let ending = |turn: usize| view.turns.get(turn)?.ending_before(answer.at);
    let reason = |turn| match ending(turn)?.end {
        TurnEnd::Aborted { reason } => *reason,
        TurnEnd::Complete | TurnEnd::Failed { .. } => None,
    };
    interrupt.named.is_none()
        && reason(turn) == Some(AbortReason::Replaced)
        && answer.reason.is_some()
        && answer.reason == reason(turn + 1)
}

/// What is wrong with the answer to an interrupt of a turn.
fn fault(
    view: &View<'_>,
    turn: usize,
    interrupt: At,
    answer: &OpAnswer<'_>,
    ending: Option<Ending<'_>>,
) -> Option<Fault> {
    let id = view.turns[turn].id;
    let Some(ending) = ending else {
        return Some(EARLY_ANSWER.with("turn", id));
    };
    let given = answer.reason;
    let as_it_was = match ending.end {
        TurnEnd::Aborted { reason: None } => true,
        TurnEnd::Aborted { reason } => {
            let before = view.cut_at(turn).is_some_and(|asked| asked < interrupt)
                || interrupted(view, &view.turns[turn], interrupt);
            given == *reason || (given.is_none() && before)
        }
        TurnEnd::Complete | TurnEnd::Failed { .. } => given.is_none(),
    };
    let wrong = || {
        let reason = match given {
            None => "no reason",
            Some(AbortReason::Interrupted) => "interrupted",
            Some(AbortReason::Replaced) => "replaced",
        };
        let fault = WRONG_REASON.with("turn", id);
        fault.with("end", ending.in_words()).with("reason", reason)
    };
    (!as_it_was).then(wrong)
}

fn ended_soon(view: &View<'_>, at: At) -> bool {
    let stop = view.stops.partition_point(|stop| *stop < at);
    let until_ns = view
        .stops
        .get(stop)
        .map_or(view.end_ns(), |stop| view.at_ns(*stop));
    let from_ns = view.at_ns(at);
    let killed = view.stops.get(stop).is_some_and(|stop| {
        matches!(
            view.trace.entries[*stop].observation,
            Observation::AgentKilled
        )
    });
    // One that was not killed has had the time after the hold to answer.
    let held_ns = if killed {
        PauseTimes::of(view).within_ns(from_ns, until_ns)
    } else {
        0
    };
    until_ns.saturating_sub(from_ns).saturating_sub(held_ns) <= UNANSWERED_NS
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, front_session, interrupted_tool, is_idle, keeps};
    use cutpoint_trace::{AbortReason, Feature, InputMode};

    fn running() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi");
        t
    }

    #[test]
    fn an_answer_on_either_side_of_the_abort_passes() {
        keeps("REQ-1", &interrupted_tool(), 1);
        keeps("REQ-1", running().interrupt().aborted("t1").reply(None), 1);
        keeps("REQ-1", running().interrupt().completed("t1").refuse(), 1);
        is_idle("REQ-1", running().interrupt().kill());
    }

    #[test]
    fn an_interrupt_that_is_never_answered_is_a_breach() {
        let mut t = running();
        t.interrupt()
            .reply(None)
            .interrupt()
            .aborted("t1")
            .wait_ms(200)
            .start("t2", "ho");
        breaks("REQ-1/never-answered", &t);
        let t = t.without(Feature::OpReplies);
        assert!(matches!(
            crate::testing::verdict_of("REQ-1", &t),
            cutpoint_trace::verdict::Verdict::NotApplicable { .. }
        ));
    }

    const INTERRUPTED: Option<AbortReason> = Some(AbortReason::Interrupted);

    fn deferring() -> Tracer {
        running().with(Feature::DeferredAnswers)
    }

    #[test]
    fn time_at_a_point_of_the_agent_does_not_count() {
        let killed = |point: &str, later_ms| {
            let mut t = running();
            t.reached(point).interrupt().wait_ms(500).released(point);
            t.wait_ms(later_ms).kill();
            t
        };
        is_idle("REQ-1", &killed("point turn.taken", 50));
        breaks("REQ-1/never-answered", &killed("point turn.taken", 150));
        breaks("REQ-1/never-answered", &killed("delta 1 of reply 1", 50));
    }

    #[test]
    fn deferred_answers_come_after_the_abort() {
        keeps("REQ-1", &front_session(), 4);
        let mut t = deferring();
        t.interrupt().interrupt().aborted("t1");
        t.answered(2, INTERRUPTED).answered(3, INTERRUPTED);
        keeps("REQ-1", &t, 2);
        let mut t = deferring();
        t.interrupt().aborted("t1").answered(2, INTERRUPTED);
        t.interrupt().answered(3, None);
        keeps("REQ-1", &t, 2);
    }

    #[test]
    fn an_answer_before_the_abort_is_a_breach_where_it_is_deferred() {
        let early = breaks(
            "REQ-1/early-answer",
            deferring().interrupt().reply(None).aborted("t1"),
        );
        assert!(early.text().contains("before the turn had ended"));
        breaks(
            "REQ-1/early-answer",
            deferring().interrupt().answered(2, INTERRUPTED),
        );
        keeps("REQ-1", running().interrupt().reply(None).aborted("t1"), 1);
    }

    #[test]
    fn another_reason_than_that_of_the_abort_is_a_breach() {
        let replaced = Some(AbortReason::Replaced);
        for given in [None, replaced] {
            let mut t = deferring();
            t.interrupt().aborted("t1").answered(2, given);
            breaks("REQ-1/wrong-reason", &t);
        }
        let mut t = deferring();
        t.interrupt().completed("t1").answered(2, INTERRUPTED);
        breaks("REQ-1/wrong-reason", &t);
        let mut t = deferring();
        t.completed("t1").interrupt().answered(2, INTERRUPTED);
        breaks("REQ-1/idle-reason", &t);
    }

    #[test]
    fn a_second_request_may_come_too_late_for_the_reason() {
        let mut t = deferring();
        t.interrupt().interrupt().aborted("t1");
        t.answered(2, INTERRUPTED).answered(3, None);
        keeps("REQ-1", &t, 2);
    }

    /// An interrupt that was sent in front of the turn's start may have met it.
    #[test]
    fn an_earlier_request_for_the_abort_may_precede_the_start_of_the_turn() {
        let second = |early: bool| {
            let mut t = Tracer::new().with(Feature::DeferredAnswers);
            t.input("hi", InputMode::Start);
            if early {
                t.interrupt();
            }
            t.started("t1").interrupt().aborted("t1");
            t.answered(if early { 3 } else { 2 }, None);
            t
        };
        let mut t = second(true);
        keeps("REQ-1", t.answered(2, INTERRUPTED), 2);
        breaks("REQ-1/wrong-reason", &second(false));
    }

    /// The turn was being replaced already as the interrupt arrived.
    #[test]
    fn an_interrupt_may_meet_the_turn_that_replaces() {
        let replaced = || {
            let mut t = deferring();
            t.input("ho", InputMode::Replace).interrupt().replaced("t1");
            t.started("t2");
            t
        };
        keeps(
            "REQ-1",
            replaced().aborted("t2").answered(3, INTERRUPTED),
            1,
        );
        breaks("REQ-1/wrong-reason", replaced().answered(3, INTERRUPTED));
        breaks(
            "REQ-1/wrong-reason",
            replaced().completed("t2").answered(3, INTERRUPTED),
        );
    }

    #[test]
    fn two_answers_are_a_breach() {
        let breach = breaks(
            "REQ-1/answered-twice",
            running().interrupt().reply(None).aborted("t1").reply(None),
        );
        assert!(breach.text().contains("2 times"));
    }
}
