//! What a call asks for.

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use serde_json::Value;

use crate::config::Config;
use crate::sub_agent::SubAgentCall;
use crate::tools::patch::Patch;
use crate::tools::{CallError, ToolCommand, call_text};

/// What a call asks for.
#[derive(Debug)]
pub(super) enum ToolInvocation {
    /// A command is to be run.
    Command {
        command: ToolCommand,
        /// Whether the user must allow it first.
        asks: bool,
    },
    /// The user is to be asked.
    Question(Vec<String>),
    /// Files are to be changed.
    Patch(Patch),
    /// A sub-agent has something to do.
    SubAgentCall(SubAgentCall),
}

/// What a call asks for.
///
/// # Errors
/// What is wrong with the call, for the model to read.
pub(super) fn of(
    call: &Item,
    kind: CallKind,
    config: &Config,
) -> Result<ToolInvocation, CallError> {
    let name = call.text("name").unwrap_or_default();
    match (kind, name) {
        (CallKind::Function, "request_user_input") => questions(&call_text::arguments(call)?),
        (CallKind::Custom, "apply_patch") => {
            let text = call.text("input").unwrap_or_default();
            Patch::parse(text).map(ToolInvocation::Patch)
        }
        (CallKind::Function, name) if SubAgentCall::is_tool(name) => {
            if config.depth > 0 {
                return Err("a sub-agent can't start or direct sub-agents".into());
            }
            SubAgentCall::of(name, &call_text::arguments(call)?).map(ToolInvocation::SubAgentCall)
        }
        _ => {
            let command = call_text::command(call, kind, &config.cwd)?;
            let asks = call_text::asks_approval(call, kind);
            Ok(ToolInvocation::Command { command, asks })
        }
    }
}

fn questions(arguments: &Value) -> Result<ToolInvocation, CallError> {
    let questions = arguments["questions"].as_array();
    let questions = questions.filter(|questions| !questions.is_empty());
    let texts: Option<Vec<String>> = questions
        .into_iter()
        .flatten()
        .map(|question| question.as_str().map(str::to_owned))
        .collect();
    match (questions, texts) {
        (Some(_), Some(texts)) => Ok(ToolInvocation::Question(texts)),
        _ => Err("`questions` must be an array of strings, at least one".into()),
    }
}
