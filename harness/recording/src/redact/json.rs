//! JSON text taken apart far enough that single strings can be replaced and all else stays as it is.

use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::Value;

/// A string of a JSON text.
pub(super) struct StringLiteral {
    /// Where it stands, quotes included.
    pub(super) range: Range<usize>,
    /// What it says.
    pub(super) text: String,
    /// Whether it is a member's name.
    pub(super) is_name: bool,
    /// The name of the member whose value it is.
    pub(super) name: Option<String>,
    /// In how many objects and arrays it stands.
    pub(super) depth: usize,
}

/// What a JSON text is made of.
#[derive(Default)]
pub(super) struct JsonStrings {
    /// Its strings, in order.
    pub(super) strings: Vec<StringLiteral>,
    /// Arrays that are members of that name, each whole.
    pub(super) logprobs: Vec<Range<usize>>,
}

struct OpenContainer {
    is_object: bool,
    awaits_name: bool,
    name: Option<String>,
    /// Where an array of log probabilities began.
    logprobs_from: Option<usize>,
}

/// Takes a JSON text apart; `None` if it is none.
pub(super) fn parts(text: &str) -> Option<JsonStrings> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut parts = JsonStrings::default();
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                let end = at + 1 + string_length(&text[at + 1..])?;
                let value: String = serde_json::from_str(&text[at..=end]).ok()?;
                let above = open.last_mut();
                let is_name = above.as_ref().is_some_and(|above| above.awaits_name);
                let name = above.and_then(|above| {
                    if is_name {
                        above.awaits_name = false;
                        above.name = Some(value.clone());
                        return None;
                    }
                    above.name.clone()
                });
                parts.strings.push(StringLiteral {
                    range: at..end + 1,
                    text: value,
                    is_name,
                    name,
                    depth: open.len(),
                });
                at = end;
            }
            b'{' | b'[' => {
                let is_object = *byte == b'{';
                let name = open.last().and_then(|above| above.name.clone());
                let logprobs = !is_object && name.as_deref() == Some("logprobs");
                open.push(OpenContainer {
                    is_object,
                    awaits_name: is_object,
                    // The strings of an array stand under the array's name.
                    name: name.filter(|_| !is_object),
                    logprobs_from: logprobs.then_some(at),
                });
            }
            b'}' | b']' => {
                let closed = open.pop()?;
                let from = closed.logprobs_from;
                parts.logprobs.extend(from.map(|from| from..at + 1));
            }
            b',' => {
                if let Some(above) = open.last_mut().filter(|above| above.is_object) {
                    above.awaits_name = true;
                    above.name = None;
                }
            }
            _ => {}
        }
        at += 1;
    }
    Some(parts)
}

/// How far it is to the quote that ends a string.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Closes a JSON text that was cut off: the text without a torn escape, and what has to follow it.
pub(super) fn close(text: &str) -> Option<(&str, String)> {
    let mut stack = Vec::new();
    let mut in_string = false;
    let mut escape_from = None;
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match (escape_from, byte) {
                (None, b'\\') => escape_from = Some(at),
                (None, b'"') => in_string = false,
                (Some(from), _) if text.as_bytes()[from + 1] != b'u' || at >= from + 5 => {
                    escape_from = None;
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' => stack.push('}'),
            b'[' => stack.push(']'),
            b'}' | b']' => {
                stack.pop()?;
            }
            _ => {}
        }
    }
    let kept = &text[..escape_from.unwrap_or(text.len())];
    let closers: String = stack.iter().rev().collect();
    let quote = if in_string { "\"" } else { "" };
    ["", ":null", "null", "\"\":null"]
        .iter()
        .map(|middle| format!("{quote}{middle}{closers}"))
        .find(|end| serde_json::from_str::<IgnoredAny>(&format!("{kept}{end}")).is_ok())
        .map(|end| (kept, end))
}

/// A text as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// The text with ranges of it replaced; they must not overlap.
pub(super) fn replaced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for (range, by) in edits {
        if range.start < from {
            continue;
        }
        result.push_str(&text[from..range.start]);
        result.push_str(&by);
        from = range.end;
    }
    result.push_str(&text[from..]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_are_told_with_their_names() {
        let text = r#"{"a":"x\"y","b":["p",{"c":"q"},"r"],"logprobs":[{"token":"t"}],"n":1}"#;
        let parts = parts(text).unwrap();
        let values: Vec<_> = parts
            .strings
            .iter()
            .filter(|literal| !literal.is_name)
            .map(|literal| (literal.name.as_deref().unwrap(), literal.text.as_str()))
            .collect();
        let expected = [
            ("a", "x\"y"),
            ("b", "p"),
            ("c", "q"),
            ("b", "r"),
            ("token", "t"),
        ];
        assert_eq!(values, expected);
        assert_eq!(&text[parts.logprobs[0].clone()], r#"[{"token":"t"}]"#);
        assert!(super::parts("{").is_none());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\\né\u{1F600}]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map("[a-z\"]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_string_is_found_and_can_be_put_back(value in json()) {
            let text = value.to_string();
            let parts = parts(&text).unwrap();
            let edits = parts.strings.iter().map(|literal| (literal.range.clone(), quoted(&literal.text)));
            prop_assert_eq!(replaced(&text, edits.collect()), text);
        }

        #[test]
        fn what_was_cut_inside_a_string_is_closed(value in json(), cut in 0usize..200) {
            let text = serde_json::json!({"delta": value}).to_string();
            let mut cut = cut.min(text.len());
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            if let Some((kept, end)) = close(&text[..cut]) {
                let closed = format!("{kept}{end}");
                prop_assert!(serde_json::from_str::<Value>(&closed).is_ok());
                prop_assert!(text.starts_with(kept));
            }
        }
    }
}
