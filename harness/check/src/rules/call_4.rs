//! CALL-4: a call that was executed stays in the history.

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Exchange, Role, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct BegunCallsStay;

const CALL_LOST: Clause = Clause {
    kind: "call-lost",
    text: "request {request} lacks call {call}, which had begun to run",
};

impl Invariant for BegunCallsStay {
    fn id(&self) -> &'static str {
        "CALL-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A call that the agent began to execute is in the history of every later request of its \
         conversation."
    }

    fn source(&self) -> &'static str {
        "observed in released agents: executed calls lost from the history on a cut; openai/codex \
         #5134, #28641"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::CallEvents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A request that arrives before the event that announces the begin of the tool need \
             not carry the call: the agent built it earlier.",
            "A call may be gone once the history was compacted, because a summary replaces it. \
             So may a call whose turn was rolled back, or that the harness tore off the rollout.",
            "A call that began in the first conversation after a fork was requested is not in \
             the fork.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows the begin of a call in its conversation"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[CALL_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut begun: Vec<(At, &Call<'_>)> = view
            .calls
            .iter()
            // A command that the user ran has a begin, but is no call of the model's.
            .filter(|call| !call.emitted.is_empty())
            .filter_map(|call| call.begun.map(|begun| (begun, call)))
            .collect();
        begun.sort_by_key(|(at, _)| *at);
        let mut begun = begun.into_iter().peekable();
        let mut due: HashMap<usize, Vec<(At, &Call<'_>)>> = HashMap::default();
        for exchange in view.exchanges.iter().filter(|exchange| exchange.generates) {
            while let Some(call) = begun.next_if(|(at, _)| *at < exchange.at) {
                let conversation = call.1.conversation.unwrap_or(exchange.conversation);
                due.entry(conversation).or_default().push(call);
            }
            let Some(due) = due.get_mut(&exchange.conversation) else {
                continue;
            };
            check_one(view, exchange, due, &mut findings);
        }
        findings
    }
}

/// Checks a request; what is lost or compacted is due no longer.
fn check_one(
    view: &View<'_>,
    exchange: &Exchange<'_>,
    due: &mut Vec<(At, &Call<'_>)>,
    findings: &mut Findings,
) {
    let fresh = fresh_session(view, exchange);
    let carried: HashSet<&str> = exchange
        .roles
        .iter()
        .filter_map(|role| match role {
            Role::Call(id, _) => Some(*id),
            _ => None,
        })
        .collect();
    // The file is read after the request, so a compaction right before one is seen right after.
    let until = exchange.over().unwrap_or(exchange.at + 2) + 1;
    due.retain(|(begun, call)| {
        if *begun < fresh {
            return false;
        }
        let here = carried.contains(call.id);
        let gone = exchange.has_compaction() || view.gone_between(*begun, until);
        if !here && (gone || view.forked_away(*begun, exchange.at)) {
            return false;
        }
        findings.exercised += 1;
        if !here {
            let fault = CALL_LOST
                .with("request", exchange.number)
                .with("call", call.id);
            let emitted = call.emitted.first().map_or(*begun, |emitted| emitted.at);
            findings.breach(view, fault, &[emitted, *begun, exchange.at]);
        }
        here
    });
}

/// Where the newest session began that continues no other.
fn fresh_session(view: &View<'_>, exchange: &Exchange<'_>) -> At {
    view.starts
        .iter()
        .rev()
        .find(|start| start.at < exchange.at && !start.resumed)
        .map_or(0, |start| start.at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use cutpoint_trace::{ClientOp, ReadTrigger, StreamEnd};

    fn begun() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).begin("t1", "c1");
        t
    }

    #[test]
    fn a_call_that_stays_passes() {
        keeps("CALL-4", &interrupted_tool(), 1);
    }

    #[test]
    fn a_call_that_an_interrupt_takes_away_is_a_breach() {
        let mut t = begun();
        t.finish(1).interrupted("t1").start("t2", "next");
        t.request(2, &[user("run"), user("next")]);
        t.request(3, &[user("run"), user("next")]);
        assert_eq!(
            breaks("CALL-4/call-lost", &t).text(),
            "request 2 lacks call c1, which had begun to run"
        );
    }

    #[test]
    fn a_retry_that_forgets_the_call_is_a_breach() {
        let mut t = begun();
        t.stream_end(1, StreamEnd::Reset).request(2, &[user("run")]);
        breaks("CALL-4/call-lost", &t);
    }

    #[test]
    fn another_conversation_owes_nothing() {
        let mut t = begun();
        t.request_of(1, 2, &[user("sub-task")]);
        t.request(3, &[user("run"), call("c1"), output("c1", "done")]);
        keeps("CALL-4", &t, 1);
    }

    #[test]
    fn a_fork_has_what_had_begun_when_it_was_asked_for() {
        let forked = |early: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run")
                .request(1, &[user("run")])
                .emit(1, call("c1"));
            if early {
                t.begin("t1", "c1").op(ClientOp::Fork);
            } else {
                t.op(ClientOp::Fork).begin("t1", "c1");
            }
            t.forked("f.jsonl").kill().resume().start("t2", "next");
            t.request(2, &[user("run"), user("next")]);
            t
        };
        is_idle("CALL-4", &forked(false));
        breaks("CALL-4/call-lost", &forked(true));
    }

    #[test]
    fn a_compacted_history_owes_nothing() {
        let mut t = begun();
        t.finish(1).interrupted("t1");
        t.wrote_line("compacted", &json!({"message": "x"}));
        t.start("t2", "next").request(2, &[user("next")]);
        t.read(ReadTrigger::Request { exchange: 2 });
        is_idle("CALL-4", &t);
    }
}
