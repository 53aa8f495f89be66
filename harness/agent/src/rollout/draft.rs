//! Rollout lines before the writer gives them their ordinal and time.

use cutpoint_protocol::Item;
use cutpoint_protocol::session::AbortReason;
use serde_json::{Map, Value, json};

/// A line to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) payload: Map<String, Value>,
}

impl Draft {
    fn new(kind: &'static str, payload: Value) -> Self {
        let payload = match payload {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { kind, payload }
    }

    pub(crate) fn session_meta(id: &str, cwd: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let payload = json!({
            "id": id, "cwd": cwd, "originator": "cutpoint-agent", "cli_version": version,
        });
        Self::new("session_meta", payload)
    }

    pub(crate) fn turn_context(turn_id: &str, cwd: &str, model: &str) -> Self {
        let payload = json!({"turn_id": turn_id, "cwd": cwd, "model": model});
        Self::new("turn_context", payload)
    }

    pub(crate) fn item(item: &Item) -> Self {
        Self::new("response_item", item.to_value())
    }

    pub(crate) fn turn_started(turn_id: &str) -> Self {
        Self::new(
            "event_msg",
            json!({"type": "turn_started", "turn_id": turn_id}),
        )
    }

    /// A user's message: as an item for the model, and as an event for people.
    pub(crate) fn user_input(turn_id: &str, item: &Item) -> [Self; 2] {
        [
            Self::item(item),
            Self::user_message(turn_id, &item.all_text()),
        ]
    }

    fn user_message(turn_id: &str, message: &str) -> Self {
        let payload = json!({"type": "user_message", "turn_id": turn_id, "message": message});
        Self::new("event_msg", payload)
    }

    pub(crate) fn agent_message(turn_id: &str, message: &str) -> Self {
        let payload = json!({"type": "agent_message", "turn_id": turn_id, "message": message});
        Self::new("event_msg", payload)
    }

    pub(crate) fn token_count(turn_id: &str, input_tokens: u64, output_tokens: u64) -> Self {
        let payload = json!({
            "type": "token_count", "turn_id": turn_id,
            "input_tokens": input_tokens, "output_tokens": output_tokens,
        });
        Self::new("event_msg", payload)
    }

    pub(crate) fn turn_complete(turn_id: &str, last_agent_message: Option<&str>) -> Self {
        let payload = json!({
            "type": "turn_complete", "turn_id": turn_id, "last_agent_message": last_agent_message,
        });
        Self::new("event_msg", payload)
    }

    pub(crate) fn turn_aborted(turn_id: &str, reason: AbortReason) -> Self {
        let payload =
            json!({"type": "turn_aborted", "turn_id": turn_id, "reason": reason.as_str()});
        Self::new("event_msg", payload)
    }

    pub(crate) fn turn_failed(turn_id: &str, message: &str) -> Self {
        let payload = json!({"type": "turn_failed", "turn_id": turn_id, "message": message});
        Self::new("event_msg", payload)
    }
}
