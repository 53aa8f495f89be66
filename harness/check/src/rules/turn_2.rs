//! TURN-2: an interrupt ends the active turn.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Ending, Input, Interrupt, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, InputMode, TaskKind};

pub(super) struct InterruptEndsTurn;

const NEVER_ENDED: Clause = Clause {
    kind: "never-ended",
    text: "turn {turn} was interrupted and never ended",
};
const WRONG_END: Clause = Clause {
    kind: "wrong-end",
    text: "turn {turn} was interrupted and ended as {end}",
};

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
        "openai/codex #2365 (TurnAborted and its reasons), #38395 (an interrupt right after the \
         start)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The turn may complete or fail if no tool was running and its last response was over \
             when the interrupt was sent, or ended within 100 ms after it without being held at a \
             cut point: the turn had nothing left to do.",
            "The turn may fail, no matter which tool was running, if its last response failed \
             within 100 ms before the interrupt, or after it without being held at a cut point: \
             the failure may have been decided before the agent took the interrupt.",
            "A running tool does not keep the turn from completing if it ended by itself, and \
             the last response, which answers its output, was over within 100 ms after the \
             interrupt without being held at a cut point: an agent may need that long to take an \
             op.",
            "A command of the user may complete if it had ended when the interrupt was sent, or \
             ended by itself within 100 ms after it without anything being held at a cut point: \
             its turn had nothing left to do.",
            "A sub-agent's running tool does not keep the turn from completing if the turn's own \
             last response ended less than 100 ms before the interrupt, or after it: the turn \
             does not wait for its sub-agents.",
            "The turn may end as replaced if input that replaces it was sent before the \
             interrupt: an agent takes its ops in order.",
            "A turn that is cut by a kill of the agent need not end.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is interrupted while it is active"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NEVER_ENDED, WRONG_END]
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
                let fault = NEVER_ENDED.with("turn", turn.id);
                findings.breach(view, fault, &[turn.begun, interrupt.at]);
                continue;
            };
            if !legal(view, index, interrupt, ending) {
                let fault = WRONG_END
                    .with("turn", turn.id)
                    .with("end", ending.in_words());
                findings.breach(view, fault, &[turn.begun, interrupt.at, ending.at]);
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
    let failed = view.failed_around(index, interrupt.at);
    if failed.is_some_and(|over| over < interrupt.at || !interrupt.held) {
        return true;
    }
    command_was_over(view, turn, interrupt)
        || view.response_was_over(index, interrupt.at, interrupt.held)
            && !view.tool_was_running(index, interrupt.at, interrupt.held)
}

/// Whether input that replaces the turn had been sent before an entry, even before the start of the turn was
/// announced.
fn replaced_before(view: &View<'_>, index: usize, at: At) -> bool {
    let turn = &view.turns[index];
    let sent = view.inputs.partition_point(|input| input.at < at);
    let first = turn.input.map_or_else(
        || view.inputs.partition_point(|input| input.at < turn.begun),
        |own| own + 1,
    );
    let after = view.inputs.get(first..sent).unwrap_or_default();
    // What was sent after the turn's own input meets it, whatever still ran then.
    let met = |input: &Input<'_>| {
        input.at < turn.begun || input.active.is_none_or(|active| active == index)
    };
    after
        .iter()
        .any(|input| input.mode == InputMode::Replace && met(input))
}

