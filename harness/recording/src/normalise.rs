//! The normal form of a history: what makes two requests the same point of the same conversation.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use cutpoint_protocol::marker;
use cutpoint_protocol::{Item, ItemKind};
use serde_json::Value;

use crate::mask::mask;
use crate::redact::kinds_only;

/// Blocks that agents put into user messages to describe the machine and the project. They say
/// nothing of the conversation and differ from machine to machine.
const BLOCKS: [(&str, &str); 7] = [
    ("<environment_context>", "</environment_context>"),
    ("<environment_details>", "</environment_details>"),
    ("<user_instructions>", "</user_instructions>"),
    ("<INSTRUCTIONS>", "</INSTRUCTIONS>"),
    ("<permissions instructions>", "</permissions instructions>"),
    ("<system-reminder>", "</system-reminder>"),
    ("<skills_instructions>", "</skills_instructions>"),
];

/// The heading before a project's instructions, which names a folder of the machine.
const INSTRUCTIONS_HEADING: &str = "# AGENTS.md instructions for ";

/// Fields of other items that no two runs share.
const VOLATILE_FIELDS: [&str; 5] = ["id", "type", "status", "encrypted_content", "created_by"];

/// One step of a conversation, without what differs between two runs of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NormalItem {
    /// A message of the user or the assistant.
    Message {
        /// The role.
        role: String,
        /// The text, masked.
        text: String,
    },
    /// The note that a turn was aborted, whatever its words.
    Marker,
    /// A call with what answers it, wherever the answer stands.
    Call {
        /// The call's number in the history, counted from 1; it stands in for the call's id.
        ordinal: usize,
        /// The item's type.
        kind: String,
        /// The tool's name, where the call has one.
        name: String,
        /// The arguments; JSON with sorted keys where it is JSON.
        input: String,
        /// The outputs; a sound history has one.
        outputs: Vec<String>,
    },
    /// An output without a call before it.
    OrphanOutput {
        /// The text, masked.
        text: String,
    },
    /// Any other item.
    Other {
        /// Its type.
        kind: String,
        /// Its fields as JSON, masked.
        text: String,
    },
}

/// The normal form of a whole history.
///
/// Left out are system and developer messages, reasoning, and blocks that describe the machine. Call
/// ids become ordinals, and outputs stand with their calls, so that tools that ran side by side may
/// have finished in any order.
pub fn normalise(history: &[Item]) -> Vec<NormalItem> {
    normalise_with(history, SecretHandling::Kept)
}

/// What a normal form does with secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretHandling {
    /// They stay as they are.
    Kept,
    /// They and the placeholders of redacted ones become the names of their kinds.
    Kinds,
}

impl SecretHandling {
    /// How secrets compare where one side was redacted, or none was.
    pub(crate) fn of(redacted: bool) -> Self {
        if redacted { Self::Kinds } else { Self::Kept }
    }
}

/// What is taken out of every text of a history.
struct Masking<'a> {
    /// Call id → its number.
    ordinals: HashMap<&'a str, usize>,
    secrets: SecretHandling,
}

impl Masking<'_> {
    fn apply(&self, text: &str) -> String {
        match self.secrets {
            SecretHandling::Kept => mask(text, &self.ordinals),
            SecretHandling::Kinds => mask(&kinds_only(text), &self.ordinals),
        }
    }
}

/// The normal form of a history in which secrets are treated so.
pub(crate) fn normalise_with(history: &[Item], secrets: SecretHandling) -> Vec<NormalItem> {
    let mut ordinals: HashMap<&str, usize> = HashMap::new();
    let calls = history.iter().filter(|item| item.call_kind().is_some());
    for (at, call) in calls.enumerate() {
        // The first of two calls with one id keeps it.
        let id = call.call_id().unwrap_or_default();
        ordinals.entry(id).or_insert(at + 1);
    }
    let masking = Masking { ordinals, secrets };
    let mut normal = Vec::with_capacity(history.len());
    // Call id → position in `normal`.
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut ordinal = 0;
    for item in history {
        if item.call_kind().is_some() {
            ordinal += 1;
            places
                .entry(item.call_id().unwrap_or_default())
                .or_insert(normal.len());
            normal.push(call(item, ordinal, &masking));
        } else if item.output_kind().is_some() {
            let text = masking.apply(&value_text(item.get("output")));
            let place = places.get(item.call_id().unwrap_or_default());
            match place.and_then(|place| normal.get_mut(*place)) {
                Some(NormalItem::Call { outputs, .. }) => outputs.push(text),
                _ => normal.push(NormalItem::OrphanOutput { text }),
            }
        } else {
            normal.extend(other(item, &masking));
        }
    }
    normal
}

