//! CALL-8: outputs are owed until a response was made from them.

use std::collections::BTreeMap;

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Exchange, Role, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct DebtOutlivesTheAbort;

const OPEN_CALL_UNANSWERED: Clause = Clause {
    kind: "open-call-unanswered",
    text: "request {request} does not answer call {call}, which an abort left open",
};
const OUTPUT_LOST: Clause = Clause {
    kind: "output-lost",
    text: "request {request} lacks the output of call {call}, although no response was created \
           from a request that carried it",
};

impl Invariant for DebtOutlivesTheAbort {
    fn id(&self) -> &'static str {
        "CALL-8"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Calls that an abort left open are answered in the next request, and an output is sent \
         again with each request until a response is created from a request that carried it."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1387 (pending calls are cleared by response.created, and not before)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A call that the next request does not carry was dropped whole, which is for CALL-4 \
             or CALL-9 to judge.",
            "Outputs may be gone once the history was compacted, the turn was rolled back or the \
             rollout was torn, or in a session that continues no other.",
            "A fork owes no outputs for calls that the forked session made after the fork was \
             requested.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows an abort that left a call open, or a request whose outputs no \
         response took"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[OPEN_CALL_UNANSWERED, OUTPUT_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut open: Vec<(At, &Call<'_>)> = view
            .calls
            .iter()
            .filter_map(|call| left_open(view, call))
            .collect();
        open.sort_by_key(|(aborted, _)| *aborted);
        let mut open = open.into_iter().peekable();
        let mut owed: HashMap<usize, OwedOutputs<'_>> = HashMap::default();
        for (index, exchange) in view
            .exchanges
            .iter()
            .enumerate()
            .filter(|(_, it)| it.generates)
        {
            while let Some((aborted, call)) = open.next_if(|(aborted, _)| *aborted < exchange.at) {
                let conversation = call.conversation.unwrap_or(exchange.conversation);
                let answered = call.answered.is_some_and(|first| first < index);
                if !answered {
                    let owed = owed.entry(conversation).or_default();
                    owed.left.push((aborted, call.id));
                }
            }
            let owed = owed.entry(exchange.conversation).or_default();
            owed.check(view, exchange, &mut findings);
            owed.take(exchange);
        }
        findings
    }
}

/// A call that an abort left open, with the abort.
fn left_open<'v, 'a>(view: &View<'a>, call: &'v Call<'a>) -> Option<(At, &'v Call<'a>)> {
    let turn = call.turn?;
    view.cut_at(turn)?;
    let aborted = view.turns[turn].ending()?.at;
    let emitted = call.emitted.first()?.at;
    (emitted < aborted).then_some((aborted, call))
}

/// What a conversation owes.
#[derive(Default)]
struct OwedOutputs<'a> {
    lineage: usize,
    /// Calls that an abort left open, with the abort.
    left: Vec<(At, &'a str)>,
    /// Outputs that were sent, with the first request that carried them, and never taken.
    sent: BTreeMap<&'a str, At>,
    /// Outputs that a response was created from.
    settled: HashSet<&'a str>,
    /// Requests whose responses have not been looked at: their creation and their new outputs.
    waiting: Vec<(Option<At>, Vec<&'a str>)>,
}

impl<'a> OwedOutputs<'a> {
    fn check(&mut self, view: &View<'a>, exchange: &Exchange<'a>, findings: &mut Findings) {
        self.settle(exchange.at);
        let over = exchange.over().unwrap_or(exchange.at + 2) + 1;
        let carried: HashSet<&str> = exchange.outputs().collect();
        let calls: HashSet<&str> = exchange.calls().collect();
        let fresh = std::mem::replace(&mut self.lineage, exchange.lineage) != exchange.lineage;
        let number = exchange.number;
        let gone = |since: At| fresh || exchange.has_compaction() || view.gone_between(since, over);
        for (aborted, id) in std::mem::take(&mut self.left) {
            if gone(aborted) || !calls.contains(id) {
                continue;
            }
            findings.exercised += 1;
            if !carried.contains(id) {
                let fault = OPEN_CALL_UNANSWERED
                    .with("request", number)
                    .with("call", id);
                findings.breach(view, fault, &[aborted, exchange.at]);
            }
        }
        self.sent.retain(|id, first| {
            // A call that the fork has was made before it, and its output is owed here as well.
            let elsewhere = || view.forked_away(*first, exchange.at) && !calls.contains(id);
            if gone(*first) || elsewhere() {
                return false;
            }
            findings.exercised += 1;
            let kept = carried.contains(id);
            if !kept {
                let fault = OUTPUT_LOST.with("request", number).with("call", *id);
                findings.breach(view, fault, &[*first, exchange.at]);
            }
            kept
        });
    }

    /// Outputs from which a response was created before an entry are owed no longer.
    fn settle(&mut self, at: At) {
        for (created, outputs) in std::mem::take(&mut self.waiting) {
            if created.is_some_and(|created| created < at) {
                outputs.iter().for_each(|id| {
                    self.sent.remove(id);
                });
                self.settled.extend(outputs);
            }
        }
    }

    /// Notes the outputs that a request carries for the first time, or again in vain.
    fn take(&mut self, exchange: &Exchange<'a>) {
        let mut unsettled = Vec::new();
        for role in &exchange.roles {
            if let Role::Output(id) = role
                && !self.settled.contains(id)
            {
                self.sent.entry(id).or_insert(exchange.at);
                unsettled.push(*id);
            }
        }
        self.waiting.push((exchange.answered(), unsettled));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use cutpoint_trace::ClientOp;

    fn answered() -> Vec<Value> {
        vec![
            user("run"),
            call("c1"),
            output("c1", "aborted"),
            user("next"),
        ]
    }

    /// An aborted call, and the next turn's first request, which fails.
    fn failing(status: u16) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]).created(1);
        t.emit(1, call("c1")).interrupted("t1").start("t2", "next");
        t.request(2, &answered()).answer(2, status, "no");
        t
    }

