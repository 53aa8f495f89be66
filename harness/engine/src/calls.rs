//! When a call's tool begins and ends, as far as the agent tells.

use cutpoint_protocol::ids::CallId;
use cutpoint_trace::{AgentEvent, Observation};
use serde_json::Value;

use crate::trace_queries::event_of;

/// With this the ids begin under which Codex tells of the commands that a script of the model's runs. It
/// does not tell whose they are.
const NESTED: &str = "exec-";

/// Finds the entry that says that this call's tool began, be it a sub-agent's. A script has begun when the
/// first command behind it has.
pub fn begins(call: &str) -> impl FnMut(&Observation) -> Option<()> {
    finds(call, |event| match event {
        AgentEvent::CallBegin { call_id, .. } => Some(call_id),
        _ => None,
    })
}

/// Finds the entry that says that this call's tool ended. Of a script it is the first command's end: that
/// of the script itself is not told.
pub fn ends(call: &str) -> impl FnMut(&Observation) -> Option<()> {
    finds(call, |event| match event {
        AgentEvent::CallEnd { call_id, .. } => Some(call_id),
        _ => None,
    })
}

fn finds(
    call: &str,
    told_of: impl Fn(&AgentEvent) -> Option<&CallId>,
) -> impl FnMut(&Observation) -> Option<()> {
    let mut is_script = false;
    move |what| {
        is_script |= sends_script(what, call);
        let id = told_of(event_of(what)?)?;
        (id == call || is_script && id.starts_with(NESTED)).then_some(())
    }
}

/// Whether the model has sent the call whole, and it is of the tool that runs scripts.
fn sends_script(what: &Observation, call: &str) -> bool {
    let Observation::Sent { data, .. } = what else {
        return false;
    };
    let is = |value: &Value, name: &str, wanted: &str| value[name] == *wanted;
    let item = &data["item"];
    is(data, "type", "response.output_item.done")
        && is(item, "type", "custom_tool_call")
        && is(item, "name", "exec")
        && is(item, "call_id", call)
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

    fn sent(kind: &str) -> Observation {
        let item = json!({"type": kind, "name": "exec", "call_id": "call_1"});
        Observation::Sent {
            exchange: 1,
            index: 1,
            data: Arc::new(json!({"type": "response.output_item.done", "item": item})),
        }
    }

    #[test]
    fn a_script_begins_with_its_first_command() {
        let mut wanted = begins("call_1");
        assert_eq!(wanted(&begun("exec-0")), None, "of an earlier script");
        assert_eq!(wanted(&sent("custom_tool_call")), None);
        assert_eq!(wanted(&begun("call_2")), None);
        assert_eq!(wanted(&begun("exec-1")), Some(()));
    }

    #[test]
    fn any_other_call_begins_under_its_own_id() {
        let mut wanted = begins("call_1");
        assert_eq!(wanted(&sent("function_call")), None);
        assert_eq!(wanted(&begun("exec-1")), None);
        assert_eq!(wanted(&begun("call_1")), Some(()));
        assert_eq!(ends("call_1")(&begun("call_1")), None);
    }
}
