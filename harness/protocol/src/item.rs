//! Items of a response's output and of a request's input.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::event::{EventError, json_type};
use crate::field::entry;
pub use crate::item_table::ItemKind;
use crate::memo::{HeapSize, Memo, map_heap_bytes};

/// One item, kept verbatim. Copies share it: a history is copied into every request, and written there
/// and into the rollout.
#[derive(Debug, Clone)]
pub struct Item(Arc<ItemData>);

#[derive(Debug)]
struct ItemData {
    map: Map<String, Value>,
    kind: Option<ItemKind>,
    /// The item as JSON text, computed on first use.
    json: OnceLock<Option<Box<RawValue>>>,
    /// All its text, computed on first use.
    text: OnceLock<String>,
}

thread_local! {
    /// User messages by their text: thousands of runs of one scenario say the same.
    static SAID: RefCell<Memo<Item>> = RefCell::default();
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.map == other.0.map
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = self.0.json.get_or_init(|| to_raw_value(&self.0.map).ok());
        match json {
            Some(json) => json.serialize(serializer),
            None => self.0.map.serialize(serializer),
        }
    }
}

impl HeapSize for Item {
    fn heap_bytes(&self) -> usize {
        // Its JSON and its text are no longer than its fields, names and strings included.
        size_of::<ItemData>() + 3 * map_heap_bytes(&self.0.map)
    }
}

/// The kinds of call that the agent itself must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// `function_call`, answered by `function_call_output`.
    Function,
    /// `custom_tool_call`, answered by `custom_tool_call_output`.
    Custom,
    /// `local_shell_call`, answered by `local_shell_call_output` or `function_call_output`.
    LocalShell,
}

impl CallKind {
    /// How the API's error messages name it.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Function => "function call",
            Self::Custom => "custom tool call",
            Self::LocalShell => "local shell call",
        }
    }
}

/// The kinds of item that answer a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// `function_call_output`
    Function,
    /// `custom_tool_call_output`
    Custom,
    /// `local_shell_call_output`
    LocalShell,
}

impl ItemKind {
    /// What kind of call such an item is, if the agent itself must answer it.
    pub const fn call_kind(self) -> Option<CallKind> {
        match self {
            Self::FunctionCall => Some(CallKind::Function),
            Self::CustomToolCall => Some(CallKind::Custom),
            Self::LocalShellCall => Some(CallKind::LocalShell),
            _ => None,
        }
    }

    /// What kind of answer such an item is, if it answers a call.
    pub const fn output_kind(self) -> Option<OutputKind> {
        match self {
            Self::FunctionCallOutput => Some(OutputKind::Function),
            Self::CustomToolCallOutput => Some(OutputKind::Custom),
            Self::LocalShellCallOutput => Some(OutputKind::LocalShell),
            _ => None,
        }
    }
}

impl OutputKind {
    /// Whether an output of this kind answers a call of that kind.
    ///
    /// A local shell call has an output item of its own, but clients (Codex among them) answer it
    /// with a function call output, which the API takes too.
    pub const fn answers(self, call: CallKind) -> bool {
        matches!(
            (self, call),
            (Self::Function, CallKind::Function | CallKind::LocalShell)
                | (Self::Custom, CallKind::Custom)
                | (Self::LocalShell, CallKind::LocalShell)
        )
    }

    /// How the API's error messages name it.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Function => "function call output",
            Self::Custom => "custom tool call output",
            Self::LocalShell => "local shell call output",
        }
    }
}

impl Item {
    /// Takes a JSON value as an item. A message may leave its `type` out, as the API allows.
    ///
    /// # Errors
    /// If it is not a JSON object, or has neither `type` nor `role`.
    pub fn from_value(value: Value) -> Result<Self, EventError> {
        match value {
            Value::Object(map)
                if entry(&map, "type")
                    .map_or_else(|| entry(&map, "role").is_some(), Value::is_string) =>
            {
                Ok(Self::of(map))
            }
            Value::Object(_) => Err(EventError::NoType),
            other => Err(EventError::NotAnObject(json_type(&other))),
        }
    }

    fn of(map: Map<String, Value>) -> Self {
        // A message may leave its type out.
        let name = entry(&map, "type").and_then(Value::as_str);
        Self(Arc::new(ItemData {
            kind: ItemKind::from_name(name.unwrap_or("message")),
            map,
            json: OnceLock::new(),
            text: OnceLock::new(),
        }))
    }

    /// A user message of one text, as a client sends it.
    pub fn user_text(text: &str) -> Self {
        let message = || {
            let content = json!([{"type": "input_text", "text": text}]);
            let message = json!({"type": "message", "role": "user", "content": content});
            Ok(Self::of(object(message)))
        };
        let said: Result<_, Infallible> =
            SAID.with_borrow_mut(|said| said.read(text.as_bytes(), message));
        match said {
            Ok(item) => item,
        }
    }

