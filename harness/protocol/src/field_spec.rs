//! How the tables of event types describe a field.

use serde_json::Value;

/// The JSON type that a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// An array.
    List,
    /// An object.
    Object,
}

impl JsonType {
    /// Whether `value` is of this type.
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_u64() || value.is_i64(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    /// The type's name for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::List => "an array",
            Self::Object => "an object",
        }
    }
}

/// One field of an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSpec {
    /// The field's name.
    pub name: &'static str,
    /// Its JSON type.
    pub kind: JsonType,
    /// Whether it may be absent or null.
    pub optional: bool,
}
