//! APPR-4: an approval answered with "abort" is an interrupt.

use crate::invariant::{Findings, Invariant};
use crate::view::{Approval, At, Call, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{Decision, Feature, TurnEnd};

pub(super) struct AbortAnswerInterrupts;

const RAN: Clause = Clause {
    kind: "ran",
    text: "the approval of call {call} was answered with \"abort\", but the call ran",
};
const NEVER_ENDED: Clause = Clause {
    kind: "never-ended",
    text: "the approval of call {call} was answered with \"abort\", but turn {turn} never ended",
};
const WRONG_END: Clause = Clause {
    kind: "wrong-end",
    text: "the approval of call {call} was answered with \"abort\", but turn {turn} ended as {end}",
};

impl Invariant for AbortAnswerInterrupts {
    fn id(&self) -> &'static str {
        "APPR-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An approval request that the user answers with \"abort\" ends its turn as interrupted, \
         and the call does not run."
    }

    fn source(&self) -> &'static str {
        "Codex's approvals: \"abort\" stops the turn, any other decision goes to the call"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn that is replaced, or cut by the end of the agent, after the answer ends that \
             way.",
            "An answer after the end of the turn, or of the sub-agent that asked, is for APPR-2 \
             to judge.",
            "An answer for a sub-agent that the turn's own model is closing (a `close_agent` \
             call is running, or the turn's own response has failed) need not end the turn if the \
             sub-agent ended within 600 ms.",
            "The turn may fail if its last response failed within 100 ms before or after the \
             answer: the failure and the answer crossed on their way to the agent.",
            "The turn may complete if a sub-agent had asked, no tool that keeps the turn open \
             was running, and the turn's own last response was over when the answer was given, or \
             ended within 100 ms after it without being held at a cut point: the turn does not \
             wait for its sub-agents, and had nothing left to do.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an approval request of an active turn is answered with \"abort\""
    }

    fn clauses(&self) -> &'static [Clause] {
        &[RAN, NEVER_ENDED, WRONG_END]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let aborts = view
            .approvals
            .iter()
            .filter(|approval| approval.decision == Decision::Abort);
        for approval in aborts {
            let Some(call) = view.call(approval.call_id) else {
                continue;
            };
            let Some(index) = call.turn else {
                continue;
            };
            let turn = &view.turns[index];
            let cut = turn.killed.or(turn.exited).is_some();
            if call.asked.is_none_or(|asked| asked > approval.at)
                || turn.ending_before(approval.at).is_some()
                || answered_before(view, approval)
                || view.asker_ended(call, approval.at).is_some()
                || cut
            {
                continue;
            }
            findings.exercised += 1;
            let ending = turn.ending();
            // Whatever becomes of the turn then, the call must not run.
            let nobody = view.asker_was_closing(call, approval.at);
            let ran = call
                .endings
                .iter()
                .find(|ending| ending.at > approval.at && ending.exit_code.is_some());
            let began = call.begun.filter(|begun| *begun > approval.at);
            let (fault, at): (Fault, Option<At>) = match (began.or(ran.map(|ran| ran.at)), ending) {
                (Some(at), _) => (RAN.into(), Some(at)),
                (None, _) if nobody => continue,
                (None, None) => (NEVER_ENDED.with("turn", turn.id), None),
                (None, Some(ending))
                    if !ending.aborted()
                        && view.failed_around(index, approval.at).is_none()
                        && !(*ending.end == TurnEnd::Complete
                            && had_nothing_left(view, call, index, approval)) =>
                {
                    let fault = WRONG_END
                        .with("turn", turn.id)
                        .with("end", ending.in_words());
                    (fault, Some(ending.at))
                }
                _ => continue,
            };
            let fault = fault.with("call", call.id);
            let shown_by: Vec<At> = [approval.at].into_iter().chain(at).collect();
            findings.breach(view, fault, &shown_by);
        }
        findings
    }
}

/// Whether the turn of a sub-agent's call had nothing left to do when that was answered. Its own call
/// would be something left.
fn had_nothing_left(
    view: &View<'_>,
    call: &Call<'_>,
    turn: usize,
    approval: &Approval<'_>,
) -> bool {
    view.is_a_sub_agents(call)
        && view.response_was_over(turn, approval.at, approval.held)
        // A tool that ends right after the answer is no excuse here: as if something were held.
        && !view.tool_was_running(turn, approval.at, true)
}

