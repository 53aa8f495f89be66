//! Which headers a recording keeps, and which must not stand in one.

use std::collections::BTreeMap;

use cutpoint_protocol::headers::DESCRIPTIVE_PREFIXES;

/// What stands in a recording in place of a header's secret.
pub const REDACTED: &str = "[redacted]";

/// Headers whose values open doors.
const SECRET_HEADERS: [&str; 6] = [
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

/// Headers that say something of a request or an answer and nothing of who made it.
const KEPT_HEADERS: [&str; 19] = [
    "accept",
    "accept-language",
    "content-type",
    "conversation-id",
    "conversation_id",
    "openai-beta",
    "openai-model",
    "openai-processing-ms",
    "openai-version",
    "originator",
    "retry-after",
    "retry-after-ms",
    "session-id",
    "session_id",
    "user-agent",
    "version",
    "x-client-request-id",
    "x-request-id",
    "x-should-retry",
];

/// Words in the name of a header that may carry a credential, or tell whose machine it was.
const SUSPICIOUS_WORDS: [&str; 7] = [
    "auth",
    "cookie",
    "key",
    "metadata",
    "secret",
    "token",
    "turn-state",
];

/// Whether a header of that name is kept.
pub(super) fn is_kept(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let counts_tokens = name.starts_with("x-ratelimit-");
    KEPT_HEADERS.contains(&name.as_str())
        || DESCRIPTIVE_PREFIXES
            .iter()
            .any(|kept| name.starts_with(kept))
            && (counts_tokens || !SUSPICIOUS_WORDS.iter().any(|word| name.contains(word)))
}

/// Whether a header of that name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    SECRET_HEADERS
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

/// The names of headers that hold a secret as it is.
pub(crate) fn exposed(headers: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    headers
        .iter()
        .filter(|(name, value)| is_secret(name) && *value != REDACTED)
        .map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_doors_is_not_kept_whatever_its_spelling() {
        for name in SECRET_HEADERS {
            assert!(is_secret(&name.to_uppercase()) && !is_kept(name), "{name}");
        }
        for name in [
            "x-codex-turn-state",
            "x-codex-turn-metadata",
            "X-Stainless-Api-Key",
            "openai-organization",
            "chatgpt-account-id",
            "via",
        ] {
            assert!(!is_kept(name), "{name}");
        }
        for name in [
            "Content-Type",
            "x-ratelimit-remaining-tokens",
            "x-codex-window-id",
        ] {
            assert!(is_kept(name), "{name}");
        }
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [
            header("Authorization", "x"),
            header("cookie", REDACTED),
            header("accept", "x"),
        ];
        assert_eq!(
            exposed(&headers.into()).collect::<Vec<_>>(),
            ["Authorization"]
        );
    }
}
