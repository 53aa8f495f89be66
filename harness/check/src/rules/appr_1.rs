//! APPR-1: a pending approval is aborted, not rejected.

use serde_json::Value;

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Role, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct PendingApprovalIsAborted;

const RAN: Clause = Clause {
    kind: "ran",
    text: "call {call} waited for approval when its turn was interrupted, but it ran all the same",
};
const REJECTION_SHOWN: Clause = Clause {
    kind: "rejection-shown",
    text: "call {call} waited for approval when its turn was interrupted, and a rejection was \
           shown before the abort",
};
const SENT_BEFORE_ABORT: Clause = Clause {
    kind: "sent-before-abort",
    text: "call {call} waited for approval when its turn was interrupted, and request {request} \
           mentions it before the abort",
};
const CALLED_REJECTED: Clause = Clause {
    kind: "called-rejected",
    text: "call {call} waited for approval when its turn was interrupted, and request {request} \
           says that it was rejected: {output:?}",
};

/// Words with which an output says that the user said no.
const REJECTED: &[&str] = &[
    "reject",
    "denied",
    "declined",
    "not approved",
    "refused",
    "did not allow",
];

impl Invariant for PendingApprovalIsAborted {
    fn id(&self) -> &'static str {
        "APPR-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A call that waits for approval when its turn is interrupted is aborted: it does not \
         run, the model is not told that the user rejected it, and no request mentions it before \
         the abort."
    }

    fn source(&self) -> &'static str {
        "openai/codex #14000, #14102 (an approval cleared before the cancellation: the model sees a \
         rejection)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An approval that the user answered before the interrupt is not pending.",
            "An \"abort\" for a sub-agent that has ended or is being closed has no addressee and \
             is not an interrupt.",
            "The agent may report the end of the call, as cut off, before the abort or after it.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is interrupted and aborted while one of its calls waits for approval"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[RAN, REJECTION_SHOWN, SENT_BEFORE_ABORT, CALLED_REJECTED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for call in &view.calls {
            let Some((asked, cut, ended)) = pending(view, call) else {
                continue;
            };
            findings.exercised += 1;
            if let Some((fault, at)) = fault(view, call, cut, ended) {
                let fault = fault.with("call", call.id);
                findings.breach(view, fault, &[asked, cut, at]);
            }
        }
        findings
    }
}

/// Where the user was asked, where the turn was interrupted before an answer, and where it ended.
fn pending(view: &View<'_>, call: &Call<'_>) -> Option<(At, At, At)> {
    let asked = call.asked?;
    let turn = call.turn?;
    let ended = view.turns[turn].ending()?.at;
    let cut = view.cut_at(turn)?;
    let mut answers = view
        .approvals
        .iter()
        .filter(|approval| approval.call_id == call.id);
    let answered = answers.any(|approval| approval.at <= cut);
    (asked < cut && !answered && !call.ended_before(cut)).then_some((asked, cut, ended))
}

fn fault(view: &View<'_>, call: &Call<'_>, cut: At, ended: At) -> Option<(Fault, At)> {
    let ran = call
        .endings
        .iter()
        .find(|ending| ending.at > cut && ending.exit_code.is_some());
    let began = call.begun.filter(|begun| *begun > cut);
    if let Some(at) = ran.map(|ending| ending.at).or(began) {
        return Some((RAN.into(), at));
    }
    let shown = (cut..ended).find(|at| match view.event(*at) {
        Some(AgentEvent::Error { message, .. }) => rejected(message),
        _ => false,
    });
    if let Some(at) = shown {
        return Some((REJECTION_SHOWN.into(), at));
    }
    let first = view.exchanges.partition_point(|exchange| exchange.at < cut);
    for exchange in &view.exchanges[first..] {
        for (item, role) in exchange.history.iter().zip(&exchange.roles) {
            if *role != Role::Output(call.id) {
                continue;
            }
            let number = exchange.number;
            if exchange.at < ended {
                return Some((SENT_BEFORE_ABORT.with("request", number), exchange.at));
            }
            let text = match item.get("output") {
                Some(Value::String(text)) => text.clone(),
                other => other.map(Value::to_string).unwrap_or_default(),
            };
            let fault = CALLED_REJECTED.with("request", number);
            return rejected(&text).then(|| (fault.with("output", text), exchange.at));
        }
    }
    None
}

fn rejected(text: &str) -> bool {
    let text = text.to_lowercase();
    REJECTED.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{AgentEvent, Decision};

    fn asked() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).ask("t1", "c1");
        t
    }

    fn told(text: &str) -> Tracer {
        let mut t = asked();
        t.interrupted("t1").start("t2", "next");
        t.request(
            2,
            &[user("run"), call("c1"), output("c1", text), user("next")],
        );
        t
    }

    #[test]
    fn an_aborted_approval_passes() {
        keeps("APPR-1", &told("aborted by the user"), 1);
        keeps(
            "APPR-1",
            asked().interrupt().end("t1", "c1", None).aborted("t1"),
            1,
        );
        let mut t = asked();
        is_idle(
            "APPR-1",
            t.decide("c1", Decision::Approve).interrupted("t1"),
        );
    }

    #[test]
    fn a_rejection_is_a_breach() {
        breaks(
            "APPR-1/called-rejected",
            &told("exec command rejected by user"),
        );
        breaks(
            "APPR-1/called-rejected",
            &told("error: the user did not allow it"),
        );
    }

    #[test]
    fn a_command_that_runs_is_a_breach() {
        breaks(
            "APPR-1/ran",
            asked().interrupt().begin("t1", "c1").aborted("t1"),
        );
        breaks(
            "APPR-1/ran",
            asked().interrupted("t1").end("t1", "c1", Some(0)),
        );
    }

    #[test]
    fn abort_for_a_sub_agent_that_is_being_closed_is_no_interrupt() {
        let approved = |own: &str, ms: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.sub_agent("t1", "a", "look", false)
                .request_of(1, 2, &[user("look")]);
            t.emit(2, call("c2")).finish(2).ask("t1", "c2");
            t.emit(1, call("c1"))
                .sent(1, json!({"type": own}))
                .ask("t1", "c1");
            t.decide("c2", Decision::Abort)
                .decide("c1", Decision::Approve);
            t.begin("t1", "c1").interrupt().end("t1", "c1", None);
            t.wait_ms(ms).sub_ended("t1", "a", "closed").aborted("t1");
            t
        };
        is_idle("APPR-1", &approved("response.incomplete", 100));
        breaks("APPR-1/ran", &approved("response.incomplete", 700));
        breaks("APPR-1/ran", &approved("response.completed", 100));
    }

    #[test]
    fn a_rejection_that_is_shown_before_the_abort_is_a_breach() {
        let mut t = asked();
        t.interrupt().event(AgentEvent::Error {
            turn_id: None,
            message: "exec command rejected by user".into(),
        });
        breaks("APPR-1/rejection-shown", t.aborted("t1"));
    }

    #[test]
    fn a_request_before_the_abort_is_a_breach() {
        let mut t = asked();
        t.interrupt()
            .request(2, &[call("c1"), output("c1", "aborted")])
            .aborted("t1");
        breaks("APPR-1/sent-before-abort", &t);
    }
}
