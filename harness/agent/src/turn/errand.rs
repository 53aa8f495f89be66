//! What a call asks for.

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use serde_json::Value;

use crate::config::Config;
use crate::delegate::Delegation;
use crate::tools::patch::Patch;
use crate::tools::{ToolCommand, parse};

/// What a call asks for.
#[derive(Debug)]
pub(super) enum Errand {
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
    Delegation(Delegation),
}

/// What a call asks for.
///
/// # Errors
/// What is wrong with the call, for the model to read.
pub(super) fn of(call: &Item, kind: CallKind, config: &Config) -> Result<Errand, String> {
    let name = call.text("name").unwrap_or_default();
    match (kind, name) {
        (CallKind::Function, "request_user_input") => questions(&parse::arguments(call)?),
        (CallKind::Custom, "apply_patch") => {
            let text = call.text("input").unwrap_or_default();
            Patch::parse(text).map(Errand::Patch)
        }
        (CallKind::Function, name) if Delegation::is_tool(name) => {
            if config.depth > 0 {
                return Err("a sub-agent can't start or direct sub-agents".to_owned());
            }
            Delegation::of(name, &parse::arguments(call)?).map(Errand::Delegation)
        }
        _ => {
            let command = parse::command(call, kind, &config.cwd)?;
            let asks = parse::asks_approval(call, kind);
            Ok(Errand::Command { command, asks })
        }
    }
}

fn questions(arguments: &Value) -> Result<Errand, String> {
    let questions = arguments["questions"].as_array();
    let questions = questions.filter(|questions| !questions.is_empty());
    let texts: Option<Vec<String>> = questions
        .into_iter()
        .flatten()
        .map(|question| question.as_str().map(str::to_owned))
        .collect();
    match (questions, texts) {
        (Some(_), Some(texts)) => Ok(Errand::Question(texts)),
        _ => Err("`questions` must be an array of strings, at least one".to_owned()),
    }
}
