//! Rollout lines before the writer gives them their ordinal and time.

use cutpoint_protocol::Item;
use cutpoint_protocol::session::AbortReason;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A line to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) payload: Payload,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Payload {
    /// An item, shared with the history.
    Item(Item),
    /// Anything else.
    Fields(Map<String, Value>),
}

impl Draft {
    fn new(kind: &'static str, payload: Value) -> Self {
        let payload = match payload {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let payload = Payload::Fields(payload);
        Self { kind, payload }
    }

    pub(crate) fn session_meta(id: &str, cwd: &str, forked_from: Option<&str>) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut payload = json!({
            "id": id, "cwd": cwd, "originator": "cutpoint-agent", "cli_version": version,
        });
        if let Some(session) = forked_from {
            payload["forked_from"] = json!(session);
        }
        Self::new("session_meta", payload)
    }

    pub(crate) fn turn_context(turn_id: &str, cwd: &str, model: &str) -> Self {
        let payload = json!({"turn_id": turn_id, "cwd": cwd, "model": model});
        Self::new("turn_context", payload)
    }

    pub(crate) fn item(item: &Item) -> Self {
        Self {
            kind: "response_item",
            payload: Payload::Item(item.clone()),
        }
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

    /// The message that opens a turn: a later rollback finds the turn by it.
    pub(crate) fn opening(turn_id: &str, item: &Item) -> [Self; 2] {
        let [item, mut message] = Self::user_input(turn_id, item);
        if let Payload::Fields(fields) = &mut message.payload {
            fields.insert("opens_turn".to_owned(), Value::Bool(true));
        }
        [item, message]
    }

    pub(crate) fn compacted(summary: &str, items: &[Item]) -> Self {
        let items: Vec<Value> = items.iter().map(Item::to_value).collect();
        let payload = json!({"message": summary, "replacement_history": items});
        Self::new("compacted", payload)
    }

    pub(crate) fn rolled_back(turns: usize) -> Self {
        let payload = json!({"type": "thread_rolled_back", "num_turns": turns});
        Self::new("event_msg", payload)
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
