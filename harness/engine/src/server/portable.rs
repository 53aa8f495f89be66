//! Streams of imports, made to call the tool that the agent at hand has.
//!
//! An import's calls are calls of `shell` (see `cutpoint_recording::import`), whichever agent wrote the
//! rollout. Each agent advertises a shell tool under its own name and with its own arguments.

use bytes::Bytes;
use cutpoint_protocol::request::{ResponsesRequest, ShellTool};
use cutpoint_protocol::{Item, StreamEvent, sse};
use serde_json::{Value, json};

use super::plan::{Frame, StreamPlan};

/// The tool that imports call.
const OWN: &str = "shell";

/// The stream with its calls written for the tool that the request advertises. Where it advertises
/// none, the stream stays as it is.
pub(super) fn adapted(mut plan: StreamPlan, request: &ResponsesRequest) -> StreamPlan {
    let Some(tool) = request
        .shell_tool()
        .filter(|it| *it != ShellTool::Words(OWN))
    else {
        return plan;
    };
    let frames = plan.frames.iter().map(|frame| adapt(frame, tool));
    plan.frames = frames.collect();
    plan
}

fn adapt(frame: &Frame, tool: ShellTool) -> Frame {
    let Some(event) = &frame.event else {
        return frame.clone();
    };
    let mut value = Value::clone(event.as_value());
    let mut changed = false;
    if let Some(item) = value.get_mut("item") {
        changed |= adapt_item(item, tool);
    }
    let output = value.pointer_mut("/response/output");
    for item in output.and_then(Value::as_array_mut).into_iter().flatten() {
        changed |= adapt_item(item, tool);
    }
    let is_arguments = event
        .type_name()
        .starts_with("response.function_call_arguments.");
    for field in ["delta", "arguments"].into_iter().filter(|_| is_arguments) {
        let own = value.get(field).and_then(Value::as_str);
        if let Some((_, arguments)) = own.and_then(|own| written_for(tool, own)) {
            value[field] = json!(arguments);
            changed = true;
        }
    }
    match StreamEvent::from_value(value) {
        Ok(event) if changed => Frame {
            bytes: Bytes::from(sse::frame(event.type_name(), &event.to_json())),
            event: Some(event),
            delay: frame.delay,
        },
        _ => frame.clone(),
    }
}

fn adapt_item(item: &mut Value, tool: ShellTool) -> bool {
    let read = Item::from_value(item.clone()).ok();
    let is_own = |it: &Item| it.call_kind().is_some() && it.text("name") == Some(OWN);
    let Some(call) = read.filter(is_own) else {
        return false;
    };
    let arguments = call.text("arguments").unwrap_or_default();
    let Some((name, _)) = tool.call("", false) else {
        return to_local_shell(item, arguments);
    };
    item["name"] = json!(name);
    if let Some((_, arguments)) = written_for(tool, arguments) {
        item["arguments"] = json!(arguments);
    }
    true
}

/// The arguments in which an import calls its tool, written for another one.
fn written_for(tool: ShellTool, own: &str) -> Option<(&'static str, String)> {
    tool.call(&command(own)?, false)
}

fn command(own: &str) -> Option<String> {
    let arguments: Value = serde_json::from_str(own).ok()?;
    Some(arguments["command"].get(2)?.as_str()?.to_owned())
}

/// The built-in tool's calls are items of their own kind. Their arguments are no text of their own, so
/// the deltas in between mean nothing to a client.
fn to_local_shell(item: &mut Value, arguments: &str) -> bool {
    let words = command(arguments).map_or_else(Vec::new, |command| {
        ["bash", "-c", &command].map(str::to_owned).to_vec()
    });
    *item = json!({
        "id": item["id"], "type": "local_shell_call", "call_id": item["call_id"],
        "status": item["status"],
        "action": {
            "type": "exec", "command": words, "env": {}, "timeout_ms": null, "user": null,
            "working_directory": null,
        },
    });
    true
}
