//! The bodies with which the Responses API refuses a request, as they were seen in the field.

use serde_json::{Value, json};

use crate::pairing::PairingFault;

/// An HTTP status with its JSON body.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status code.
    pub status: u16,
    /// The JSON body.
    pub body: Value,
}

impl ApiError {
    /// The error's message.
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    fn invalid_input(message: &str) -> Self {
        let error = json!({
            "message": message, "type": "invalid_request_error", "param": "input", "code": null,
        });
        Self {
            status: 400,
            body: json!({"error": error}),
        }
    }
}

/// The 400 that the API answers to a history with this fault; `None` where it lets it pass.
///
/// A repeated call with its outputs is taken by the API, so only the rule book objects to it.
pub fn for_fault(fault: &PairingFault) -> Option<ApiError> {
    let message = match fault {
        PairingFault::Unanswered { call_id, kind, .. } => {
            format!("No tool output found for {} {call_id}.", kind.in_words())
        }
        PairingFault::Orphan { call_id, kind, .. } => {
            format!(
                "No tool call found for {} with call_id {call_id}.",
                kind.in_words()
            )
        }
        PairingFault::WrongKind { call_id, call, .. } => {
            format!("No tool output found for {} {call_id}.", call.in_words())
        }
        PairingFault::Duplicate { call_id, kind, .. } => {
            format!("Duplicate {} found for call_id {call_id}.", kind.in_words())
        }
        PairingFault::EmptyCallId { at } => {
            format!(
                "Invalid 'input[{at}].call_id': empty string. Expected a string with minimum length 1, but got an empty string instead."
            )
        }
        PairingFault::RepeatedCall { .. } => return None,
    };
    Some(ApiError::invalid_input(&message))
}

/// The 400 for an unknown `previous_response_id`.
pub fn previous_response_not_found(id: &str) -> ApiError {
    let error = json!({
        "message": format!("Previous response with id '{id}' not found."),
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    });
    ApiError {
        status: 400,
        body: json!({"error": error}),
    }
}

/// The 400 for a body that is not a request.
pub fn invalid_body(message: &str) -> ApiError {
    let error = json!({
        "message": message, "type": "invalid_request_error", "param": null, "code": null,
    });
    ApiError {
        status: 400,
        body: json!({"error": error}),
    }
}

/// The API's own body for a status that a scenario asks for without giving one.
pub fn for_status(status: u16) -> ApiError {
    let (kind, code, message) = match status {
        401 => (
            "invalid_request_error",
            json!("invalid_api_key"),
            "Incorrect API key provided.",
        ),
        429 => (
            "tokens",
            json!("rate_limit_exceeded"),
            "Rate limit reached on tokens per min (TPM). Please try again in 1s.",
        ),
        400..=499 => (
            "invalid_request_error",
            Value::Null,
            "The request was refused.",
        ),
        503 => (
            "server_error",
            json!("server_is_overloaded"),
            "The server is overloaded. Please try again later.",
        ),
        _ => (
            "server_error",
            Value::Null,
            "The server had an error while processing your request.",
        ),
    };
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    ApiError {
        status,
        body: json!({"error": error}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{CallKind, OutputKind};

    #[test]
    fn the_messages_that_clients_look_for() {
        let unanswered = PairingFault::Unanswered {
            call_id: "call_1".into(),
            kind: CallKind::Custom,
            at: 0,
        };
        let orphan = PairingFault::Orphan {
            call_id: "call_1".into(),
            kind: OutputKind::Function,
            at: 0,
        };
        let message = |fault| for_fault(&fault).unwrap().message().to_owned();
        assert_eq!(
            message(unanswered),
            "No tool output found for custom tool call call_1."
        );
        assert_eq!(
            message(orphan),
            "No tool call found for function call output with call_id call_1."
        );
        assert_eq!(
            for_fault(&PairingFault::RepeatedCall {
                call_id: "a".into(),
                at: 1
            }),
            None
        );
    }
}
