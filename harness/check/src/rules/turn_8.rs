//! TURN-8: one id per turn.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Interrupt, InterruptState, Turn, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct OneIdPerTurn;

const NOT_TERMINATED: Clause = Clause {
    kind: "not-terminated",
    text: "turn {turn} started and was never terminated",
};
const PHANTOM: Clause = Clause {
    kind: "phantom",
    text: "a reply announced turn {turn}, which neither started nor was terminated",
};
const NOT_ANNOUNCED: Clause = Clause {
    kind: "not-announced",
    text: "turn {turn} was terminated, but never announced",
};
const WRONGLY_REFUSED: Clause = Clause {
    kind: "wrongly-refused",
    text: "an interrupt that names the active turn {turn} was refused",
};

/// How long after a refused interrupt its turn may end without the refusal being wrong.
const RACE_NS: u64 = 100_000_000;

impl Invariant for OneIdPerTurn {
    fn id(&self) -> &'static str {
        "TURN-8"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A turn has one id: its start returns it, an interrupt accepts it and its terminal event \
         carries it; every id announced as started is terminated."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365, #10821 (a phantom turn id), #22815 (a start whose id no interrupt \
         accepts)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An id whose turn was cut by the end of the agent need not be terminated.",
            "An interrupt that names the active turn may be refused if the turn ends within 100 \
             ms after the refusal: it was over.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an id is announced, by a reply, a start or an end"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NOT_TERMINATED, PHANTOM, NOT_ANNOUNCED, WRONGLY_REFUSED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (index, turn) in view.turns.iter().enumerate() {
            findings.exercised += 1;
            let cut = turn.killed.or(turn.exited).is_some();
            let excused = cut && !outlived(view, turn) && !overtaken(view, index);
            if turn.endings.is_empty() && !excused {
                let (announced, fault) = unterminated(turn);
                findings.breach(view, fault, &[announced]);
            }
        }
        for stray in &view.strays {
            let Some(id) = stray.turn_id else {
                continue;
            };
            findings.exercised += 1;
            let fault = NOT_ANNOUNCED.with("turn", id);
            findings.breach(view, fault, &[stray.at]);
        }
        for interrupt in &view.interrupts {
            if let Some((refused, turn)) = wrongly_refused(view, interrupt) {
                let fault = WRONGLY_REFUSED.with("turn", turn);
                findings.breach(view, fault, &[interrupt.at, refused]);
            }
        }
        findings
    }
}

/// Whether the turn within which this one was announced has ended by itself: so this one, of which
/// that end says nothing, was no turn that the agent's end could cut.
fn outlived(view: &View<'_>, turn: &Turn<'_>) -> bool {
    let cut = turn.killed.or(turn.exited);
    // One that was only announced may be waiting for its own start.
    let around = turn.started.and(turn.under);
    let around = around.and_then(|around| view.turns[around].ending());
    around
        .zip(cut)
        .is_some_and(|(ending, cut)| ending.at > turn.begun && ending.at < cut && !ending.aborted())
}

/// Whether a later turn of the same session ran to its end while this one never started: turns run
/// one after the other, so what ended the agent then did not cut this one.
fn overtaken(view: &View<'_>, index: usize) -> bool {
    let turn = &view.turns[index];
    let mut later = view.turns[index + 1..].iter();
    let ended = later.any(|later| later.session == turn.session && !later.endings.is_empty());
    turn.started.is_none() && ended
}

fn unterminated(turn: &Turn<'_>) -> (At, Fault) {
    match turn.started {
        Some(started) => (started, NOT_TERMINATED.with("turn", turn.id)),
        None => (turn.begun, PHANTOM.with("turn", turn.id)),
    }
}

/// The refusal of an interrupt that names a turn which is active and stays so.
fn wrongly_refused<'a>(view: &View<'a>, interrupt: &Interrupt<'a>) -> Option<(At, &'a str)> {
    let InterruptState::Active(turn) = interrupt.state else {
        return None;
    };
    let turn = &view.turns[turn];
    interrupt.named?;
    let mut answers = interrupt.answers.iter();
    let refused = answers.find(|answer| answer.error.is_some())?.at;
    let over = [
        turn.ending().map(|ending| ending.at),
        turn.killed,
        turn.exited,
    ];
    let over = over.into_iter().flatten().min();
    let stays = over.is_none_or(|over| view.between_ns(refused, over) > RACE_NS);
    // A later interrupt may have ended the turn soon after: that is no race of the first.
    let again = turn
        .interrupts
        .iter()
        .map(|other| view.interrupts[*other].at);
    let again = again.filter(|at| *at > refused).min();
    let helped = again.zip(over).is_some_and(|(again, over)| again < over);
    (stays || helped).then_some((refused, turn.id))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, keeps, long_session, verdict_of};
    use cutpoint_trace::verdict::Verdict;
    use cutpoint_trace::{ClientOp, InputMode};

    #[test]
    fn one_id_passes() {
        keeps("TURN-8", &interrupted_tool(), 2);
        keeps("TURN-8", &long_session(), 5);
    }

    #[test]
    fn a_phantom_id_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Start);
        t.reply(Some("ghost")).completed("t1");
        let breach = breaks("TURN-8/phantom", &t);
        assert!(breach.text().contains("announced turn ghost"));
        keeps("TURN-1", &t, 1);
    }

    #[test]
    fn a_turn_announced_within_another_is_not_cut_by_the_agents_end() {
        let mut t = Tracer::new();
        t.start("t1", "one").started("ghost").completed("t1").exit();
        let breach = breaks("TURN-8/not-terminated", &t);
        assert!(breach.text().contains("turn ghost started"));
        keeps("TURN-8", Tracer::new().start("t1", "one").exit(), 1);
    }

    #[test]
    fn the_end_of_the_agent_excuses_no_phantom() {
        let announced = || {
            let mut t = Tracer::new();
            t.start("t1", "one").input("two", InputMode::Start);
            t.reply(Some("ghost")).completed("t1");
            t
        };
        keeps("TURN-8", announced().kill(), 2);
        let mut t = announced();
        t.start("t3", "three").completed("t3").kill();
        breaks("TURN-8/phantom", &t);
    }

    #[test]
    fn a_reply_of_another_id_is_a_breach() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start).reply(Some("a"));
        t.started("b").completed("b");
        breaks("TURN-8/phantom", &t);
        keeps("TURN-1", &t, 1);
    }

    #[test]
    fn an_end_of_another_id_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").completed("t9");
        let Verdict::Fail { breaches, .. } = verdict_of("TURN-8", &t) else {
            panic!("t1 has no end, and t9 no start");
        };
        assert_eq!(breaches.len(), 2);
        breaks("TURN-8/not-announced", t.completed("t1"));
    }

    #[test]
    fn refusing_the_active_turns_id_is_a_breach() {
        let named = || {
            let mut t = Tracer::new();
            let turn_id = Some("t1".into());
            t.start("t1", "one").op(ClientOp::Interrupt { turn_id });
            t.refuse();
            t
        };
        breaks(
            "TURN-8/wrongly-refused",
            named().wait_ms(300).completed("t1"),
        );
        breaks("TURN-8/wrongly-refused", named().interrupt().aborted("t1"));
        keeps("TURN-8", named().completed("t1"), 1);
    }
}