fn call(item: &Item, ordinal: usize, masking: &Masking<'_>) -> NormalItem {
    let input = ["arguments", "input", "action"]
        .iter()
        .find_map(|name| item.get(name));
    let input = match input {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_or_else(|_| text.clone(), |value| sorted(&value))
        }
        Some(value) => sorted(value),
        None => String::new(),
    };
    NormalItem::Call {
        ordinal,
        kind: item.type_name().to_owned(),
        name: item.text("name").unwrap_or_default().to_owned(),
        input: masking.apply(&input),
        outputs: Vec::new(),
    }
}

fn other(item: &Item, masking: &Masking<'_>) -> Option<NormalItem> {
    if marker::is_marker(item) {
        return Some(NormalItem::Marker);
    }
    match item.kind() {
        Some(ItemKind::Message) => {
            let role = item.role().unwrap_or_default();
            if matches!(role, "system" | "developer") {
                return None;
            }
            let text = message_text(item, masking);
            (!text.is_empty()).then(|| NormalItem::Message {
                role: role.to_owned(),
                text,
            })
        }
        Some(ItemKind::Reasoning | ItemKind::AdditionalTools) => None,
        _ => {
            let mut map = item.as_map().clone();
            map.retain(|name, _| !VOLATILE_FIELDS.contains(&name.as_str()));
            let text = if map.is_empty() {
                String::new()
            } else {
                sorted(&Value::Object(map))
            };
            Some(NormalItem::Other {
                kind: item.type_name().to_owned(),
                text: masking.apply(&text),
            })
        }
    }
}

/// A message's parts that are not about the machine, joined by line breaks.
fn message_text(item: &Item, masking: &Masking<'_>) -> String {
    let parts = message_parts(item).into_iter();
    let parts: Vec<String> = parts
        .map(|part| masking.apply(&part))
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("\n")
}

/// What a message's parts say that is not about the machine.
pub(crate) fn message_parts(item: &Item) -> Vec<String> {
    let parts = match item.get("content") {
        Some(Value::Array(parts)) => parts.iter().map(|part| value_text(Some(part))).collect(),
        content => vec![value_text(content)],
    };
    parts.iter().map(|part| without_blocks(part)).collect()
}

/// The text of a content part, an output or a list of them; other JSON as it is, keys sorted.
fn value_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            let texts: Vec<_> = values.iter().map(|value| value_text(Some(value))).collect();
            texts.join("\n")
        }
        Some(value @ Value::Object(map)) => match map.get("text").or_else(|| map.get("refusal")) {
            Some(Value::String(text)) => text.clone(),
            _ => sorted(value),
        },
        Some(value) => value.to_string(),
    }
}

/// JSON on one line with sorted keys, so that an agent that writes a call anew writes the same.
fn sorted(value: &Value) -> String {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let sorted: BTreeMap<_, _> = map
                    .iter()
                    .map(|(name, value)| (name, sort(value)))
                    .collect();
                Value::Object(
                    sorted
                        .into_iter()
                        .map(|(name, value)| (name.clone(), value))
                        .collect(),
                )
            }
            Value::Array(values) => Value::Array(values.iter().map(sort).collect()),
            other => other.clone(),
        }
    }
    sort(value).to_string()
}

/// The text without blocks about the machine and without space around it.
fn without_blocks(text: &str) -> String {
    let mut text = text.to_owned();
    for (open, close) in BLOCKS {
        let mut from = 0;
        while let Some(start) = text[from..].find(open).map(|at| from + at) {
            let Some(length) = text[start..].find(close) else {
                break;
            };
            text.replace_range(start..start + length + close.len(), "");
            from = start;
        }
    }
    let trimmed = text.trim();
    match trimmed.strip_prefix(INSTRUCTIONS_HEADING) {
        Some(rest) => rest
            .split_once('\n')
            .map_or("", |(_, rest)| rest)
            .trim()
            .to_owned(),
        None => trimmed.to_owned(),
    }
}

impl fmt::Display for NormalItem {
    /// A heading with the first line of the text; further lines are indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { role, text } => indented(f, &format!("{role}: "), text),
            Self::Marker => f.write_str("user: <turn_aborted>"),
            Self::Call {
                ordinal,
                kind,
                name,
                input,
                outputs,
            } => {
                let name = if name.is_empty() { kind } else { name };
                indented(f, &format!("call {ordinal}: {name} "), input)?;
                for output in outputs {
                    f.write_str("\n")?;
                    indented(f, &format!("output {ordinal}: "), output)?;
                }
                if outputs.is_empty() {
                    write!(f, "\noutput {ordinal} is missing")?;
                }
                Ok(())
            }
            Self::OrphanOutput { text } => indented(f, "output without a call: ", text),
            Self::Other { kind, text } => indented(f, &format!("{kind}: "), text),
        }
    }
}

fn indented(f: &mut fmt::Formatter<'_>, heading: &str, text: &str) -> fmt::Result {
    f.write_str(heading)?;
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            f.write_str("\n    ")?;
        }
        f.write_str(line)?;
    }
    Ok(())
}
