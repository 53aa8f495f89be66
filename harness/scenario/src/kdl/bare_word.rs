//! Bare words: names, numbers and keywords, and what is wrong with those that are none.

use std::ops::Range;

use super::node::Value;
use crate::diagnostic::Diagnostic;

/// Where a word stands; the same mistake needs different advice in different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordPlace {
    /// A node's name.
    Name,
    /// A property's name.
    Key,
    /// An argument, or a property's value.
    Value,
}

/// More digits than this are no number that a scenario needs, nor one that fits into 128 bits.
const NUMBER_LIMIT_CHARS: usize = 30;

const KEYWORDS: [&str; 6] = ["#true", "#false", "#null", "#nan", "#inf", "#-inf"];

/// Words that KDL reserves because they look like keywords.
pub(crate) const RESERVED: [&str; 6] = ["true", "false", "null", "nan", "inf", "-inf"];

/// Reports what is wrong with a bare word, if anything.
pub(crate) fn check(word: &str, at: usize, place: WordPlace) -> Option<Diagnostic> {
    if place == WordPlace::Value && KEYWORDS.contains(&word) {
        return None;
    }
    let whole = at..at + word.len();
    quotes(word, at)
        .or_else(|| punctuation(word, at, place))
        .or_else(|| hash(word, &whole, place))
        .or_else(|| {
            if looks_like_number(word) {
                number(word, &whole, place)
            } else {
                None
            }
        })
        .or_else(|| reserved(word, &whole, place))
        .or_else(|| other_characters(word, at))
}

/// The value of a bare word in which `check` finds no mistake.
pub(crate) fn value(word: &str) -> Value {
    match word {
        "#true" => Value::Bool(true),
        "#false" => Value::Bool(false),
        "#null" => Value::Null,
        "#nan" => Value::Float(f64::NAN),
        "#inf" => Value::Float(f64::INFINITY),
        "#-inf" => Value::Float(f64::NEG_INFINITY),
        _ if looks_like_number(word) => number_value(word),
        _ => Value::Text(word.to_owned()),
    }
}

/// The value of a number; the limit on its length keeps an integer within 128 bits.
fn number_value(word: &str) -> Value {
    let digits = word.replace('_', "");
    let (sign, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let integer = |digits: &str, radix| i128::from_str_radix(&format!("{sign}{digits}"), radix);
    let parsed = match unsigned.get(..2) {
        Some("0x") => integer(&unsigned[2..], 16),
        Some("0o") => integer(&unsigned[2..], 8),
        Some("0b") => integer(&unsigned[2..], 2),
        _ => integer(unsigned, 10),
    };
    match parsed {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::Float(digits.parse().unwrap_or(f64::NAN)),
    }
}

/// Whether KDL takes a word for a number, by its first characters.
pub(crate) fn looks_like_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    let after_dot = unsigned.strip_prefix('.').unwrap_or(unsigned);
    after_dot.starts_with(|c: char| c.is_ascii_digit())
}

/// Quotes of other languages.
fn quotes(word: &str, at: usize) -> Option<Diagnostic> {
    let first = word.chars().next()?;
    let name = match first {
        '\'' => "single quotes do not make a string",
        '`' => "backticks do not make a string",
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{2018}' | '\u{2019}' | '\u{ab}' | '\u{bb}' => {
            "typographic quotes do not make a string"
        }
        _ => return None,
    };
    Some(
        Diagnostic::new(
            "wrong-quotes",
            at..at + first.len_utf8(),
            name,
            "KDL takes this for a letter",
        )
        .help("write strings in straight double quotes: `\"…\"`"),
    )
}

/// Commas and colons, which KDL takes for letters and other languages do not.
fn punctuation(word: &str, at: usize, place: WordPlace) -> Option<Diagnostic> {
    if let Some(comma) = word.find(',') {
        return Some(
            Diagnostic::new(
                "comma",
                at + comma..at + comma + 1,
                "KDL has no commas",
                "KDL takes this for a letter",
            )
            .help(
                "separate arguments and properties with spaces, nodes with `;` or a new line; \
                 put a text with a comma in quotes",
            ),
        );
    }
    let colon = word.find(':')?;
    let (before, after) = (&word[..colon], &word[colon + 1..]);
    let help = match (place, after.is_empty()) {
        (WordPlace::Name, true) if !before.is_empty() => {
            format!("remove the colon: a node is its name and then its arguments, `{before} …`")
        }
        (WordPlace::Name | WordPlace::Key, _) => "remove the colon: names have none".to_owned(),
        (WordPlace::Value, true) if !before.is_empty() => {
            format!("write a property as `{before}=value`, and put a text in quotes")
        }
        (WordPlace::Value, false) if !before.is_empty() => format!(
            "write a property as `{before}={after}`, and put a text in quotes: `\"{before}:{after}\"`"
        ),
        (WordPlace::Value, _) => "remove the colon, or quote the text".to_owned(),
    };
    Some(
        Diagnostic::new(
            "colon",
            at + colon..at + colon + 1,
            "KDL has no colons",
            "KDL takes this for a letter",
        )
        .help(help),
    )
}

