//! The model-visible note that a turn was aborted.

use crate::item::Item;

/// The marker's opening tag.
pub const OPEN: &str = "<turn_aborted>";
/// The marker's closing tag.
pub const CLOSE: &str = "</turn_aborted>";

/// Whether the item is a marker: a message of such a role whose text is one.
pub fn is_marker(item: &Item) -> bool {
    may_mark(item.role()) && is_marker_text(item.all_text())
}

/// Whether a message of this role can be a marker. Codex 0.169 writes it as the user's for most models,
/// and as the developer's for the newest ones.
pub fn may_mark(role: Option<&str>) -> bool {
    matches!(role, Some("user" | "developer"))
}

/// Whether the text of a message makes it a marker: it is one `<turn_aborted>` element.
///
/// A user who merely quotes the tag in a longer message has not written a marker, so the element
/// must be the whole text.
pub fn is_marker_text(text: &str) -> bool {
    let text = text.trim();
    text.starts_with(OPEN) && text.ends_with(CLOSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_the_whole_text() {
        let whole = Item::user_text("<turn_aborted>\nstopped\n</turn_aborted>");
        let quoted = Item::user_text("why do I see <turn_aborted>x</turn_aborted>?");
        assert!(is_marker(&whole));
        let with_role = |role: &str| {
            let content = [serde_json::json!({"type": "input_text", "text": whole.all_text()})];
            let item = serde_json::json!({"type": "message", "role": role, "content": content});
            Item::from_value(item).unwrap()
        };
        assert!(is_marker(&with_role("developer")));
        assert!(!is_marker(&with_role("assistant")));
        assert!(!is_marker(&quoted));
    }
}
