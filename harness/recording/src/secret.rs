//! Secrets in headers, which must not be stored.

use std::collections::BTreeMap;

use crate::model::RecordedRequest;

/// What stands in a recording in place of a secret.
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

fn is_secret(name: &str) -> bool {
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

impl RecordedRequest {
    /// Masks the values of headers that hold keys or cookies.
    pub fn redact(&mut self) {
        for (name, value) in &mut self.headers {
            if is_secret(name) {
                REDACTED.clone_into(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_whatever_their_spelling() {
        let header = |name: &str| (name.to_owned(), "value".to_owned());
        let mut request = RecordedRequest {
            method: "POST".to_owned(),
            path: "/responses".to_owned(),
            headers: [header("Authorization"), header("accept")].into(),
            body: serde_json::Value::Null,
        };
        assert_eq!(
            exposed(&request.headers).collect::<Vec<_>>(),
            ["Authorization"]
        );
        request.redact();
        assert_eq!(exposed(&request.headers).count(), 0);
        assert_eq!(request.headers["accept"], "value");
    }
}