/// Words that begin with `#`.
fn hash(word: &str, whole: &Range<usize>, place: WordPlace) -> Option<Diagnostic> {
    let rest = word.strip_prefix('#')?;
    let help = if looks_like_number(rest) {
        format!("write a number without `#`: `{rest}`")
    } else if place != WordPlace::Value {
        "names have no `#`; a comment begins with `//`".to_owned()
    } else if let Some(keyword) = crate::suggest::nearest(&word.to_lowercase(), &KEYWORDS) {
        format!("did you mean `{keyword}`?")
    } else {
        "only `#true`, `#false` and `#null` begin with `#`; a comment begins with `//`, \
         and a text needs quotes"
            .to_owned()
    };
    Some(
        Diagnostic::new(
            "bad-keyword",
            whole.clone(),
            format!("`{word}` is not a keyword"),
            "`#` begins a keyword",
        )
        .help(help),
    )
}

fn number(word: &str, whole: &Range<usize>, place: WordPlace) -> Option<Diagnostic> {
    if place != WordPlace::Value {
        return Some(
            Diagnostic::new(
                "bad-name",
                whole.clone(),
                format!("a name cannot begin like a number: `{word}`"),
                "expected a name",
            )
            .help("a node begins with its name, then come its arguments"),
        );
    }
    if is_number(word) {
        return (word.len() > NUMBER_LIMIT_CHARS).then(|| {
            Diagnostic::new(
                "bad-number",
                whole.clone(),
                "this number is too long",
                format!("more than {NUMBER_LIMIT_CHARS} characters"),
            )
            .help("no count, size or index in a scenario is that large")
        });
    }
    let (message, help) = if humantime::parse_duration(word).is_ok() {
        (
            format!("a duration is a string: `{word}`"),
            format!("put it in quotes: `\"{word}\"`"),
        )
    } else if word.starts_with(['.', '-', '+'])
        && word.trim_start_matches(['-', '+']).starts_with('.')
    {
        (
            format!("`{word}` is not a number"),
            "write a digit before the point".to_owned(),
        )
    } else {
        (
            format!("`{word}` is not a number"),
            format!("if it is a name or a text, put it in quotes: `\"{word}\"`"),
        )
    };
    Some(
        Diagnostic::new(
            "bad-number",
            whole.clone(),
            message,
            "begins like a number, but is not one",
        )
        .help(help),
    )
}

/// Whether the word is a number as KDL writes it.
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    let radix = match unsigned.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    if radix != 10 {
        return is_digits(&unsigned[2..], radix);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (integer, fraction) = match mantissa.split_once('.') {
        Some((integer, fraction)) => (integer, Some(fraction)),
        None => (mantissa, None),
    };
    is_digits(integer, 10)
        && fraction.is_none_or(|digits| is_digits(digits, 10))
        && exponent.is_none_or(|e| is_digits(e.strip_prefix(['-', '+']).unwrap_or(e), 10))
}

fn is_digits(digits: &str, radix: u32) -> bool {
    digits.starts_with(|c: char| c.is_digit(radix))
        && digits.chars().all(|c| c.is_digit(radix) || c == '_')
}

fn reserved(word: &str, whole: &Range<usize>, place: WordPlace) -> Option<Diagnostic> {
    if !RESERVED.contains(&word) {
        return None;
    }
    let help = if place == WordPlace::Value {
        format!("write `#{word}`, or `\"{word}\"` if it is meant as text")
    } else {
        "choose another name".to_owned()
    };
    Some(
        Diagnostic::new(
            "bad-keyword",
            whole.clone(),
            format!("`{word}` without `#` is reserved"),
            "keywords begin with `#`",
        )
        .help(help),
    )
}

/// Characters that no bare word may have.
fn other_characters(word: &str, at: usize) -> Option<Diagnostic> {
    let (offset, c) = word
        .char_indices()
        .find(|(_, c)| matches!(c, '/' | '[' | ']' | '#'))?;
    Some(
        Diagnostic::new(
            "bad-character",
            at + offset..at + offset + 1,
            format!("a bare word cannot contain `{c}`"),
            "not allowed outside of quotes",
        )
        .help(format!("put the word in quotes: `\"{word}\"`")),
    )
}

/// Whether a text can be written as a bare word.
pub(crate) fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| {
            !super::lexer::is_space(c)
                && !super::lexer::is_newline(c)
                && !super::lexer::is_disallowed(c)
                && !matches!(c, '{' | '}' | '(' | ')' | '=' | ';' | '\\' | '"')
        })
        && check(text, 0, WordPlace::Value).is_none()
        && !text.starts_with('#')
        && !looks_like_number(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinguished_from_durations_and_names() {
        for good in ["0", "-1", "+1_000", "1.5e-3", "0x1f", "0b1_0", "0o17"] {
            assert!(is_number(good), "{good}");
        }
        for bad in ["50ms", "1.", "0x", "1e", "1__a", "_1", ".5", "0xg"] {
            assert!(!is_number(bad), "{bad}");
        }
    }

    #[test]
    fn call_ids_are_bare_unless_they_look_like_something_else() {
        for bare in ["call_1", "a-b", "-", "-a", "_", "truely"] {
            assert!(is_bare(bare), "{bare}");
        }
        for quoted in [
            "", "1", "-1", "true", "-inf", "a b", "a,b", "a:b", "#x", "x/y",
        ] {
            assert!(!is_bare(quoted), "{quoted}");
        }
    }
}
