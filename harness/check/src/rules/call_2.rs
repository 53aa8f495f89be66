//! CALL-2: every output has its call, and is the only one.

use cutpoint_protocol::pairing::PairingFault;

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::View;
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct EveryOutputHasItsCall;

const ORPHAN_OUTPUT: Clause = Clause {
    kind: "orphan-output",
    text: "request {request} has an output without a call before it: {call}",
};
const SECOND_OUTPUT: Clause = Clause {
    kind: "second-output",
    text: "request {request} has a second output for call {call}",
};
const REPEATED_CALL: Clause = Clause {
    kind: "repeated-call",
    text: "request {request} has a second call with the id {call}",
};
const EMPTY_CALL_ID: Clause = Clause {
    kind: "empty-call-id",
    text: "request {request} has a call or an output without a call_id",
};

impl Invariant for EveryOutputHasItsCall {
    fn id(&self) -> &'static str {
        "CALL-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An output follows the call that it answers, no call has a second output or appears \
         twice, and no call_id is empty."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1387 (synthetic outputs must not double real ones) and #1019 (an output \
         without its call)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn exercised_when(&self) -> &'static str {
        "a request carries an output"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[ORPHAN_OUTPUT, SECOND_OUTPUT, REPEATED_CALL, EMPTY_CALL_ID]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        // A fault stays in the history; it is reported once, for the first request that has it.
        let mut reported = HashSet::default();
        for exchange in &view.exchanges {
            findings.exercised += usize::from(exchange.outputs().next().is_some());
            for fault in &exchange.faults {
                let Some((clause, call_id)) = clause_of(fault) else {
                    continue;
                };
                if reported.insert((exchange.conversation, clause.kind, call_id)) {
                    let fault = clause
                        .with("request", exchange.number)
                        .with("call", call_id);
                    findings.breach(view, fault, &[exchange.at]);
                }
            }
        }
        findings
    }
}

/// The fault, if it is this rule's, and the call id that it is about.
fn clause_of(fault: &PairingFault) -> Option<(Clause, &str)> {
    match fault {
        PairingFault::Orphan { call_id, .. } => Some((ORPHAN_OUTPUT, call_id)),
        PairingFault::Duplicate { call_id, .. } => Some((SECOND_OUTPUT, call_id)),
        PairingFault::RepeatedCall { call_id, .. } => Some((REPEATED_CALL, call_id)),
        PairingFault::EmptyCallId { .. } => Some((EMPTY_CALL_ID, "")),
        PairingFault::Unanswered { .. } | PairingFault::WrongKind { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, interrupted_tool, keeps, output, user};

    #[test]
    fn paired_outputs_pass() {
        keeps("CALL-2", &interrupted_tool(), 1);
    }

    #[test]
    fn an_orphan_is_a_breach() {
        let mut t = Tracer::new();
        t.request(1, &[user("hi"), output("c1", "")]);
        t.request(2, &[user("hi"), output("c1", "")]);
        breaks("CALL-2/orphan-output", &t);
    }

    #[test]
    fn seconds_and_empty_ids_are_breaches() {
        let mut t = Tracer::new();
        t.request(1, &[call("c1"), output("c1", ""), output("c1", "")]);
        breaks("CALL-2/second-output", &t);
        let mut t = Tracer::new();
        t.request(1, &[call("c1"), output("c1", ""), call("c1")]);
        breaks("CALL-2/repeated-call", &t);
        let mut t = Tracer::new();
        t.request(1, &[output("", "")]);
        breaks("CALL-2/empty-call-id", &t);
    }
}
