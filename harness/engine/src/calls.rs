//! When a call's tool begins and ends, as far as the agent reports it.

use std::collections::HashSet;

use cutpoint_protocol::CallId;
use cutpoint_trace::{AgentEvent, Observation};
use serde_json::Value;

use crate::trace_queries::event_of;

/// Finds the entry that says that this call's tool began, even a sub-agent's. A script has begun when the
/// first command after it has.
pub fn begins(call: &str) -> impl FnMut(&Observation) -> Option<()> {
    finds(call, |event| match event {
        AgentEvent::CallBegin { call_id, .. } => Some(call_id),
        _ => None,
    })
}

/// Finds the entry that says that this call's tool ended. For a script it is the first command's end: the
/// end of the script itself is not reported.
pub fn ends(call: &str) -> impl FnMut(&Observation) -> Option<()> {
    finds(call, |event| match event {
        AgentEvent::CallEnd { call_id, .. } => Some(call_id),
        _ => None,
    })
}

fn finds(
    call: &str,
    reported: impl Fn(&AgentEvent) -> Option<&CallId>,
) -> impl FnMut(&Observation) -> Option<()> {
    // The commands that a script runs have ids that the model never sent, and are not attributed to
    // their script.
    let mut sent = HashSet::<CallId>::new();
    let mut is_script = false;
    move |observation| {
        if let Some(item) = sent_call(observation) {
            let id = item["call_id"].as_str().unwrap_or_default();
            is_script |= id == call && item["type"] == "custom_tool_call" && item["name"] == "exec";
            sent.insert(id.into());
        }
        let id = reported(event_of(observation)?)?;
        (id == call || is_script && !sent.contains(id.as_str())).then_some(())
    }
}

/// A call that the model has sent whole.
fn sent_call(observation: &Observation) -> Option<&Value> {
    let Observation::Sent { data, .. } = observation else {
        return None;
    };
    let item = data
        .get("item")
        .filter(|item| item.get("call_id").is_some());
    item.filter(|_| data["type"] == "response.output_item.done")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cutpoint_trace::RawMessage;
    use serde_json::json;

    use super::*;

    fn begun(id: &str) -> Observation {
        let event = AgentEvent::CallBegin {
            turn_id: None,
            call_id: id.into(),
            command: String::new(),
            pid: None,
        };
        let raw = RawMessage::default();
        Observation::Event { event, raw }
    }

    fn sent(id: &str, kind: &str) -> Observation {
        let item = json!({"type": kind, "name": "exec", "call_id": id});
        Observation::Sent {
            exchange: 1,
            index: 1,
            data: Arc::new(json!({"type": "response.output_item.done", "item": item})),
        }
    }

    #[test]
    fn a_script_begins_with_its_first_command() {
        let mut wanted = begins("call_1");
        assert_eq!(wanted(&begun("script-0")), None, "of an earlier script");
        assert_eq!(wanted(&sent("call_1", "custom_tool_call")), None);
        assert_eq!(wanted(&sent("call_2", "function_call")), None);
        assert_eq!(wanted(&begun("call_2")), None);
        assert_eq!(wanted(&begun("script-1")), Some(()));
    }

    #[test]
    fn any_other_call_begins_under_its_own_id() {
        let mut wanted = begins("call_1");
        assert_eq!(wanted(&sent("call_1", "function_call")), None);
        assert_eq!(wanted(&begun("script-1")), None);
        assert_eq!(wanted(&begun("call_1")), Some(()));
        assert_eq!(ends("call_1")(&begun("call_1")), None);
    }
}
