//! CALL-5: no call in the history that the model did not emit whole.

use cutpoint_protocol::field::{field, text};
use serde_json::Value;

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{Call, Exchange, Role, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct NoInventedCalls;

const PARTIAL_CALL: Clause = Clause {
    kind: "partial-call",
    text: "request {request} has call {call}, of which the model emitted only a part",
};
const UNKNOWN_CALL: Clause = Clause {
    kind: "unknown-call",
    text: "request {request} has call {call}, which the model never emitted",
};
const CHANGED_CALL: Clause = Clause {
    kind: "changed-call",
    text: "request {request} has call {call}, which the model emitted with another name or other \
           arguments",
};

impl Invariant for NoInventedCalls {
    fn id(&self) -> &'static str {
        "CALL-5"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Every call in a request's history was emitted whole by the model earlier, with the same \
         name and arguments."
    }

    fn source(&self) -> &'static str {
        "observed in released agents: a call made up from the half of its arguments that had arrived"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Calls in the first request of a session that was started before the run are taken \
             as given: their emission was not observed.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request carries a call, or correctly lacks one that was cut off in mid-arguments"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[PARTIAL_CALL, UNKNOWN_CALL, CHANGED_CALL]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut reported = HashSet::default();
        let given = given(view);
        for exchange in &view.exchanges {
            for role in &exchange.roles {
                let Role::Call(id, value) = role else {
                    continue;
                };
                // A call without an id is CALL-2's.
                if id.is_empty() || given.contains(id) {
                    continue;
                }
                findings.exercised += 1;
                if let Some(fault) = fault(view.call(id), exchange, value)
                    && reported.insert(*id)
                {
                    let fault = fault.with("request", exchange.number).with("call", *id);
                    let seen = view.call(id).and_then(|call| call.added);
                    findings.breach(view, fault, &[seen.unwrap_or(exchange.at), exchange.at]);
                }
            }
        }
        findings.exercised += left_out(view);
        findings
    }
}

/// The calls that a continued session brought into the run.
fn given<'a>(view: &View<'a>) -> HashSet<&'a str> {
    let first = view.exchanges.first().filter(|_| view.inherited);
    let roles = first.into_iter().flat_map(|exchange| &exchange.roles);
    roles
        .filter_map(|role| match role {
            Role::Call(id, _) => Some(*id),
            _ => None,
        })
        .collect()
}

fn fault(call: Option<&Call<'_>>, exchange: &Exchange<'_>, carried: &Value) -> Option<Clause> {
    let emitted = call.map_or(&[][..], |call| &call.emitted);
    let mut before = emitted
        .iter()
        .take_while(|emitted| emitted.at < exchange.at)
        .peekable();
    if before.peek().is_none() {
        let begun = call.is_some_and(|call| call.added.is_some_and(|added| added < exchange.at));
        return Some(match begun {
            true => PARTIAL_CALL,
            false => UNKNOWN_CALL,
        });
    }
    let same = before.any(|emitted| same_call(emitted.item, carried));
    (!same).then_some(CHANGED_CALL)
}

fn same_call(emitted: &Value, carried: &Value) -> bool {
    let same = |name: &str| field(emitted, name) == field(carried, name);
    match text(carried, "type") {
        Some("local_shell_call") => {
            // Agents leave the action's defaults out, or fill them in.
            let command = |call: &Value| call.get("action")?.get("command").cloned();
            same("type") && command(emitted) == command(carried)
        }
        Some("custom_tool_call") => {
            same("type") && same("name") && same_text("input", emitted, carried)
        }
        _ => same("type") && same("name") && same_text("arguments", emitted, carried),
    }
}

/// Whether a field is the same as text, or as the JSON that the text stands for.
fn same_text(name: &str, one: &Value, other: &Value) -> bool {
    let (one, other) = (field(one, name), field(other, name));
    if one == other {
        return true;
    }
    let json = |value: Option<&Value>| match value {
        Some(Value::String(text)) => serde_json::from_str::<Value>(text).ok(),
        other => other.cloned(),
    };
    match (json(one), json(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// How many calls were cut off in mid-arguments and are in no later request.
fn left_out(view: &View<'_>) -> usize {
    let carried: HashSet<&str> = view
        .exchanges
        .iter()
        .flat_map(|exchange| &exchange.roles)
        .filter_map(|role| match role {
            Role::Call(id, _) => Some(*id),
            _ => None,
        })
        .collect();
    let mut last_of = HashMap::default();
    for exchange in &view.exchanges {
        last_of.insert(exchange.conversation, exchange.at);
    }
    let followed = |call: &Call<'_>| {
        let last = call.conversation.and_then(|own| last_of.get(&own));
        last.zip(call.added)
            .is_some_and(|(last, added)| added < *last)
    };
    view.calls
        .iter()
        .filter(|call| call.emitted.is_empty() && followed(call))
        .filter(|call| !carried.contains(call.id))
        .count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, interrupted_tool, keeps, output, user};

    fn half_a_call(carried: bool) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.add(1, call("c1")).interrupted("t1").start("t2", "next");
        let mut history = vec![user("run")];
        if carried {
            history.extend([call("c1"), output("c1", "aborted")]);
        }
        history.push(user("next"));
        t.request(2, &history);
        t
    }

    #[test]
    fn a_call_as_it_was_emitted_passes() {
        keeps("CALL-5", &interrupted_tool(), 1);
        let mut t = Tracer::new();
        t.request(1, &[user("run")]).emit(1, call("c1"));
        let mut respelled = call("c1");
        respelled["arguments"] = json!("{ \"cmd\": \"x\" }");
        keeps("CALL-5", t.request(2, &[user("run"), respelled]), 1);
    }

    #[test]
    fn half_a_call_is_left_out() {
        keeps("CALL-5", &half_a_call(false), 1);
        let breach = breaks("CALL-5/partial-call", &half_a_call(true));
        assert!(breach.text().contains("only a part"));
    }

    #[test]
    fn an_unheard_of_or_altered_call_is_a_breach() {
        let mut t = Tracer::new();
        t.request(1, &[user("run"), call("c9")]);
        breaks("CALL-5/unknown-call", &t);
        let mut t = Tracer::new();
        t.request(1, &[user("run")]).emit(1, call("c1"));
        let mut altered = call("c1");
        altered["arguments"] = json!("{\"cmd\":\"y\"}");
        t.request(2, &[user("run"), altered]);
        breaks("CALL-5/changed-call", &t);
    }
}
