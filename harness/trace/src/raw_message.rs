//! Messages as they were received.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A message's JSON as it was received, or nothing. Few messages of a trace are ever looked into, so it
/// is kept as text.
#[derive(Debug, Clone, Default)]
pub struct RawMessage(Option<Box<RawValue>>);

impl RawMessage {
    /// The JSON of a message.
    pub fn of(message: &impl Serialize) -> Self {
        Self(serde_json::value::to_raw_value(message).ok())
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The text; empty where there is nothing.
    pub fn text(&self) -> &str {
        self.0.as_ref().map_or("", |raw| raw.get())
    }

    /// The message, read; null where there is nothing.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_default()
    }
}

impl PartialEq for RawMessage {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl std::hash::Hash for RawMessage {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl Serialize for RawMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An entry is read into a buffer first, and no raw text comes out of that.
        let value = Value::deserialize(deserializer)?;
        Ok(if value.is_null() {
            Self::default()
        } else {
            Self::of(&value)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{AgentEvent, Entry, Observation};

    use super::*;

    #[test]
    fn a_message_is_stored_as_json_and_read_again() {
        let message = serde_json::json!({"id": "1", "msg": {"b": [1, null], "a": "\u{1f600}"}});
        let entry = |raw| Entry {
            seq: 0,
            at_ns: 0,
            observation: Observation::Event {
                event: AgentEvent::ShutdownComplete,
                raw,
            },
        };
        for raw in [RawMessage::of(&message), RawMessage::default()] {
            let stored = serde_json::to_string(&entry(raw.clone())).unwrap();
            assert_eq!(stored.contains("raw"), !raw.is_empty());
            let read: Entry = serde_json::from_str(&stored).unwrap();
            assert_eq!(read, entry(raw));
        }
        assert_eq!(RawMessage::of(&message).value(), message);
        assert_ne!(RawMessage::of(&message), RawMessage::default());
    }
}
