//! APPR-2: an answer that comes too late changes nothing.

use crate::invariant::{Findings, Invariant};
use crate::view::{Approval, At, Call, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Decision, Feature, Observation};

pub(super) struct LateApprovalIsHarmless;

const RAN: Clause = Clause {
    kind: "ran",
    text: "the answer to the approval of call {call} came too late, but the call ran",
};
const OTHER_TURN_ABORTED: Clause = Clause {
    kind: "other-turn-aborted",
    text: "the answer to the approval of call {call} came too late, but it aborted another turn",
};
const AGENT_EXITED: Clause = Clause {
    kind: "agent-exited",
    text: "the answer to the approval of call {call} came too late, and the agent exited",
};
const TURN_STARTED: Clause = Clause {
    kind: "turn-started",
    text: "the answer to the approval of call {call} came too late, but a turn started",
};
const TURN_ENDED: Clause = Clause {
    kind: "turn-ended",
    text: "the answer to the approval of call {call} came too late, but a turn was reported as \
           ended",
};

impl Invariant for LateApprovalIsHarmless {
    fn id(&self) -> &'static str {
        "APPR-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An answer to an approval request of a turn or sub-agent that has ended changes nothing: \
         the call does not run, no turn starts or ends because of it, and the session continues."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle: pending approvals end with their turn, and a late answer has no addressee"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The agent may refuse the answer with an error, but the session must continue.",
            "A call that ran before its turn ended may have run.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an approval request is answered after the end of its turn, or of the sub-agent that \
         asked"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            RAN,
            OTHER_TURN_ABORTED,
            AGENT_EXITED,
            TURN_STARTED,
            TURN_ENDED,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for approval in &view.approvals {
            let Some(call) = view.call(approval.call_id) else {
                continue;
            };
            let of_turn = call
                .turn
                .and_then(|turn| view.turns[turn].ending_before(approval.at))
                .map(|ending| ending.at);
            let Some(ended) = of_turn.or_else(|| view.asker_ended(call, approval.at)) else {
                continue;
            };
            findings.exercised += 1;
            if let Some((fault, at)) = fault(view, approval, call) {
                let fault = fault.with("call", call.id);
                findings.breach(view, fault, &[ended, approval.at, at]);
            }
        }
        findings
    }
}

/// What came of a late answer before the user did anything else.
fn fault(view: &View<'_>, approval: &Approval<'_>, call: &Call<'_>) -> Option<(Clause, At)> {
    let ran = call
        .endings
        .iter()
        .find(|ending| ending.at > approval.at && ending.exit_code.is_some());
    let began = call.begun.filter(|begun| *begun > approval.at);
    if let Some(at) = began.or(ran.map(|ending| ending.at)) {
        return Some((RAN, at));
    }
    if let Some(at) = aborts_another(view, approval, call) {
        return Some((OTHER_TURN_ABORTED, at));
    }
    let until = next_op(view, approval.at);
    for (at, entry) in view
        .trace
        .entries
        .iter()
        .enumerate()
        .take(until)
        .skip(approval.at)
    {
        match &entry.observation {
            Observation::AgentExited {
                expected: false, ..
            } => return Some((AGENT_EXITED, at)),
            Observation::Event { event, .. } => match event {
                cutpoint_trace::AgentEvent::TurnStarted { .. } => {
                    return Some((TURN_STARTED, at));
                }
                cutpoint_trace::AgentEvent::TurnEnded { .. } => {
                    return Some((TURN_ENDED, at));
                }
                _ => {}
            },
            _ => {}
        }
    }
    None
}

