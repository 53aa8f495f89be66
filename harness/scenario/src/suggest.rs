//! "Did you mean": the nearest known word, and lists of known words.

use similar::get_close_matches;

/// How alike two words must be for one to be suggested for the other.
const CUTOFF: f32 = 0.6;

/// Words longer than this get no suggestion: they are not typing errors, and comparing them is slow.
const WORD_LIMIT_CHARS: usize = 64;

/// The known word nearest to a mistyped one, if any is near enough.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.chars().count() > WORD_LIMIT_CHARS {
        return None;
    }
    let lower = word.to_lowercase().replace('_', "-");
    // Upper case and underscores are the two habits people bring along, so they count as no
    // difference at all.
    known
        .iter()
        .find(|name| name.to_lowercase().replace('_', "-") == lower)
        .copied()
        .or_else(|| get_close_matches(word, known, 1, CUTOFF).into_iter().next())
}

/// A help text: the nearest word, or else all of them.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    match nearest(word, known) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None => one_of(known),
    }
}

/// "one of `a`, `b` and `c`" as a help text; nothing if there is nothing to list.
pub(crate) fn one_of(known: &[&str]) -> Option<String> {
    match known {
        [] => None,
        [only] => Some(format!("the only one here is `{only}`")),
        _ => Some(format!("known here: {}", list(known))),
    }
}

/// "`a`, `b` and `c`".
pub(crate) fn list<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| format!("`{}`", word.as_ref()))
        .collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_word_only_when_it_is_near() {
        let known = ["interrupt", "user", "turn-complete"];
        assert_eq!(nearest("interupt", &known), Some("interrupt"));
        assert_eq!(nearest("User", &known), Some("user"));
        assert_eq!(nearest("turn_complete", &known), Some("turn-complete"));
        assert_eq!(nearest("xyzzy", &known), None);
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
