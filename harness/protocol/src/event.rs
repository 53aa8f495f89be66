//! Events of a Responses API stream.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

pub use crate::event_table::EventKind;
use crate::field::{entry, field, text};
use crate::item::Item;
use crate::memo::{HeapSize, Memo, json_heap_bytes};

thread_local! {
    static READ: RefCell<Memo<StreamEvent>> = RefCell::default();
}

/// One event of a stream, kept verbatim.
///
/// A copy shares its JSON with the event that it is of. An event whose type or fields are unknown is as
/// good as any other: it is stored, passed on and written again with all it had. What the type requires
/// is asked for with [`StreamEvent::problems`].
#[derive(Debug, Clone)]
pub struct StreamEvent(Arc<EventData>);

#[derive(Debug)]
struct EventData {
    value: Arc<Value>,
    kind: Option<EventKind>,
    /// The item that the event carries, computed on first use.
    item: OnceLock<Option<Item>>,
}

impl PartialEq for StreamEvent {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.value == other.0.value
    }
}

impl HeapSize for StreamEvent {
    fn heap_bytes(&self) -> usize {
        // The item is a copy out of the event, with texts of its own.
        let item = field(&self.0.value, "item").map_or(0, json_heap_bytes);
        size_of::<EventData>() + size_of::<Value>() + json_heap_bytes(&self.0.value) + 3 * item
    }
}

/// Why the data of an SSE frame is not a stream event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The data is not JSON.
    #[error("the data is not valid JSON: {0}")]
    Json(String),
    /// The data is JSON, but no object.
    #[error("the data is {0}, not a JSON object")]
    NotAnObject(&'static str),
    /// The object has no `type`.
    #[error("the event has no string `type`")]
    NoType,
}

impl StreamEvent {
    /// Reads the data of an SSE frame.
    ///
    /// # Errors
    /// If it is not a JSON object with a string `type`.
    pub fn parse(data: &str) -> Result<Self, EventError> {
        READ.with_borrow_mut(|memo| {
            memo.read(data.as_bytes(), || {
                let value = serde_json::from_str(data);
                Self::from_value(value.map_err(|error| EventError::Json(error.to_string()))?)
            })
        })
    }

    /// Takes a JSON value as an event.
    ///
    /// # Errors
    /// If it is not a JSON object with a string `type`.
    pub fn from_value(value: Value) -> Result<Self, EventError> {
        match &value {
            Value::Object(map) => {
                let name = entry(map, "type").and_then(Value::as_str);
                let kind = EventKind::from_name(name.ok_or(EventError::NoType)?);
                let value = Arc::new(value);
                Ok(Self(Arc::new(EventData {
                    value,
                    kind,
                    item: OnceLock::new(),
                })))
            }
            other => Err(EventError::NotAnObject(json_type(other))),
        }
    }

    /// The event's type as it stands.
    pub fn type_name(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// The event's type, if it is one of the known ones.
    pub fn kind(&self) -> Option<EventKind> {
        self.0.kind
    }

    /// A string field.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.0.value, name)
    }

    /// An integer field.
    pub fn integer(&self, name: &str) -> Option<u64> {
        field(&self.0.value, name).and_then(Value::as_u64)
    }

    /// The id of the item that the event belongs to: `item_id`, or the id of the `item` it carries.
    pub fn item_id(&self) -> Option<&str> {
        self.text("item_id")
            .or_else(|| text(field(&self.0.value, "item")?, "id"))
    }

    /// The item that `output_item.added` and `output_item.done` carry.
    pub fn item(&self) -> Option<Item> {
        let read = || Item::from_value(field(&self.0.value, "item")?.clone()).ok();
        self.0.item.get_or_init(read).clone()
    }

    /// The id of the response that `response.created` and the terminal events carry.
    pub fn response_id(&self) -> Option<&str> {
        text(field(&self.0.value, "response")?, "id")
    }

    /// The response that `response.created` and the terminal events carry.
    pub fn response(&self) -> Option<&Value> {
        field(&self.0.value, "response")
    }

    /// Whether a stream ends with this event.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.kind(),
            Some(
                EventKind::Completed | EventKind::Incomplete | EventKind::Failed | EventKind::Error
            )
        )
    }

    /// Whether the event adds a piece to an item (text, arguments, input, reasoning, code, audio).
    pub fn is_delta(&self) -> bool {
        self.type_name().ends_with(".delta")
    }

    /// What the event's type requires and the event does not have, one sentence each.
    ///
    /// An unknown type has no requirements. The nested form of `error` events, which captured
    /// streams show and the SDKs' type does not, is as good as the flat one.
    pub fn problems(&self) -> Vec<String> {
        let Some(kind) = self.kind() else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if self.integer("sequence_number").is_none() {
            problems.push(format!("`{}` lacks `sequence_number`", kind.as_str()));
        }
        if kind == EventKind::Error && field(&self.0.value, "error").is_some_and(Value::is_object) {
            return problems;
        }
        for known in kind.fields() {
            match field(&self.0.value, known.name) {
                None | Some(Value::Null) if known.optional => {}
                None => problems.push(format!("`{}` lacks `{}`", kind.as_str(), known.name)),
                Some(value) if known.kind.admits(value) => {}
                Some(_) => problems.push(format!(
                    "`{}` of `{}` is not {}",
                    known.name,
                    kind.as_str(),
                    known.kind.as_str()
                )),
            }
        }
        problems
    }

    /// The event as a JSON object.
    pub fn as_value(&self) -> &Arc<Value> {
        &self.0.value
    }

    /// The event as JSON text on one line.
    pub fn to_json(&self) -> String {
        self.0.value.to_string()
    }
}

/// The name of a JSON value's type, for messages.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_event_is_kept_whole() {
        let data = r#"{"type":"response.hologram.delta","z":1,"a":{"b":[null,2.50]}}"#;
        let event = StreamEvent::parse(data).unwrap();
        assert_eq!(event.kind(), None);
        assert!(event.problems().is_empty());
        assert_eq!(
            event.to_json(),
            r#"{"type":"response.hologram.delta","z":1,"a":{"b":[null,2.5]}}"#
        );
    }

    #[test]
    fn missing_and_mistyped_fields_are_named() {
        let event = StreamEvent::from_value(json!({
            "type": "response.output_text.delta", "sequence_number": 3, "output_index": "0",
            "content_index": 0, "item_id": "msg_1", "logprobs": [],
        }))
        .unwrap();
        assert_eq!(
            event.problems(),
            [
                "`response.output_text.delta` lacks `delta`",
                "`output_index` of `response.output_text.delta` is not an integer"
            ]
        );
    }

    #[test]
    fn both_shapes_of_an_error_event_are_complete() {
        let nested =
            json!({"type": "error", "sequence_number": 2, "error": {"code": "x", "message": "m"}});
        let flat = json!({"type": "error", "sequence_number": 2, "code": null, "message": "m", "param": null});
        for value in [nested, flat] {
            assert_eq!(
                StreamEvent::from_value(value).unwrap().problems(),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        assert!(matches!(StreamEvent::parse("{"), Err(EventError::Json(_))));
        assert_eq!(
            StreamEvent::parse("[1]"),
            Err(EventError::NotAnObject("an array"))
        );
        assert_eq!(StreamEvent::parse(r#"{"type":1}"#), Err(EventError::NoType));
    }

    #[test]
    fn names_and_kinds_agree() {
        assert_eq!(EventKind::ALL.len(), 59);
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_name(kind.as_str()), Some(*kind));
        }
    }
}
