//! The texts that quoted strings stand for.

use super::lexer::{is_newline, is_space};

/// The text of a string token; nothing if a line of it lacks the indentation of its last line.
///
/// The lexer has found no mistake in the token.
pub(crate) fn text(written: &str) -> Option<String> {
    let hashes = written.len() - written.trim_start_matches('#').len();
    let quoted = &written[hashes..written.len() - hashes];
    let is_raw = hashes > 0;
    let multi_line = quoted
        .strip_prefix("\"\"\"")
        .filter(|rest| rest.starts_with(is_newline));
    let Some(rest) = multi_line else {
        let inner = &quoted[1..quoted.len() - 1];
        return Some(if is_raw {
            inner.to_owned()
        } else {
            unescape(&join_lines(inner))
        });
    };
    let body = &rest[..rest.len() - 3];
    if is_raw {
        dedent(body)
    } else {
        dedent(&join_lines(body)).map(|text| unescape(&text))
    }
}

/// Where in its source form a string's text begins, if the text stands there as it is.
pub(crate) fn content(written: &str, text: &str) -> Option<usize> {
    let hashes = written.len() - written.trim_start_matches('#').len();
    let quoted = written[hashes..].starts_with('"');
    let at = hashes + usize::from(quoted);
    (written.get(at..at + text.len()) == Some(text) && written.len() == text.len() + 2 * at)
        .then_some(at)
}

/// Removes each backslash before blanks or line breaks together with these.
fn join_lines(text: &str) -> String {
    let blank = |c: char| is_space(c) || is_newline(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if after.starts_with(blank) {
            after.trim_start_matches(blank)
        } else {
            // The escape as a whole, so that `\\` is no beginning of another.
            let end = at + 1 + after.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[at..end]);
            &rest[end..]
        };
    }
    out.push_str(rest);
    out
}

/// The lines between the quotes of a multi-line string, without the indentation that its last
/// line has; nothing if one of them is indented less.
fn dedent(body: &str) -> Option<String> {
    let body = body.replace("\r\n", "\n").replace(is_newline, "\n");
    // The first line is empty, because the quotes end theirs.
    let mut lines: Vec<&str> = body.split('\n').skip(1).collect();
    let indent = lines.pop()?;
    let dedented: Option<Vec<&str>> = lines
        .into_iter()
        .map(|line| {
            if line.chars().all(is_space) {
                Some("")
            } else {
                line.strip_prefix(indent)
            }
        })
        .collect();
    Some(dedented?.join("\n"))
}

/// Replaces escapes, all of which are good, by what they stand for.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('s') => out.push(' '),
            Some('u') => {
                let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let number = u32::from_str_radix(&digits, 16).ok();
                out.extend(number.and_then(char::from_u32));
            }
            other => out.extend(other),
        }
    }
    out
}
