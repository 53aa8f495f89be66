//! Text that is safe and short enough to be shown.
//!
//! Much of what a report shows was written by an agent or its tools. Escape sequences in it would
//! run on the reader's terminal, and line breaks would forge lines of the report.

use std::borrow::Cow;

/// How wide running text is, in characters.
pub(crate) const WIDTH: usize = 96;
/// How much is kept of a line that is not to be broken, in characters.
const LINE_LIMIT: usize = 140;

/// Whether a character changes how the text around it is shown.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// The text on one line; whatever is no plain character is escaped.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
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
pub(crate) fn shorten(text: &str, limit_chars: usize) -> Cow<'_, str> {
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
pub(crate) fn quote(text: &str, limit_chars: usize) -> String {
    // Escapes make a text longer, so it is shortened behind them; what is far too long before them.
    let rough = shorten(text, 4 * limit_chars);
    format!("\"{}\"", shorten(&clean(&rough), limit_chars))
}

/// The text in lines of at most `width` characters where it has spaces to break at.
///
/// A text that has lines of its own is kept as it is laid out: it may be a diff, or a diagnostic with
/// carets. Only what is far too long for a line is shortened.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = text.trim_end();
    if text.contains('\n') {
        let lines = text
            .lines()
            .map(|line| shorten(&clean(line), LINE_LIMIT).into_owned());
        return lines.map(harmless).collect();
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in clean(text).split(' ').filter(|word| !word.is_empty()) {
        let chars = word.chars().count();
        if length > 0 && length + 1 + chars > width {
            lines.push(harmless(std::mem::take(&mut line)));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += chars;
    }
    if !line.is_empty() {
        lines.push(harmless(line));
    }
    lines
}

/// A line that starts with `::` is a command to some CI systems that read the console.
fn harmless(line: String) -> String {
    if line.trim_start().starts_with("::") {
        line.replacen(':', "\\u{3a}", 1)
    } else {
        line
    }
}

/// A number with its noun: `1 case`, `2 cases`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "breach") => format!("{number} breaches"),
        _ => format!("{number} {noun}s"),
    }
}

/// A duration in seconds.
pub(crate) fn seconds(duration_ms: f64) -> String {
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

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a  b\n", 80), ["a b"]);
        assert_eq!(
            wrap("one\n\n  ^^ two three\n", 7),
            ["one", "", "  ^^ two three"]
        );
        assert_eq!(wrap("loooooong x", 3), ["loooooong", "x"]);
        assert_eq!(wrap("abc ::error::x", 5), ["abc", "\\u{3a}:error::x"]);
        assert_eq!(wrap("a\n ::error::x", 5), ["a", " \\u{3a}:error::x"]);
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
