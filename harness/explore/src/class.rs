//! Which failures are the same.

use std::collections::BTreeSet;

use crate::executor::Broken;

/// The same rules broken in the same way, whatever ids and numbers the messages name, and whatever
/// words they quote.
pub fn class_of(broken: Vec<Broken>) -> Vec<Broken> {
    let general = |broken: Broken| Broken {
        rule: broken.rule,
        message: without_quotes(&broken.message)
            .split(' ')
            .map(without_numbers)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let class: BTreeSet<Broken> = broken.into_iter().map(general).collect();
    class.into_iter().collect()
}

/// What the user or the model said stands between double quotes, in which a backslash escapes.
fn without_quotes(message: &str) -> String {
    let (mut kept, mut quoted, mut escaped) = (String::new(), false, false);
    for c in message.chars() {
        let ends = c == '"' && !escaped;
        if ends || !quoted {
            kept.push(c);
        }
        quoted ^= ends;
        escaped = quoted && c == '\\' && !escaped;
    }
    kept
}

fn without_numbers(word: &str) -> String {
    let is_id = word.len() > 20 && word.contains('-');
    let number = word.trim_matches(|c: char| !c.is_ascii_digit());
    if is_id || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())) {
        "N".to_owned()
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(rule: &str, message: &str) -> Broken {
        Broken {
            rule: rule.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn words_that_are_quoted_make_no_difference() {
        let class = |said: &str| {
            let message = format!("request 3 lacks the input {said:?}, which was accepted");
            class_of(vec![broken("REQ-5", &message)])
        };
        assert_eq!(class("go on"), class("say \"no\" (2)"));
        assert_eq!(
            class("go on")[0].message,
            "request N lacks the input \"\", which was accepted"
        );
    }

    #[test]
    fn ids_and_numbers_make_no_difference_and_all_else_does() {
        let class = |call: &str, more: Option<Broken>| {
            let message = format!("request 3 has no output of `{call}`");
            let first = broken("CALL-1", &message);
            class_of(vec![first.clone(), first].into_iter().chain(more).collect())
        };
        assert_eq!(class("call_1", None), class("call_27", None));
        assert_eq!(class("call_1", None).len(), 1);
        let marker = broken("MARK-1", "there is no marker");
        assert_ne!(class("call_1", None), class("call_1", Some(marker)));
    }
}