    /// The answer to a call of that kind.
    pub fn output(kind: CallKind, call_id: &str, output: &str) -> Self {
        let name = match kind {
            CallKind::Custom => "custom_tool_call_output",
            CallKind::Function | CallKind::LocalShell => "function_call_output",
        };
        Self::of(object(
            json!({"type": name, "call_id": call_id, "output": output}),
        ))
    }

    /// The item's type as it stands; `message` where a message leaves it out.
    pub fn type_name(&self) -> &str {
        self.text("type").unwrap_or("message")
    }

    /// The item's type, if it is one of the known ones.
    pub fn kind(&self) -> Option<ItemKind> {
        self.0.kind
    }

    /// A string field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Any field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        entry(&self.0.map, name)
    }

    /// The item's own id.
    pub fn id(&self) -> Option<&str> {
        self.text("id")
    }

    /// A message's role.
    pub fn role(&self) -> Option<&str> {
        self.text("role")
    }

    /// What kind of call the item is, if the agent must answer it.
    pub fn call_kind(&self) -> Option<CallKind> {
        self.kind()?.call_kind()
    }

    /// What kind of answer the item is, if it answers a call.
    pub fn output_kind(&self) -> Option<OutputKind> {
        self.kind()?.output_kind()
    }

    /// The id that pairs a call with its output.
    ///
    /// A local shell output has only `id` in the API's schema, which is the id of its call.
    pub fn call_id(&self) -> Option<&str> {
        self.text("call_id").or_else(|| match self.output_kind() {
            Some(OutputKind::LocalShell) => self.id(),
            _ => None,
        })
    }

    /// All the text a reader of the item sees: message parts, an output, arguments, a summary.
    pub fn all_text(&self) -> &str {
        self.0.text.get_or_init(|| all_text(&self.0.map))
    }

    /// What an output item of this type must have and this one does not, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let Some(kind) = self.kind() else {
            return Vec::new();
        };
        kind.required()
            .iter()
            .filter(|name| !self.0.map.contains_key(**name))
            .map(|name| format!("item `{}` lacks `{name}`", kind.as_str()))
            .collect()
    }

    /// The item as a JSON object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0.map
    }

    /// The item as a JSON value.
    pub fn into_value(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Value::Object(inner.map),
            Err(shared) => Value::Object(shared.map.clone()),
        }
    }

    /// The item as a JSON value, copied.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.map.clone())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// All the text a reader of an item sees, as in [`Item::all_text`].
pub fn all_text(item: &Map<String, Value>) -> String {
    let mut text = String::new();
    for name in [
        "content",
        "summary",
        "output",
        "arguments",
        "input",
        "action",
    ] {
        if let Some(value) = entry(item, name) {
            collect_text(value, &mut text);
        }
    }
    text
}

/// Gathers every string below `text`-like keys; plain strings count as text themselves.
fn collect_text(value: &Value, into: &mut String) {
    match value {
        Value::String(text) => {
            if !into.is_empty() {
                into.push('\n');
            }
            into.push_str(text);
        }
        Value::Array(values) => values.iter().for_each(|value| collect_text(value, into)),
        Value::Object(map) => {
            for (name, value) in map {
                if !matches!(name.as_str(), "type" | "id" | "annotations" | "logprobs") {
                    collect_text(value, into);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_leave_its_type_out() {
        let item = Item::from_value(json!({"role": "user", "content": "hi"})).unwrap();
        assert_eq!(item.kind(), Some(ItemKind::Message));
        assert_eq!(item.all_text(), "hi");
    }

    #[test]
    fn an_unknown_item_is_kept() {
        let value = json!({"type": "teleport_call", "call_id": "c", "where": ["x"]});
        let item = Item::from_value(value.clone()).unwrap();
        assert_eq!((item.kind(), item.call_kind()), (None, None));
        assert_eq!(item.into_value(), value);
    }

    #[test]
    fn outputs_answer_calls_of_their_kind() {
        assert!(OutputKind::Function.answers(CallKind::LocalShell));
        assert!(!OutputKind::Function.answers(CallKind::Custom));
        assert!(!OutputKind::Custom.answers(CallKind::Function));
        let item =
            Item::from_value(json!({"type": "local_shell_call_output", "id": "c1", "output": ""}))
                .unwrap();
        assert_eq!(item.call_id(), Some("c1"));
    }

    #[test]
    fn names_and_kinds_agree() {
        for kind in ItemKind::ALL {
            assert_eq!(ItemKind::from_name(kind.as_str()), Some(*kind));
        }
    }
}
