//! REQ-1: every interrupt is answered, once.

use crate::invariant::{Findings, Invariant};
use crate::trace::Feature;
use crate::verdict::Level;
use crate::view::{At, InterruptState, View};

pub(super) struct InterruptsAreAnswered;

/// How soon behind an interrupt the agent's end, or the run's, excuses a missing answer.
const UNANSWERED_NS: u64 = 100_000_000;

impl Invariant for InterruptsAreAnswered {
    fn id(&self) -> &'static str {
        "REQ-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Each interrupt request is answered exactly once, also where several of them wait for one \
         abort."
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
            "The answer may come before the abort or behind it: protocols differ, and some leave it \
             open.",
            "A refusal is an answer: the turn may have ended as the request arrived.",
            "An agent, or a run, that ends within 100 ms behind the interrupt need not answer it.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an interrupt is sent to a running agent"
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
                let how = match count {
                    0 => "never answered".to_owned(),
                    count => format!("answered {count} times"),
                };
                let answers = interrupt.answers.iter().map(|answer| answer.at);
                let shown_by: Vec<At> = std::iter::once(interrupt.at).chain(answers).collect();
                findings.breach(view, format!("an interrupt was {how}"), &shown_by);
            }
        }
        findings
    }
}

fn ended_soon(view: &View<'_>, at: At) -> bool {
    let stop = view.stops.partition_point(|stop| *stop < at);
    let until_ns = view
        .stops
        .get(stop)
        .map_or(view.end_ns(), |stop| view.at_ns(*stop));
    until_ns.saturating_sub(view.at_ns(at)) <= UNANSWERED_NS
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps};
    use crate::trace::Feature;

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
        assert!(breaks("REQ-1", &t).message.ends_with("never answered"));
        let t = t.without(Feature::OpReplies);
        assert!(matches!(
            crate::testing::outcome("REQ-1", &t),
            crate::verdict::Outcome::NotApplicable { .. }
        ));
    }

    #[test]
    fn two_answers_are_a_breach() {
        let breach = breaks(
            "REQ-1",
            running().interrupt().reply(None).aborted("t1").reply(None),
        );
        assert!(breach.message.contains("2 times"));
    }
}
