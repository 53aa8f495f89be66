//! Comparing what was redacted with what was not.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::find::SecretFinder;
use super::json;
use super::secret_kinds::{CREDENTIAL, CUSTOM, EMAIL, ENCRYPTED, HOME, KINDS, NAMED};

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    let others = [CREDENTIAL, CUSTOM, EMAIL, ENCRYPTED, HOME, NAMED];
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).chain(others).collect();
    Regex::new(&format!("<({})-[0-9]+>", kinds.join("|")))
        .unwrap_or_else(|error| unreachable!("the kinds are part of the program: {error}"))
});

/// Whether a redactor has been at this text.
pub(crate) fn has_placeholder(text: &str) -> bool {
    PLACEHOLDER.is_match(text)
}

/// Whether a redactor has been at any text of this value.
pub(crate) fn is_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => has_placeholder(text),
        Value::Array(values) => values.iter().any(is_redacted),
        Value::Object(map) => map.values().any(is_redacted),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The text with every secret, and every placeholder of one, replaced by the name of its kind.
///
/// The number of a placeholder is left out: an agent that runs on a redacted recording says both the
/// placeholder, after the model, and the secret that its own tools have shown it.
pub(crate) fn kinds_only(text: &str) -> String {
    let found = SecretFinder::default().find(text).into_iter();
    let edits = found.map(|found| (found.range, format!("<{}>", found.kind)));
    let text = json::replaced(text, edits.collect());
    PLACEHOLDER.replace_all(&text, "<$1>").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Redactor;

    #[test]
    fn a_text_equals_what_redaction_makes_of_it() {
        let key = format!("sk-proj-{}7", "aB3d".repeat(10));
        let texts = [
            format!("key {key} in /home/alice/x, again {key}"),
            "mail a@corp.example.org and b@corp.example.org".to_owned(),
            format!("{{\"password\":\"hunter22hunter\",\"k\":\"{key}\"}}"),
            "nothing <here>".to_owned(),
        ];
        for text in &texts {
            let redacted = Redactor::new(&[]).unwrap().text(text);
            let redacted = redacted.unwrap_or_else(|| text.clone());
            assert_eq!(kinds_only(&redacted), kinds_only(text));
            assert_eq!(has_placeholder(&redacted), redacted != *text);
            assert!(!has_placeholder(text));
        }
        assert_eq!(kinds_only("/home/alice/x"), "/home/<user>/x");
        assert_eq!(
            kinds_only("<user-12> <nobody-1> <user>"),
            "<user> <nobody-1> <user>"
        );
    }
}
