//! What the body of a refused request says.

use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::item::CallKind;
use serde_json::Value;

/// How the API's complaint about an unanswered call starts.
const COMPLAINT: &str = "No tool output found for ";

/// The message in an error's body; the body itself where it is no such JSON.
pub(crate) fn message(body: &str) -> String {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let message = json
        .as_ref()
        .and_then(|json| json["error"]["message"].as_str());
    message.unwrap_or(body.trim()).to_owned()
}

/// The call without output that a 400 names, and its kind.
pub(crate) fn named_call(body: &str) -> Option<(CallId, CallKind)> {
    let message = message(body);
    let rest = &message[message.find(COMPLAINT)? + COMPLAINT.len()..];
    let (kind, rest) = rest.split_once("call ")?;
    let kind = match kind.trim() {
        "function" => CallKind::Function,
        "custom tool" => CallKind::Custom,
        "local shell" => CallKind::LocalShell,
        _ => return None,
    };
    let of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    let end = rest.find(|c| !of_id(c)).unwrap_or(rest.len());
    (end > 0).then(|| (CallId::from(&rest[..end]), kind))
}

/// Whether a 400 says that the server does not know the response to be continued.
pub(crate) fn forgets_response(body: &str) -> bool {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    json["error"]["code"] == "previous_response_not_found"
}

/// Whether a failure inside a stream is worth another try. Some codes mean that the same request
/// must fail again.
pub(crate) fn is_final(code: &str) -> bool {
    matches!(
        code,
        "context_length_exceeded"
            | "insufficient_quota"
            | "invalid_prompt"
            | "invalid_request_error"
            | "usage_not_included"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_call_is_found() {
        let json = |text: &str| serde_json::json!({"error": {"message": text}}).to_string();
        let call = |body: &str| named_call(body).map(|(id, _)| id);
        let id = |id: &str| Some(CallId::from(id));
        assert_eq!(
            call(&json("No tool output found for function call call_a-B/9_.")),
            id("call_a-B/9_")
        );
        assert_eq!(
            call("raw: No tool output found for custom tool call ctc_1"),
            id("ctc_1")
        );
        let local = named_call(&json("No tool output found for local shell call x."));
        assert_eq!(local, Some((CallId::from("x"), CallKind::LocalShell)));
        for other in [
            "",
            "{",
            "No tool output found for ",
            "No tool output found for function call .",
            "No tool call found for function call output with call_id call_1.",
        ] {
            assert_eq!(call(other), None, "{other}");
            assert_eq!(call(&json(other)), None, "{other}");
        }
        let both = serde_json::json!({"error": {"message": "no"}, "x": "No tool output found for function call a."});
        assert_eq!(
            call(&both.to_string()),
            None,
            "the message is read, not the rest"
        );
    }
}
