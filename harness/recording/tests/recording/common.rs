//! What several tests need.

use cutpoint_protocol::compose::{ComposedEvent, Composer, ItemContent};
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_recording::{Exchange, REDACTED, RecordedRequest, Response};
use serde_json::{Value, json};

/// When the composed responses say they were made.
pub(crate) const CREATED_AT_S: u64 = 1_762_084_800;
/// The model that they say made them.
pub(crate) const MODEL: &str = "gpt-5.1-codex";

/// The bytes of a stream with these items, ended by `response.completed`.
pub(crate) fn stream(response_id: &str, contents: &[ItemContent<'_>]) -> Vec<u8> {
    let mut composer = Composer::new(response_id, MODEL, CREATED_AT_S);
    contents.iter().for_each(|content| composer.item(content));
    bytes(&composer.completed())
}

/// The bytes of composed events.
pub(crate) fn bytes(events: &[ComposedEvent]) -> Vec<u8> {
    events
        .iter()
        .flat_map(|event| event.bytes.to_vec())
        .collect()
}

/// The bytes as an answer.
pub(crate) fn response(bytes: &[u8]) -> Response {
    Response::Stream(Document::parse(bytes, EVENT_LIMIT_BYTES).unwrap())
}

/// An exchange with a request that has this input.
pub(crate) fn exchange(number: usize, input: &[Value], bytes: &[u8]) -> Exchange {
    let body = json!({
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": input,
        "tools": [{
            "type": "function",
            "name": "shell",
            "description": "Runs a command and returns its output.",
            "strict": false,
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                "required": ["command"],
            },
        }],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "store": false,
        "stream": true,
    });
    let headers = [
        ("accept", "text/event-stream"),
        ("authorization", REDACTED),
        ("content-type", "application/json"),
    ];
    let request = RecordedRequest {
        method: "POST".to_owned(),
        path: "/v1/responses".to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body,
    };
    Exchange {
        number,
        request: Some(request),
        response: response(bytes),
    }
}

/// A message.
pub(crate) fn message(role: &str, text: &str) -> Value {
    let part = if role == "assistant" {
        "output_text"
    } else {
        "input_text"
    };
    json!({"type": "message", "role": role, "content": [{"type": part, "text": text}]})
}

/// A shell call and its arguments.
pub(crate) fn shell_call(call_id: &str, command: &str) -> Value {
    json!({
        "type": "function_call",
        "call_id": call_id,
        "name": "shell",
        "arguments": shell_arguments(command),
    })
}

/// The arguments of a shell call.
pub(crate) fn shell_arguments(command: &str) -> String {
    json!({"command": ["bash", "-c", command]}).to_string()
}

/// A call's output.
pub(crate) fn output(call_id: &str, text: &str) -> Value {
    json!({"type": "function_call_output", "call_id": call_id, "output": text})
}