/// Whether the turn is a command of the user's, and that was over when the turn was interrupted.
fn command_was_over(view: &View<'_>, turn: &Turn<'_>, interrupt: &Interrupt<'_>) -> bool {
    let task = turn.input.and_then(|input| view.inputs[input].task);
    let mut calls = turn.calls.iter().map(|call| &view.calls[*call]);
    task == Some(TaskKind::Shell)
        && calls.any(|call| view.tool_was_over(call, interrupt.at, interrupt.held))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use cutpoint_trace::{InputMode, TaskKind, TurnEnd};

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
    fn a_turn_may_be_replaced_before_its_start_is_announced() {
        let replaced = |late: bool| {
            let mut t = Tracer::new();
            t.input("one", InputMode::Start);
            if !late {
                t.input("two", InputMode::Replace);
            }
            t.started("t1").interrupt();
            if late {
                t.input("two", InputMode::Replace);
            }
            t.replaced("t1").started("t2");
            t
        };
        keeps("TURN-2", &replaced(false), 1);
        breaks("TURN-2/wrong-end", &replaced(true));
    }

    #[test]
    fn a_turn_may_be_replaced_by_what_was_sent_while_another_ran() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Replace);
        t.input("three", InputMode::Replace).replaced("t1");
        t.started("t2").interrupt();
        keeps("TURN-2", t.clone().replaced("t2").started("t3"), 1);
        breaks("TURN-2/wrong-end", t.completed("t2"));
    }

    #[test]
    fn a_turn_may_be_replaced_by_what_was_sent_after_the_text_that_it_tells_of() {
        let began = |told: &str| {
            let mut t = Tracer::new();
            t.start("t1", "one").input("late", InputMode::Steer);
            t.input("two", InputMode::Replace).completed("t1");
            t.started("t2").interrupt().user_message("t2", told);
            t.replaced("t2");
            t
        };
        keeps("TURN-2", &began("late"), 1);
        breaks("TURN-2/wrong-end", &began("two"));
    }

    #[test]
    fn the_tools_of_a_sub_agent_end_with_it() {
        let completed = |ended: bool, ms: u64| {
            let mut t = running();
            t.finish(1).sub_agent("t1", "a", "look", false);
            t.request_of(1, 2, &[user("look")]).emit(2, call("c1"));
            t.begin("t1", "c1");
            if ended {
                t.sub_ended("t1", "a", "aborted");
            }
            t.wait_ms(ms).interrupt().completed("t1");
            t
        };
        keeps("TURN-2", &completed(true, 500), 1);
        breaks("TURN-2/wrong-end", &completed(false, 500));
        keeps("TURN-2", &completed(false, 50), 1);
    }

    #[test]
    fn a_command_that_had_ended_may_complete() {
        let command = |ended: bool| {
            let mut t = Tracer::new();
            t.task(TaskKind::Shell, "make").started("t1");
            t.begin("t1", "user-shell-1");
            if ended {
                t.end("t1", "user-shell-1", Some(0));
            }
            t.interrupt().completed("t1");
            t
        };
        keeps("TURN-2", &command(true), 1);
        breaks("TURN-2/wrong-end", &command(false));
        let ends_after = |ms: u64, exit_code: Option<i32>, held: bool| {
            let mut t = Tracer::new();
            t.task(TaskKind::Shell, "make").started("t1");
            if held {
                t.reached("user-shell-1 running");
            }
            t.interrupt().begin("t1", "user-shell-1").wait_ms(ms);
            t.end("t1", "user-shell-1", exit_code).completed("t1");
            t
        };
        keeps("TURN-2", &ends_after(50, Some(0), false), 1);
        breaks("TURN-2/wrong-end", &ends_after(200, Some(0), false));
        breaks("TURN-2/wrong-end", &ends_after(50, None, false));
        breaks("TURN-2/wrong-end", &ends_after(50, Some(0), true));
    }

    #[test]
    fn a_turn_that_runs_on_is_a_breach() {
        let mut t = running();
        t.interrupt();
        breaks("TURN-2/never-ended", &t);
        t.wait_ms(500).finish(1).completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn an_interrupt_right_after_the_acknowledgement_is_not_lost() {
        let mut t = Tracer::new();
        t.input("hi", InputMode::Start).reply(Some("t1"));
        t.interrupt().started("t1").request(1, &[user("hi")]);
        t.wait_ms(500).finish(1).completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn a_turn_may_fail_although_a_tool_runs() {
        let failing = |response: &str, ms: u64, end: TurnEnd| {
            let mut t = running();
            t.emit(1, call("c1")).begin("t1", "c1");
            t.sent(1, json!({"type": response})).wait_ms(ms);
            t.interrupt().ended(Some("t1"), end);
            t
        };
        let failed = || TurnEnd::Failed {
            message: "too long".to_owned(),
        };
        keeps("TURN-2", &failing("response.incomplete", 10, failed()), 1);
        breaks(
            "TURN-2/wrong-end",
            &failing("response.incomplete", 200, failed()),
        );
        breaks(
            "TURN-2/wrong-end",
            &failing("response.incomplete", 10, TurnEnd::Complete),
        );
        breaks(
            "TURN-2/wrong-end",
            &failing("response.completed", 10, failed()),
        );
        breaks(
            "TURN-2/wrong-end",
            &failing("response.in_progress", 10, failed()),
        );
    }

    #[test]
    fn a_tool_may_end_and_the_turn_with_it_before_the_interrupt_is_taken() {
        let completed = |ended: bool, ms: u64, held: bool| {
            let mut t = running();
            t.emit(1, call("c1")).begin("t1", "c1").finish(1);
            if held {
                t.reached("call c1 running");
            }
            t.interrupt();
            if held {
                t.released("call c1 running");
            }
            if ended {
                t.end("t1", "c1", Some(0));
            }
            t.wait_ms(ms);
            t.request(2, &[user("hi"), call("c1"), output("c1", "out")]);
            t.finish(2).completed("t1");
            t
        };
        keeps("TURN-2", &completed(true, 50, false), 1);
        breaks("TURN-2/wrong-end", &completed(true, 200, false));
        breaks("TURN-2/wrong-end", &completed(false, 50, false));
        breaks("TURN-2/wrong-end", &completed(true, 50, true));
    }

    #[test]
    fn a_held_response_that_fails_is_no_race() {
        let held = |held: bool| {
            let mut t = running();
            t.emit(1, call("c1")).begin("t1", "c1");
            if held {
                t.reached("before the terminal event");
            }
            t.interrupt();
            if held {
                t.released("before the terminal event");
            }
            let message = "too long".to_owned();
            t.sent(1, json!({"type": "response.incomplete"}));
            t.ended(Some("t1"), TurnEnd::Failed { message });
            t
        };
        keeps("TURN-2", &held(false), 1);
        breaks("TURN-2/wrong-end", &held(true));
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
    fn what_a_sub_agent_still_reads_holds_up_no_turn() {
        let mut t = running();
        t.request_of(1, 2, &[user("look")]);
        t.finish(1).interrupt().disconnected(2).completed("t1");
        keeps("TURN-2", &t, 1);
        let mut t = running();
        t.request_of(1, 2, &[user("look")]).finish(2);
        t.interrupt().wait_ms(500).finish(1).completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn what_was_given_up_before_the_turn_was_announced_is_none_of_its_responses() {
        let reviewed = |closed_before: bool| {
            let mut t = running();
            t.task(TaskKind::Review, "look").request(2, &[user("hi")]);
            if closed_before {
                t.disconnected(2);
            }
            t.replaced("t1").started("t2");
            t.request_of(1, 3, &[user("look")]).finish(3);
            t.interrupt().completed("t2");
            t
        };
        keeps("TURN-2", &reviewed(true), 1);
        breaks("TURN-2/wrong-end", &reviewed(false));
    }

    #[test]
    fn a_held_response_is_no_race() {
        let mut t = running();
        t.reached("before the terminal event").interrupt();
        t.released("before the terminal event")
            .finish(1)
            .completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn what_the_client_hung_up_on_is_held_no_longer() {
        let completed = |held: bool, ms: u64| {
            let mut t = running();
            t.reached("reply 1 event 1").interrupt().disconnected(1);
            t.interrupted("t1").start("t2", "on");
            t.request(2, &[user("hi"), user("on")]);
            if held {
                t.reached("request 2");
            }
            t.interrupt().wait_ms(ms).finish(2).completed("t2");
            t.released("reply 1 event 1");
            t
        };
        keeps("TURN-2", &completed(false, 50), 2);
        breaks("TURN-2/wrong-end", &completed(false, 200));
        breaks("TURN-2/wrong-end", &completed(true, 50));
    }

    #[test]
    fn a_running_tool_is_no_race() {
        let mut t = running();
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.interrupt().completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn a_response_asked_for_long_after_the_interrupt_is_no_race() {
        let mut t = running();
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.end("t1", "c1", Some(0)).interrupt().wait_ms(200);
        t.request(2, &[user("hi"), call("c1"), output("c1", "")]);
        t.finish(2).completed("t1");
        breaks("TURN-2/wrong-end", &t);
    }

    #[test]
    fn a_kill_asks_for_nothing() {
        let mut t = running();
        is_idle("TURN-2", t.interrupt().kill());
    }
}
