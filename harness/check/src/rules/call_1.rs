//! CALL-1: every call has an output.

use cutpoint_protocol::pairing::PairingFault;

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{Role, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct EveryCallIsAnswered;

const NO_OUTPUT: Clause = Clause {
    kind: "no-output",
    text: "request {request} has no output for {call_type} {call}",
};
const WRONG_OUTPUT_KIND: Clause = Clause {
    kind: "wrong-output-kind",
    text: "request {request} answers {call_type} {call} with a {output_type}, which is for \
           another kind of call",
};

impl Invariant for EveryCallIsAnswered {
    fn id(&self) -> &'static str {
        "CALL-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Each call in a request's history has exactly one output with its call_id, of the type \
         that answers it."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1387: calls left pending by an interrupt get a synthetic aborted output"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn exercised_when(&self) -> &'static str {
        "a request carries a call"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NO_OUTPUT, WRONG_OUTPUT_KIND]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        // A fault stays in the history; it is reported once, for the first request that has it.
        let mut reported = HashSet::default();
        for exchange in &view.exchanges {
            let has_call = exchange
                .roles
                .iter()
                .any(|role| matches!(role, Role::Call(..)));
            findings.exercised += usize::from(has_call);
            for fault in &exchange.faults {
                let number = exchange.number;
                let (call_id, fault) = match fault {
                    PairingFault::Unanswered { call_id, kind, .. } => {
                        (call_id, NO_OUTPUT.with("call_type", kind.in_words()))
                    }
                    PairingFault::WrongKind {
                        call_id,
                        call,
                        output,
                        ..
                    } => {
                        let fault = WRONG_OUTPUT_KIND.with("call_type", call.in_words());
                        (call_id, fault.with("output_type", output.in_words()))
                    }
                    _ => continue,
                };
                if reported.insert((exchange.conversation, call_id)) {
                    let fault = fault.with("request", number).with("call", call_id.as_str());
                    findings.breach(view, fault, &[exchange.at]);
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};

    #[test]
    fn answered_calls_pass() {
        keeps("CALL-1", &interrupted_tool(), 1);
        let mut t = Tracer::new();
        is_idle("CALL-1", t.request(1, &[user("hi")]));
    }

    #[test]
    fn a_call_without_output_is_reported_once() {
        let mut t = Tracer::new();
        t.request(1, &[user("hi"), call("c1")]);
        t.request(2, &[user("hi"), call("c1"), user("again")]);
        let breach = breaks("CALL-1/no-output", &t);
        assert_eq!(
            breach.text(),
            "request 1 has no output for function call c1"
        );
        assert_eq!(breach.evidence, [1]);
    }

    #[test]
    fn an_output_of_the_wrong_kind_is_a_breach() {
        let output = json!({"type": "custom_tool_call_output", "call_id": "c1", "output": ""});
        let mut t = Tracer::new();
        t.request(1, &[call("c1"), output]);
        breaks("CALL-1/wrong-output-kind", &t);
    }

    #[test]
    fn a_rebuilt_history_counts_as_the_whole() {
        let mut t = Tracer::new();
        t.push(cutpoint_trace::Observation::Request {
            exchange: 1,
            conversation: 0,
            path: "/responses".into(),
            headers: std::collections::BTreeMap::new(),
            body: json!({"previous_response_id": "r", "input": [output("c1", "")]}).into(),
            history: Some(vec![call("c1"), output("c1", "")]),
        });
        keeps("CALL-1", &t, 1);
    }
}
