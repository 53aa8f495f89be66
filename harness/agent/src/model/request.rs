//! The body of a request.

use serde_json::{Map, Value, json};

use crate::config::HistoryMode;
use crate::history::Input;

const INSTRUCTIONS: &str = "You are a coding agent in a terminal. Use the tools to look at and \
    change the user's files, and say briefly what you did.";

/// The body of a request that carries `input`.
pub(crate) fn body(
    model: &str,
    input: &Input,
    history: HistoryMode,
    session: &str,
) -> Map<String, Value> {
    let items: Vec<Value> = input.items.iter().map(|item| item.to_value()).collect();
    let body = json!({
        "model": model,
        "instructions": INSTRUCTIONS,
        "input": items,
        "tools": tools(),
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "store": history == HistoryMode::Server,
        "stream": true,
        "prompt_cache_key": session,
    });
    let Value::Object(mut body) = body else {
        unreachable!("the macro was given an object")
    };
    if history == HistoryMode::Full {
        // A server that keeps nothing can read its own reasoning only if it is sent back.
        body.insert("include".to_owned(), json!(["reasoning.encrypted_content"]));
    }
    if let Some(id) = &input.previous_response_id {
        body.insert("previous_response_id".to_owned(), json!(id));
    }
    body
}

fn tools() -> Value {
    json!([
        {
            "type": "function",
            "name": "shell",
            "description": "Runs a command and returns what it prints. What it leaves running in \
                the background is ended with it.",
            "strict": false,
            "parameters": {
                "type": "object",
                "properties": {
                    "command": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "The program and its arguments.",
                    },
                    "workdir": {"type": "string", "description": "Where to run it."},
                    "timeout_ms": {"type": "number", "description": "When to end it."},
                    "sandbox_permissions": {
                        "type": "string",
                        "enum": ["use_default", "require_escalated"],
                        "description": "`require_escalated` asks the user first.",
                    },
                    "justification": {"type": "string", "description": "What the user is told."},
                },
                "required": ["command"],
                "additionalProperties": false,
            },
        },
        {
            "type": "custom",
            "name": "run_script",
            "description": "Runs a bash script, given as it is, and returns what it prints.",
        },
        {"type": "local_shell"},
    ])
}
