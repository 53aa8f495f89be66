//! SUB-2: what a sub-agent asks is asked by the session that it works for.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, SubAgent, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Decision, Feature};

pub(super) struct ParentsAskForThem;

const ASKED_CONSUMER: Clause = Clause {
    kind: "asked-consumer",
    text: "the question of call {call} of sub-agent {agent} went to the consumer of its events",
};
const OTHER_TURN: Clause = Clause {
    kind: "other-turn",
    text: "call {call} of sub-agent {agent} asked the user in another turn than the one that \
           started the sub-agent",
};
const NOT_APPROVED: Clause = Clause {
    kind: "not-approved",
    text: "call {call} of sub-agent {agent} ran without the approval of the user",
};

impl Invariant for ParentsAskForThem {
    fn id(&self) -> &'static str {
        "SUB-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An approval or a question of a sub-agent is asked in the session that it works for, in \
         the turn that started it, and never goes to the consumer of its events; the user's \
         decision reaches the call that it is for."
    }

    fn source(&self) -> &'static str {
        "Codex's delegate: approvals and questions are answered through the parent's session"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::SubAgents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A call that the user has allowed for the whole session needs no approval, and may \
             begin.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a call of a sub-agent asks the user"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[ASKED_CONSUMER, OTHER_TURN, NOT_APPROVED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for agent in &view.agents {
            for (at, event) in &agent.events {
                let (AgentEvent::ApprovalRequest { call_id, .. }
                | AgentEvent::Question { call_id, .. }) = event
                else {
                    continue;
                };
                findings.exercised += 1;
                let fault = ASKED_CONSUMER.with("call", call_id.as_str());
                let fault = fault.with("agent", agent.id);
                findings.breach(view, fault, &[agent.started, *at]);
            }
        }
        for call in &view.calls {
            let (Some(agent), Some(asked)) = (owner(view, call), call.asked.or(call.questioned))
            else {
                continue;
            };
            findings.exercised += 1;
            let id = call.id;
            let named = view.event(asked).and_then(AgentEvent::turn_id);
            let own = agent.turn.map(|turn| view.turns[turn].id);
            if view.has(Feature::TurnIds) && named != own {
                let fault = OTHER_TURN.with("call", id).with("agent", agent.id);
                findings.breach(view, fault, &[agent.started, asked]);
            } else if let Some(begun) = begun_unasked(view, call) {
                let fault = NOT_APPROVED.with("call", id).with("agent", agent.id);
                findings.breach(view, fault, &[asked, begun]);
            }
        }
        findings
    }
}

/// The sub-agent that a call is of.
fn owner<'v, 'a>(view: &'v View<'a>, call: &Call<'_>) -> Option<&'v SubAgent<'a>> {
    let emitted = call.emitted.first()?.at;
    let of = |agent: &&SubAgent<'_>| {
        let mut exchanges = agent.exchanges.iter().map(|index| &view.exchanges[*index]);
        exchanges.any(|exchange| exchange.sent.binary_search(&emitted).is_ok())
    };
    view.agents.iter().find(of)
}

/// Where a call began that the user was asked about and had not allowed.
fn begun_unasked(view: &View<'_>, call: &Call<'_>) -> Option<At> {
    let (asked, begun) = (call.asked?, call.begun?);
    let allowed = view.approvals.iter().any(|approval| {
        approval.call_id == call.id
            && approval.decision == Decision::Approve
            && (asked..begun).contains(&approval.at)
    });
    (begun > asked && !allowed).then_some(begun)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, is_idle, keeps, user};
    use cutpoint_trace::{AgentEvent, Decision};

    fn calls() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "go").request(1, &[user("go")]).finish(1);
        t.sub_agent("t1", "a1", "look", false);
        t.request_of(1, 2, &[user("look")]);
        t.emit(2, call("s1")).emit(2, call("s2")).finish(2);
        t
    }

    fn begin(t: &mut Tracer, call_id: &str) {
        let begin = AgentEvent::CallBegin {
            turn_id: Some("a1-1".into()),
            call_id: call_id.into(),
            command: "x".into(),
            pid: None,
        };
        t.of_sub_agent("t1", "a1", begin);
    }

    #[test]
    fn what_is_asked_by_the_parent_passes() {
        let mut t = calls();
        t.ask("t1", "s1").question("t1", "s2");
        t.decide("s1", Decision::Approve);
        begin(&mut t, "s1");
        keeps("SUB-2", &t, 2);
        let mut t = calls();
        begin(&mut t, "s1");
        is_idle("SUB-2", &t);
    }

    #[test]
    fn what_goes_to_the_consumer_is_a_breach() {
        let question = AgentEvent::Question {
            turn_id: None,
            call_id: "s1".into(),
            questions: vec![],
        };
        breaks(
            "SUB-2/asked-consumer",
            calls().of_sub_agent("t1", "a1", question),
        );
    }

    #[test]
    fn what_is_asked_under_another_turn_is_a_breach() {
        breaks("SUB-2/other-turn", calls().ask("a1-1", "s1"));
    }

    #[test]
    fn a_decision_for_another_call_is_a_breach() {
        let mut t = calls();
        t.ask("t1", "s1").ask("t1", "s2");
        t.decide("s2", Decision::Approve);
        begin(&mut t, "s1");
        let breach = breaks("SUB-2/not-approved", &t);
        assert!(breach.text().contains("without the approval"));
        let mut t = calls();
        t.ask("t1", "s1").decide("s1", Decision::Deny);
        begin(&mut t, "s1");
        breaks("SUB-2", &t);
    }
}
