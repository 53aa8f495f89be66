//! Text that is safe and short enough to be shown.
//!
//! Much of what a report shows was written by an agent or its tools. Escape sequences in it would
//! run on the reader's terminal, and line breaks would forge lines of the report.

use std::borrow::Cow;

/// Whether a character changes how the text around it is shown.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// The text on one line; characters that act on a terminal are escaped.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

/// At most `limit_chars` of a text: its start and its end, which tell the most.
pub fn shorten(text: &str, limit_chars: usize) -> Cow<'_, str> {
    // Most texts are short, and counting the characters of a long one costs.
    if text.len() <= limit_chars || text.chars().count() <= limit_chars {
        return Cow::Borrowed(text);
    }
    let tail = limit_chars / 3;
    let head = limit_chars - tail - 1;
    let head = text
        .char_indices()
        .nth(head)
        .map_or(text, |(at, _)| &text[..at]);
    let mut tail_start = text.len();
    for (at, _) in text.char_indices().rev().take(tail) {
        tail_start = at;
    }
    Cow::Owned(format!("{head}…{}", &text[tail_start..]))
}

/// A short piece of a text, on one line, in quotes.
pub fn quote(text: &str, limit_chars: usize) -> String {
    // Escapes make a text longer, so it is shortened after escaping; what is far too long, before.
    let rough = shorten(text, 4 * limit_chars);
    format!("\"{}\"", shorten(&clean(&rough), limit_chars))
}

/// A number with its noun: `1 case`, `2 cases`.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) => format!("1 {noun}"),
        (number, "breach") => format!("{number} breaches"),
        (number, _) => format!("{number} {noun}s"),
    }
}

/// A duration in seconds.
pub fn seconds(duration_ms: f64) -> String {
    format!("{:.2} s", duration_ms.max(0.0) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(
            clean("a\u{1b}[31mb\nc\u{202E}d\té"),
            "a\\u{1b}[31mb\\nc\\u{202e}d\\té"
        );
        assert!(matches!(clean("plain é \u{1F600}"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_middle_is_left_out() {
        assert_eq!(shorten("0123456789", 10), "0123456789");
        assert_eq!(shorten("0123456789abc", 10), "012345…abc");
        assert_eq!(shorten("éééé", 4), "éééé");
        assert_eq!(quote("a\nb", 10), "\"a\\nb\"");
    }

    proptest! {
        #[test]
        fn shortened_text_is_short(text in "\\PC{0,200}", limit in 3usize..40) {
            prop_assert!(shorten(&text, limit).chars().count() <= limit);
            prop_assert!(quote(&text, limit).chars().count() <= limit + 2);
        }

        #[test]
        fn cleaned_text_has_one_line(text in any::<String>()) {
            prop_assert!(!clean(&text).contains(is_active));
        }
    }
}