/// Whether the same request had been answered already.
fn answered_before(view: &View<'_>, approval: &Approval<'_>) -> bool {
    let mut same = view
        .approvals
        .iter()
        .filter(|other| other.call_id == approval.call_id);
    same.any(|other| other.at < approval.at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{Decision, TurnEnd};

    fn aborting() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1"))
            .finish(1)
            .ask("t1", "c1")
            .decide("c1", Decision::Abort);
        t
    }

    #[test]
    fn an_aborted_turn_passes() {
        keeps("APPR-4", aborting().aborted("t1"), 1);
        keeps("APPR-4", aborting().end("t1", "c1", None).aborted("t1"), 1);
        is_idle("APPR-4", aborting().kill());
        let mut t = Tracer::new();
        t.start("t1", "run")
            .ask("t1", "c1")
            .decide("c1", Decision::Deny);
        is_idle("APPR-4", t.completed("t1"));
    }

    #[test]
    fn a_turn_may_fail_as_the_answer_is_given() {
        let failing = |response: &str, ms: u64, end: TurnEnd| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.emit(1, call("c1")).ask("t1", "c1");
            t.sent(1, json!({"type": response})).wait_ms(ms);
            t.decide("c1", Decision::Abort).ended(Some("t1"), end);
            t
        };
        let failed = || TurnEnd::Failed {
            message: "too long".to_owned(),
        };
        keeps("APPR-4", &failing("error", 10, failed()), 1);
        breaks("APPR-4/wrong-end", &failing("error", 200, failed()));
        breaks("APPR-4/wrong-end", &failing("error", 10, TurnEnd::Complete));
        breaks(
            "APPR-4/wrong-end",
            &failing("response.completed", 10, failed()),
        );
        breaks(
            "APPR-4/wrong-end",
            &failing("response.in_progress", 10, failed()),
        );
    }

    #[test]
    fn a_turn_that_goes_on_is_a_breach() {
        breaks("APPR-4/wrong-end", aborting().completed("t1"));
        breaks("APPR-4/never-ended", &aborting());
    }

    #[test]
    fn a_turn_may_complete_as_its_sub_agents_call_is_answered() {
        let answered = |sub: bool, over: bool, held: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.sub_agent("t1", "a", "look", false);
            t.request_of(1, 2, &[user("look")]);
            t.emit(if sub { 2 } else { 1 }, call("c1")).ask("t1", "c1");
            if over {
                t.finish(1);
            } else if held {
                t.reached("before the terminal event");
            }
            t.decide("c1", Decision::Abort);
            if !over {
                t.finish(1);
            }
            t.completed("t1");
            t
        };
        keeps("APPR-4", &answered(true, true, false), 1);
        // A tool of the sub-agent's does not keep the turn, one of its own does.
        let running = |sub: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run")
                .request(1, &[user("run")])
                .emit(1, call("own"));
            t.sub_agent("t1", "a", "look", false)
                .request_of(1, 2, &[user("look")]);
            t.emit(2, call("c1")).emit(2, call("c2"));
            t.begin("t1", if sub { "c2" } else { "own" });
            t.ask("t1", "c1")
                .finish(1)
                .decide("c1", Decision::Abort)
                .completed("t1");
            t
        };
        keeps("APPR-4", &running(true), 1);
        breaks("APPR-4/wrong-end", &running(false));
        keeps("APPR-4", &answered(true, false, false), 1);
        breaks("APPR-4/wrong-end", &answered(true, false, true));
        breaks("APPR-4/wrong-end", &answered(false, true, false));
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.sub_agent("t1", "a", "look", false)
            .request_of(1, 2, &[user("look")]);
        t.emit(2, call("c1"))
            .ask("t1", "c1")
            .decide("c1", Decision::Abort);
        breaks("APPR-4/wrong-end", t.wait_ms(500).finish(1).completed("t1"));
    }

    #[test]
    fn a_turn_may_fail_of_a_refused_request_as_its_sub_agents_call_is_answered() {
        let answered = |refused: bool, ms: u64, closes: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.sub_agent("t1", "a", "look", false)
                .request_of(1, 2, &[user("look")]);
            t.emit(2, call("c1")).finish(2).ask("t1", "c1");
            if refused {
                t.answer(1, 404, "no");
            } else {
                t.finish(1);
            }
            t.wait_ms(ms).decide("c1", Decision::Abort);
            if closes {
                t.sub_ended("t1", "a", "closed");
            }
            let message = "not found".to_owned();
            t.ended(Some("t1"), TurnEnd::Failed { message });
            t
        };
        keeps("APPR-4", &answered(true, 50, false), 1);
        keeps("APPR-4", &answered(true, 200, true), 1);
        breaks("APPR-4/wrong-end", &answered(true, 200, false));
        breaks("APPR-4/wrong-end", &answered(false, 50, true));
    }

    #[test]
    fn an_answer_for_a_sub_agent_that_is_gone_is_not_its_matter() {
        let answered = |close: &str, ended: bool, took_ms: u64, ends: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.sub_agent("t1", "a", "look", false)
                .request_of(1, 2, &[user("look")]);
            t.emit(2, call("c1")).finish(2).ask("t1", "c1");
            let mut closing = call("own");
            closing["name"] = json!(close);
            t.emit(1, closing).finish(1);
            if ended {
                t.sub_ended("t1", "a", "closed");
            }
            t.wait_ms(150)
                .decide("c1", Decision::Abort)
                .wait_ms(took_ms);
            if ends && !ended {
                t.sub_ended("t1", "a", "closed");
            }
            t.request(3, &[user("run"), call("own"), output("own", "ok")]);
            t.wait_ms(150).finish(3).completed("t1");
            t
        };
        is_idle("APPR-4", &answered("close_agent", true, 0, true));
        is_idle("APPR-4", &answered("shell", true, 0, true));
        let closing = answered("close_agent", false, 500, true);
        keeps("APPR-4", &closing, 1);
        let breach = breaks("APPR-4/ran", closing.clone().begin("t1", "c1"));
        assert!(breach.text().contains("call c1"), "{}", breach.text());
        breaks("APPR-4", &answered("close_agent", false, 700, true));
        breaks("APPR-4", &answered("close_agent", false, 0, false));
        // An agent that ends nothing but the sub-agent has not interrupted the turn.
        breaks("APPR-4", &answered("wait_agent", false, 0, true));
    }

    #[test]
    fn a_call_that_runs_is_a_breach() {
        let mut t = aborting();
        t.begin("t1", "c1").aborted("t1");
        assert!(breaks("APPR-4/ran", &t).text().contains("call c1"));
    }
}
