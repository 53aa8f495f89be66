//! TURN-2: an interrupt ends the active turn.

use crate::invariant::{Findings, Invariant};
use crate::trace::{Feature, InputMode};
use crate::verdict::Level;
use crate::view::{At, Ending, Interrupt, Turn, View};

pub(super) struct InterruptEndsTurn;

/// How long behind the interrupt a response may end for its turn to have ended by itself.
const RACE_NS: u64 = 100_000_000;

impl Invariant for InterruptEndsTurn {
    fn id(&self) -> &'static str {
        "TURN-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An interrupt of an active turn ends it as interrupted, unless the turn had finished; a turn \
         is active from the moment its start is acknowledged to the client."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 (TurnAborted and its reasons), #38395 (an interrupt right behind the \
         start)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The turn may complete or fail if no tool was running and its last response was over \
             when the interrupt was sent, or ended within 100 ms behind it without being held at a \
             cut point: the turn had nothing left to do.",
            "The turn may end as replaced if input that replaces it had been sent before.",
            "A turn that is cut by a kill of the agent need not end.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is interrupted while it is active"
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
            findings.exercised += 1;
            let interrupt = &view.interrupts[*first];
            let Some(ending) = turn.ending() else {
                let message = format!("turn {} was interrupted and never ended", turn.id);
                findings.breach(view, message, &[turn.begun, interrupt.at]);
                continue;
            };
            if !legal(view, index, interrupt, ending) {
                let (id, how) = (turn.id, ending.in_words());
                let message = format!("turn {id} was interrupted and ended as {how}");
                findings.breach(view, message, &[turn.begun, interrupt.at, ending.at]);
            }
        }
        findings
    }
}

fn legal(view: &View<'_>, index: usize, interrupt: &Interrupt<'_>, ending: Ending<'_>) -> bool {
    if ending.aborted() {
        return ending.interrupted() || replaced_before(view, index, interrupt.at);
    }
    let turn = &view.turns[index];
    response_was_over(view, turn, interrupt, ending)
        && !tool_was_running(view, index, turn, interrupt.at)
}

/// Whether input that replaces the turn had been sent before an entry.
fn replaced_before(view: &View<'_>, index: usize, at: At) -> bool {
    let sent = view.inputs.partition_point(|input| input.at < at);
    view.inputs[..sent]
        .iter()
        .rev()
        .take_while(|input| input.at > view.turns[index].begun)
        .any(|input| input.mode == InputMode::Replace && input.active == Some(index))
}

/// Whether the last response that the turn got was over when it was interrupted, or so soon after
/// that the agent could no longer know.
fn response_was_over(
    view: &View<'_>,
    turn: &Turn<'_>,
    interrupt: &Interrupt<'_>,
    ending: Ending<'_>,
) -> bool {
    // A turn's request may arrive before the client is told that the turn started.
    let asked = turn.input.map_or(turn.begun, |input| view.inputs[input].at);
    let requests = (view.exchanges).partition_point(|exchange| exchange.at < ending.at);
    let Some(last) = view.exchanges[..requests]
        .iter()
        .rev()
        .find(|exchange| exchange.generates)
        .filter(|exchange| exchange.at > asked)
    else {
        return false;
    };
    let Some(over) = last.over() else {
        return false;
    };
    over < interrupt.at || (!interrupt.held && view.between_ns(interrupt.at, over) <= RACE_NS)
}

fn tool_was_running(view: &View<'_>, index: usize, turn: &Turn<'_>, at: At) -> bool {
    turn.calls
        .iter()
        .map(|call| &view.calls[*call])
        .filter(|call| call.turn == Some(index))
        .any(|call| {
            let begun = call.begun.is_some_and(|begun| begun < at);
            // What the model was told of before runs on in the background.
            let answered = call.answered.is_some_and(|by| view.exchanges[by].at < at);
            begun && !call.ended_before(at) && !answered
        })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use crate::trace::{InputMode, TurnEnd};

    fn running() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").request(1, &[user("hi")]);
        t
    }

    #[test]
    fn an_interrupted_turn_passes() {
        keeps("TURN-2", &interrupted_tool(), 1);
        let mut t = running();
        t.interrupt()
            .ended(Some("t1"), TurnEnd::Aborted { reason: None });
        keeps("TURN-2", &t, 1);
    }

    #[test]
    fn a_turn_that_runs_on_is_a_breach() {
        let mut t = running();
        t.interrupt();
        assert!(breaks("TURN-2", &t).message.contains("never ended"));
        t.wait_ms(500).finish(1).completed("t1");
        assert!(breaks("TURN-2", &t).message.ends_with("complete"));
    }

    #[test]
    fn an_interrupt_right_behind_the_acknowledgement_is_not_lost() {
        let mut t = Tracer::new();
        t.input("hi", InputMode::Start).reply(Some("t1"));
        t.interrupt().started("t1").request(1, &[user("hi")]);
        t.wait_ms(500).finish(1).completed("t1");
        breaks("TURN-2", &t);
    }

    #[test]
    fn a_turn_may_finish_as_the_interrupt_lands() {
        let mut t = running();
        t.finish(1).interrupt().completed("t1");
        keeps("TURN-2", &t, 1);
        let mut t = running();
        t.interrupt().finish(1).completed("t1");
        keeps("TURN-2", &t, 1);
    }

    #[test]
    fn a_held_response_is_no_race() {
        let mut t = running();
        t.reached("before the terminal event").interrupt();
        t.released("before the terminal event")
            .finish(1)
            .completed("t1");
        breaks("TURN-2", &t);
    }

    #[test]
    fn a_running_tool_is_no_race() {
        let mut t = running();
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.interrupt().completed("t1");
        breaks("TURN-2", &t);
    }

    #[test]
    fn a_response_asked_for_long_after_the_interrupt_is_no_race() {
        let mut t = running();
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.end("t1", "c1", Some(0)).interrupt().wait_ms(200);
        t.request(2, &[user("hi"), call("c1"), output("c1", "")]);
        t.finish(2).completed("t1");
        breaks("TURN-2", &t);
    }

    #[test]
    fn a_kill_asks_for_nothing() {
        let mut t = running();
        is_idle("TURN-2", t.interrupt().kill());
    }
}
