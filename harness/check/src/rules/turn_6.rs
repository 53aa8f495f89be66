//! TURN-6: an interrupt takes effect in bounded time.

use crate::invariant::{Findings, Invariant};
use crate::pause_time::PauseTimes;
use crate::view::{At, InterruptState, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct AbortIsPrompt;

const LATE_END: Clause = Clause {
    kind: "late-end",
    text: "turn {turn} ended {took_ms} ms after its interrupt; {allowed_ms} ms are allowed",
};
const NOT_ENDED: Clause = Clause {
    kind: "not-ended",
    text: "turn {turn} had not ended {took_ms} ms after its interrupt; {allowed_ms} ms are allowed",
};

/// How long an agent may wait for an aborted turn to end by itself.
const GRACE_NS: u64 = 100_000_000;

impl Invariant for AbortIsPrompt {
    fn id(&self) -> &'static str {
        "TURN-6"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An interrupted turn ends within the grace period of 100 ms plus the bound of the run, \
         whatever it is busy with."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle (100 ms, then the task is stopped hard); openai/codex #17143 (an \
         interrupt during start-up is a no-op), #28499 (stuck after an interrupt)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn may also end for another reason after the interrupt.",
            "Time for which the harness held the agent at one of its own cut points does not \
             count, nor does time in which the client did not read.",
            "A turn that was cut by the agent's end is not judged, nor one for which the run \
             ended before the bound.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an active turn is interrupted, counted once for each turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[LATE_END, NOT_ENDED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let bound_ns = view.trace.header.abort_bound_ms.saturating_mul(1_000_000);
        let bound_ns = bound_ns.saturating_add(GRACE_NS);
        let held = PauseTimes::of(view);
        for (index, turn) in view.turns.iter().enumerate() {
            let mut interrupts = turn
                .interrupts
                .iter()
                .map(|interrupt| &view.interrupts[*interrupt]);
            let first = interrupts.find(|it| it.state == InterruptState::Active(index));
            let Some(interrupt) = first.filter(|_| turn.killed.or(turn.exited).is_none()) else {
                continue;
            };
            let ending = turn.ending().map(|ending| ending.at);
            let until_ns = ending.map_or(view.end_ns(), |at| view.at_ns(at));
            let from_ns = view.at_ns(interrupt.at);
            let took_ns = until_ns.saturating_sub(from_ns);
            let took_ns = took_ns.saturating_sub(held.within_ns(from_ns, until_ns));
            if ending.is_none() && took_ns <= bound_ns {
                continue;
            }
            findings.exercised += 1;
            if took_ns > bound_ns {
                let clause = match ending {
                    Some(_) => LATE_END,
                    None => NOT_ENDED,
                };
                let fault = clause.with("turn", turn.id);
                let fault = fault.with("took_ms", took_ns / 1_000_000);
                let fault = fault.with("allowed_ms", bound_ns / 1_000_000);
                let mut shown_by: Vec<At> = vec![turn.begun, interrupt.at];
                shown_by.extend(ending);
                findings.breach(view, fault, &shown_by);
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps};
    use cutpoint_trace::Observation;

    fn interrupted() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt();
        t
    }

    #[test]
    fn a_prompt_end_passes() {
        keeps("TURN-6", &interrupted_tool(), 1);
        keeps("TURN-6", interrupted().wait_ms(2000).aborted("t1"), 1);
        keeps("TURN-6", interrupted().completed("t1"), 1);
    }

    #[test]
    fn a_late_end_is_a_breach() {
        let breach = breaks("TURN-6/late-end", interrupted().wait_ms(2200).aborted("t1"));
        assert!(
            breach.text().contains("2100 ms are allowed"),
            "{}",
            breach.text()
        );
        breaks(
            "TURN-6/late-end",
            interrupted()
                .interrupt()
                .wait_ms(2099)
                .interrupt()
                .aborted("t1"),
        );
    }

    #[test]
    fn no_end_is_a_breach() {
        let mut t = interrupted();
        breaks("TURN-6/not-ended", t.wait_ms(9000).interrupt());
        is_idle("TURN-6", &interrupted());
    }

    #[test]
    fn time_at_a_point_of_the_agent_does_not_count() {
        let held = |point: &str| {
            let mut t = interrupted();
            t.reached(point).wait_ms(5000).released(point).aborted("t1");
            t
        };
        keeps("TURN-6", &held("aborting"), 1);
        breaks("TURN-6/late-end", &held("delta 1 of reply 1"));
    }

    #[test]
    fn time_in_which_the_client_does_not_read_does_not_count() {
        let mut t = interrupted();
        t.push(Observation::Reading { on: false }).wait_ms(5000);
        t.reached("aborting")
            .push(Observation::Reading { on: true });
        t.wait_ms(5000).released("aborting").wait_ms(1000);
        keeps("TURN-6", t.clone().aborted("t1"), 1);
        breaks("TURN-6/late-end", t.wait_ms(1200).aborted("t1"));
    }

    #[test]
    fn a_kill_asks_for_nothing() {
        is_idle("TURN-6", interrupted().wait_ms(5000).kill());
    }
}
