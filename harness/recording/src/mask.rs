//! Masking what differs between two runs of the same conversation: ids, times, durations.

use std::collections::HashMap;

/// What agents print before a value that no two runs share; the value is masked.
const LABELS: [&str; 7] = [
    "Wall time ",
    "Wall time: ",
    "Chunk ID: ",
    "\"duration_seconds\":",
    "\"duration_seconds\": ",
    "\"chunk_id\":\"",
    "\"wall_time_seconds\":",
];

/// Prefixes of ids that the API makes up.
const ID_PREFIXES: [&str; 8] = [
    "call_", "ctc_", "fc_", "item_", "lsh_", "msg_", "resp_", "rs_",
];

/// How long the random part of such an id is at least; a shorter one was written by a person.
const RANDOM_ID_LENGTH: usize = 16;

/// The text with ids, times and durations replaced; call ids of `calls` become ordinals.
pub(crate) fn mask(text: &str, calls: &HashMap<&str, usize>) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(next) = rest.chars().next() {
        let found = if before.is_ascii_alphanumeric() || before == '_' {
            None
        } else {
            volatile(rest, calls)
        };
        if let Some((length, replacement)) = found {
            masked.push_str(&replacement);
            rest = &rest[length..];
            before = ' ';
        } else {
            masked.push(next);
            rest = &rest[next.len_utf8()..];
            before = next;
        }
    }
    masked
}

/// The length of what starts here and should not be compared, and what stands for it.
fn volatile(text: &str, calls: &HashMap<&str, usize>) -> Option<(usize, String)> {
    let fixed = |length: usize, mask: &str| Some((length, mask.to_owned()));
    let bytes = text.as_bytes();
    if let Some(length) = timestamp(bytes) {
        return fixed(length, "<time>");
    }
    if let Some(length) = uuid(bytes) {
        return fixed(length, "<id>");
    }
    if let Some(label) = LABELS.iter().rev().find(|label| text.starts_with(**label)) {
        let value = &text[label.len()..];
        let length = value
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
            .count();
        return (length > 0).then(|| (label.len() + length, format!("{label}<value>")));
    }
    let word = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        .count();
    if let Some(ordinal) = calls.get(&text[..word]).filter(|_| word > 0) {
        return Some((word, format!("<call {ordinal}>")));
    }
    let random = ID_PREFIXES
        .iter()
        .find_map(|prefix| text[..word].strip_prefix(prefix))?;
    let made_up =
        random.len() >= RANDOM_ID_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    made_up.then(|| (word, "<id>".to_owned()))
}

/// Whether `bytes` has this shape: `0` a decimal digit, `h` a hexadecimal one, else itself.
fn shaped(bytes: &[u8], shape: &[u8]) -> bool {
    bytes.len() >= shape.len()
        && bytes.iter().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'h' => byte.is_ascii_hexdigit(),
            other => byte == other,
        })
}

fn uuid(bytes: &[u8]) -> Option<usize> {
    let shape = b"hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    let ends = bytes
        .get(shape.len())
        .is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (ends && shaped(bytes, shape)).then_some(shape.len())
}

/// A date with a time, as RFC 3339 and its relatives write it.
fn timestamp(bytes: &[u8]) -> Option<usize> {
    if !shaped(bytes, b"0000-00-00") || !matches!(bytes.get(10), Some(b'T' | b't' | b' ' | b'_')) {
        return None;
    }
    let time = &bytes[11..];
    // File names cannot have colons everywhere, so hyphens separate too.
    let separator = *time.get(2).filter(|byte| matches!(byte, b':' | b'-'))?;
    if !shaped(time, &[b'0', b'0', separator, b'0', b'0']) {
        return None;
    }
    let mut length = 16;
    if shaped(&bytes[length..], &[separator, b'0', b'0']) {
        length += 3;
        if shaped(&bytes[length..], b".0") {
            let digits = bytes[length + 1..].iter();
            length += 1 + digits.take_while(|byte| byte.is_ascii_digit()).count();
        }
    }
    match bytes.get(length) {
        Some(b'Z' | b'z') => length += 1,
        Some(b'+' | b'-') if shaped(&bytes[length + 1..], b"00:00") => length += 6,
        Some(b'+' | b'-') if shaped(&bytes[length + 1..], b"0000") => length += 5,
        _ => {}
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_differs_between_runs_is_masked() {
        let calls = HashMap::from([("call_1", 1), ("c-2", 2)]);
        let cases = [
            ("at 2025-11-02T10:11:12.345Z.", "at <time>."),
            (
                "2025-11-02 10:11 and 2025-11-02T10-11-12",
                "<time> and <time>",
            ),
            ("2025-11-02T10:11:12+01:00x", "<time>x"),
            ("on 2025-11-02", "on 2025-11-02"),
            ("id 0199A7C0-1111-7aaa-8bbb-0123456789ab!", "id <id>!"),
            (
                "0199a7c0-1111-7aaa-8bbb-0123456789abcd",
                "0199a7c0-1111-7aaa-8bbb-0123456789abcd",
            ),
            (
                "aborted call_1, not call_12 or c-2",
                "aborted <call 1>, not call_12 or <call 2>",
            ),
            (
                "msg_0123456789abcdef01 call_me_maybe_later_on",
                "<id> call_me_maybe_later_on",
            ),
            ("Wall time: 1.25 seconds", "Wall time: <value> seconds"),
            (
                "{\"duration_seconds\":0.3}",
                "{\"duration_seconds\":<value>}",
            ),
            ("Wall time 0.1 seconds", "Wall time <value> seconds"),
            (
                "{\"chunk_id\":\"34167a\",\"wall_time_seconds\":0.001,\"exit_code\":0}",
                "{\"chunk_id\":\"<value>\",\"wall_time_seconds\":<value>,\"exit_code\":0}",
            ),
            ("é\u{1F600} Wall time: ", "é\u{1F600} Wall time: "),
        ];
        for (text, expected) in cases {
            assert_eq!(mask(text, &calls), expected);
        }
    }

    proptest! {
        #[test]
        fn masking_twice_is_masking_once(text in "[-0-9a-f_:TZ. é]{0,60}") {
            let once = mask(&text, &HashMap::new());
            prop_assert_eq!(mask(&once, &HashMap::new()), once);
        }
    }
}
