//! Ids as types of their own, so that a call's id never stands where a turn's is meant.
//!
//! The values are opaque strings. A copy is cheap: short ids are stored inline, long ones are shared.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

macro_rules! ids {
    ($($(#[$doc:meta])+ $name:ident)+) => {$(
        $(#[$doc])+
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        // Sound, because `SmolStr` hashes and compares as `str` does.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.as_str(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(SmolStr::new(id))
            }
        }

        impl From<&String> for $name {
            fn from(id: &String) -> Self {
                Self(SmolStr::new(id))
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(SmolStr::from(id))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                Self::from(id.0)
            }
        }

        ids!(@compare $name, str);
        ids!(@compare $name, &str);
        ids!(@compare $name, String);
    )+};
    (@compare $name:ident, $text:ty) => {
        impl PartialEq<$text> for $name {
            fn eq(&self, other: &$text) -> bool {
                let other: &str = other;
                self.as_str() == other
            }
        }

        impl PartialEq<$name> for $text {
            fn eq(&self, other: &$name) -> bool {
                other == self
            }
        }
    };
}

ids! {
    /// The id that pairs a tool call with its output.
    CallId
    /// The id of a turn.
    TurnId
    /// The id of a conversation, also called a session or thread. A sub-agent is known by its own.
    ConversationId
    /// The id that a client gives to an op it submits. Events name the submission that caused them.
    SubmissionId
    /// The id of a response of the model.
    ResponseId
    /// The id of an item of a response's output.
    ItemId
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn an_id_is_its_string_in_json() {
        for text in ["call_1", "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e", ""] {
            let json = serde_json::to_string(text).unwrap();
            let id: CallId = serde_json::from_str(&json).unwrap();
            assert_eq!(id, text);
            assert_eq!(serde_json::to_string(&id).unwrap(), json);
        }
        assert!(serde_json::from_str::<TurnId>("7").is_err());
    }

    #[test]
    fn ids_are_looked_up_by_text() {
        let map = HashMap::from([(TurnId::from("turn_1"), 1)]);
        assert_eq!(map.get("turn_1"), Some(&1));
        let set = HashSet::from([CallId::from("a".repeat(40))]);
        assert!(set.contains("a".repeat(40).as_str()));
    }

    #[test]
    fn ids_print_like_their_text() {
        let id = ItemId::from("msg_1");
        assert_eq!(
            (format!("{id:>6}"), format!("{id:?}")),
            (" msg_1".to_owned(), "\"msg_1\"".to_owned())
        );
    }
}