    #[test]
    fn a_debt_that_is_paid_passes() {
        keeps("CALL-8", &interrupted_tool(), 1);
        keeps("CALL-8", failing(500).request(3, &answered()), 2);
        let mut t = failing(500);
        t.request(3, &answered()).created(3).finish(3);
        keeps("CALL-8", t.request(4, &[user("anything")]), 2);
    }

    #[test]
    fn an_abort_that_forgets_the_debt_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run")
            .request(1, &[user("run")])
            .emit(1, call("c1"));
        t.interrupted("t1").start("t2", "next");
        let breach = breaks(
            "CALL-8/open-call-unanswered",
            t.request(2, &[user("run"), call("c1"), user("next")]),
        );
        assert!(breach.text().contains("an abort left open"));
    }

    #[test]
    fn an_output_that_is_sent_only_once_is_a_breach() {
        let mut t = failing(500);
        let breach = breaks(
            "CALL-8/output-lost",
            t.request(3, &[user("run"), call("c1"), user("next")]),
        );
        assert!(breach.text().contains("no response was created"));
        breaks(
            "CALL-8/output-lost",
            failing(400).request(3, &[user("run"), user("next")]),
        );
    }

    #[test]
    fn a_fork_owes_nothing_for_what_came_after_it() {
        let forked = |after: bool, items: &[Value]| {
            let mut t = Tracer::new();
            t.start("t1", "run")
                .request(1, &[user("run")])
                .created(1)
                .finish(1)
                .completed("t1");
            if after {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.start("t2", "two")
                .request(2, &[user("run"), user("two")])
                .created(2);
            t.emit(2, call("c2")).interrupted("t2").start("t3", "next");
            t.request(
                3,
                &[
                    user("run"),
                    user("two"),
                    call("c2"),
                    output("c2", "aborted"),
                    user("next"),
                ],
            );
            t.answer(3, 500, "no");
            if !after {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.kill().resume().start("t4", "on");
            t.request(4, &[&[user("run")], items, &[user("on")]].concat());
            t
        };
        keeps("CALL-8", &forked(true, &[]), 1);
        breaks("CALL-8/output-lost", &forked(true, &[call("c2")]));
        breaks("CALL-8/output-lost", &forked(false, &[]));
    }

    #[test]
    fn a_fresh_session_owes_nothing() {
        let mut t = failing(500);
        t.exit().push(cutpoint_trace::Observation::AgentStarted {
            pid: None,
            resumed: false,
        });
        t.start("t3", "new").request(3, &[user("new")]);
        keeps("CALL-8", &t, 1);
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .request(1, &[user("hi")])
            .created(1)
            .finish(1);
        is_idle("CALL-8", &t);
    }
}