/// The end of a turn that was active when "abort" came too late for another turn, and that the
/// client had not interrupted.
fn aborts_another(view: &View<'_>, approval: &Approval<'_>, call: &Call<'_>) -> Option<At> {
    let stops = |approval: &Approval<'_>| approval.decision == Decision::Abort;
    let mut turns = view.turns.iter().enumerate();
    let (index, _) = turns.find(|(index, turn)| {
        let active = turn.begun < approval.at && turn.ending_before(approval.at).is_none();
        active && call.turn != Some(*index)
    })?;
    let ending = view.turns[index].ending().filter(|_| stops(approval))?;
    let own = |approval: &&Approval<'_>| {
        let call = view.call(approval.call_id);
        stops(approval) && call.is_some_and(|call| call.turn == Some(index))
    };
    let asked =
        !view.turns[index].interrupts.is_empty() || view.approvals.iter().any(|it| own(&it));
    (ending.interrupted() && !asked).then_some(ending.at)
}

/// Where the client asked for something else, unless a turn was still active.
fn next_op(view: &View<'_>, at: At) -> At {
    let active = view.turns.iter().any(|turn| {
        turn.begun < at
            && turn.ending().is_none_or(|ending| ending.at > at)
            && turn.killed.is_none()
    });
    if active {
        // What begins and ends then has other causes.
        return at;
    }
    let after = view.trace.entries.iter().enumerate().skip(at + 1);
    let mut ops = after.filter(|(_, entry)| {
        matches!(
            entry.observation,
            Observation::Op { .. } | Observation::AgentKilled
        )
    });
    ops.next().map_or(view.trace.entries.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, is_idle, keeps, user};
    use cutpoint_trace::{Decision, Observation};

    fn late() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1"))
            .finish(1)
            .ask("t1", "c1")
            .interrupted("t1");
        t.decide("c1", Decision::Approve);
        t
    }

    #[test]
    fn a_late_answer_without_effect_passes() {
        keeps("APPR-2", &late(), 1);
        keeps(
            "APPR-2",
            late().refuse().start("t2", "next").completed("t2"),
            1,
        );
        let mut t = Tracer::new();
        t.start("t1", "run")
            .ask("t1", "c1")
            .decide("c1", Decision::Approve);
        is_idle("APPR-2", t.begin("t1", "c1").end("t1", "c1", Some(0)));
    }

    #[test]
    fn a_call_that_runs_is_a_breach() {
        breaks("APPR-2/ran", late().begin("t1", "c1"));
        breaks(
            "APPR-2/ran",
            late().start("t2", "next").end("t1", "c1", Some(0)),
        );
    }

    #[test]
    fn an_answer_after_the_end_of_the_sub_agent_that_asked_is_late() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.sub_agent("t1", "a", "look", false)
            .request_of(1, 2, &[user("look")]);
        t.emit(2, call("c1")).finish(2).ask("t1", "c1");
        t.sub_ended("t1", "a", "closed")
            .decide("c1", Decision::Abort);
        keeps("APPR-2", t.clone().finish(1).completed("t1"), 1);
        let breach = breaks("APPR-2/ran", t.begin("t1", "c1"));
        assert!(breach.text().contains("the call ran"));
    }

    #[test]
    fn a_turn_that_comes_of_it_is_a_breach() {
        breaks("APPR-2/turn-ended", late().aborted("t1"));
        breaks("APPR-2/turn-started", late().started("t2"));
    }

    #[test]
    fn a_late_abort_leaves_the_next_turn_alone() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).ask("t1", "c1");
        t.interrupted("t1").start("t2", "next");
        t.decide("c1", Decision::Abort);
        keeps("APPR-2", t.clone().completed("t2"), 1);
        keeps("APPR-2", t.clone().interrupt().aborted("t2"), 1);
        let breach = breaks("APPR-2/other-turn-aborted", t.aborted("t2"));
        assert!(breach.text().contains("another turn"));
    }

    #[test]
    fn an_agent_that_breaks_of_it_is_a_breach() {
        let exited = Observation::AgentExited {
            code: Some(101),
            expected: false,
            stderr: String::new(),
        };
        breaks("APPR-2/agent-exited", late().push(exited));
    }
}
