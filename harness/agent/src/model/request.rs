//! The body of a request.

use std::sync::LazyLock;

use cutpoint_protocol::Item;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::config::{Config, HistoryMode};
use crate::history::RequestInput;

const INSTRUCTIONS: &str = "You are a coding agent in a terminal. Use the tools to look at and \
    change the user's files, and say briefly what you did.";

/// Room for the tools and a short conversation.
const USUAL_BYTES: usize = 16 << 10;

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    instructions: &'a str,
    input: &'a [Item],
    tools: &'a RawValue,
    tool_choice: &'a str,
    parallel_tool_calls: bool,
    store: bool,
    stream: bool,
    prompt_cache_key: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_response_id: Option<&'a str>,
}

/// The body of a request that carries `input`, with the tools that an agent of that depth has.
pub(crate) fn body(config: &Config, input: &RequestInput, session: &str) -> Vec<u8> {
    // The tools are the same each time: they are written once.
    static OWN: LazyLock<Box<RawValue>> = LazyLock::new(|| written(&tools()));
    static ALL: LazyLock<Box<RawValue>> =
        LazyLock::new(|| written(&[tools(), delegation()].concat()));
    let stored = config.history == HistoryMode::Server;
    let body = Body {
        model: &config.model,
        instructions: INSTRUCTIONS,
        input: &input.items,
        tools: if config.depth == 0 { &ALL } else { &OWN },
        tool_choice: "auto",
        parallel_tool_calls: true,
        store: stored,
        stream: true,
        prompt_cache_key: session,
        // A server that keeps nothing can read its own reasoning only if it is sent back.
        include: if stored {
            &[]
        } else {
            &["reasoning.encrypted_content"]
        },
        previous_response_id: input.previous_response_id.as_deref(),
    };
    // JSON values, texts and flags can be written without fail.
    let mut written = Vec::with_capacity(USUAL_BYTES);
    let _ = serde_json::to_writer(&mut written, &body);
    written
}

fn written(tools: &[Value]) -> Box<RawValue> {
    // As below: what is JSON already can be written.
    to_raw_value(tools).unwrap_or_default()
}

/// The tools by which an agent directs others.
fn delegation() -> Vec<Value> {
    let text = |name: &str| (name.to_owned(), json!({"type": "string"}));
    let tool = |name: &str, description: &str, fields: &[&str]| {
        let properties: Map<String, Value> = fields.iter().map(|field| text(field)).collect();
        json!({
            "type": "function", "name": name, "description": description, "strict": false,
            "parameters": {
                "type": "object", "properties": properties, "required": fields,
                "additionalProperties": false,
            },
        })
    };
    vec![
        tool(
            "delegate",
            "Has a sub-agent do a task and returns its last message.",
            &["task"],
        ),
        tool(
            "spawn_agent",
            "Starts a sub-agent on a task and returns its id.",
            &["task"],
        ),
        tool(
            "send_input",
            "Tells a sub-agent something.",
            &["agent_id", "message"],
        ),
        tool(
            "wait_agent",
            "Waits for a sub-agent and returns its last message.",
            &["agent_id"],
        ),
        tool("close_agent", "Ends a sub-agent.", &["agent_id"]),
    ]
}

/// The tools that every agent has.
fn tools() -> Vec<Value> {
    vec![
        json!({
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
        }),
        json!({
            "type": "custom",
            "name": "run_script",
            "description": "Runs a bash script, given as it is, and returns what it prints.",
        }),
        json!({"type": "local_shell"}),
        json!({
            "type": "custom",
            "name": "apply_patch",
            "description": "Adds, updates and deletes files below the working directory. The input \
                is a patch from `*** Begin Patch` to `*** End Patch`.",
        }),
        json!({
            "type": "function",
            "name": "request_user_input",
            "description": "ClientRequests the user and returns the answers, in the order of the questions.",
            "strict": false,
            "parameters": {
                "type": "object",
                "properties": {"questions": {"type": "array", "items": {"type": "string"}}},
                "required": ["questions"],
                "additionalProperties": false,
            },
        }),
    ]
}
