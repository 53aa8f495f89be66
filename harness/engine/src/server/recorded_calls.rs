//! Recorded streams, made to call tools that the agent at hand has.
//!
//! An import's calls are calls of `shell` (see `cutpoint_recording::import`), whichever agent wrote the
//! rollout. Each agent advertises a shell tool under its own name and with its own arguments.
//!
//! A recording of a real model calls what the recorded agent had. For a tool that the agent at hand does not
//! advertise, the shell is called, with a command that prints what was recorded, as in an import.

use std::collections::HashMap;

use bytes::Bytes;
use cutpoint_protocol::request::{ResponsesRequest, ShellTool};
use cutpoint_protocol::{Item, StreamEvent, sse};
use cutpoint_recording::ToolSubstitutes;
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

/// The stream with stand-ins for the calls of tools that the request does not advertise. `stand_ins` is
/// asked for only if there are any.
pub(super) fn stood_in(
    mut plan: StreamPlan,
    request: &ResponsesRequest,
    stand_ins: impl FnOnce() -> ToolSubstitutes,
) -> StreamPlan {
    let Some(tool) = request.shell_tool() else {
        return plan;
    };
    let foreign = |frame: &Frame| {
        let item = Item::from_value(frame.event.as_ref()?.as_value().get("item")?.clone()).ok()?;
        item.call_kind()?;
        let name = item.text("name").filter(|name| !request.advertises(name))?;
        (!name.is_empty()).then_some(item)
    };
    let mut foreign = plan.frames.iter().filter_map(foreign).peekable();
    if foreign.peek().is_none() {
        return plan;
    }
    let stand_ins = stand_ins();
    let calls = foreign.filter_map(|item| Some((item.id()?.to_owned(), stand_ins.of(&item)?)));
    let mut calls = StandInCalls {
        tool,
        calls: calls.collect(),
        begun: Vec::new(),
    };
    let frames = plan.frames.iter().map(|frame| calls.frame(frame));
    plan.frames = frames.collect();
    plan
}

/// The calls that are sent in place of others.
struct StandInCalls {
    tool: ShellTool,
    /// By the id of the item that each replaces.
    calls: HashMap<String, Item>,
    /// Those of which a delta was sent.
    begun: Vec<String>,
}

impl StandInCalls {
    fn frame(&mut self, frame: &Frame) -> Frame {
        let Some(event) = &frame.event else {
            return frame.clone();
        };
        let mut value = Value::clone(event.as_value());
        let mut changed = value.get_mut("item").is_some_and(|item| self.item(item));
        let output = value.pointer_mut("/response/output");
        for item in output.and_then(Value::as_array_mut).into_iter().flatten() {
            changed |= self.item(item);
        }
        changed |= self.arguments(&mut value);
        rewritten(frame, value, changed)
    }

    fn item(&self, item: &mut Value) -> bool {
        let id = item["id"].as_str().unwrap_or_default();
        let Some(call) = self.calls.get(id) else {
            return false;
        };
        let mut own = call.to_value();
        own["id"] = item["id"].clone();
        own["status"] = item["status"].clone();
        adapt_item(&mut own, self.tool);
        if item["status"] == "in_progress" && own.get("arguments").is_some() {
            own["arguments"] = json!("");
        }
        *item = own;
        true
    }

    /// The first delta brings all of the arguments: there are as many events as were recorded.
    fn arguments(&mut self, event: &mut Value) -> bool {
        let id = event["item_id"].as_str().unwrap_or_default().to_owned();
        let Some(own) = self.calls.get(&id).and_then(|call| call.text("arguments")) else {
            return false;
        };
        let arguments = written_for(self.tool, own).map_or(own.to_owned(), |(_, written)| written);
        let kind = event["type"].as_str().unwrap_or_default();
        let is_delta = kind.ends_with(".delta");
        let first = is_delta && !self.begun.contains(&id);
        let mut replaced = json!({
            "type": format!("response.function_call_arguments.{}", if is_delta { "delta" } else { "done" }),
            "item_id": id, "output_index": event["output_index"],
            "sequence_number": event["sequence_number"],
        });
        if is_delta {
            replaced["delta"] = json!(if first { &arguments } else { "" });
            self.begun.push(id);
        } else {
            replaced["arguments"] = json!(arguments);
        }
        *event = replaced;
        true
    }
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
    rewritten(frame, value, changed)
}

/// The frame with another event, if that was changed.
fn rewritten(frame: &Frame, value: Value, changed: bool) -> Frame {
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

#[cfg(test)]
mod tests {
    use cutpoint_protocol::compose::{Composer, ItemContent};
    use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
    use cutpoint_recording::{Exchange, Recording, Response};

    use super::super::plan;
    use super::*;

    /// A recording of one answer, which calls a tool `exec` and was cut off.
    fn recording() -> Recording {
        let mut composer = Composer::new("resp_1", "m", 0);
        composer.item(&ItemContent::Custom {
            call_id: "call_1",
            name: "exec",
            input: "text(1)",
            chunks: 3,
        });
        let events = composer.completed();
        let bytes: Vec<u8> = events.iter().flat_map(|it| it.bytes.to_vec()).collect();
        let mut recording = Recording::new("r", "test");
        recording.exchanges.push(Exchange {
            number: 1,
            request: None,
            response: Response::Stream(Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap()),
        });
        recording
    }

    /// What a request with that tool is sent.
    fn sent(tool: Value) -> (Vec<String>, Vec<Item>) {
        let recording = recording();
        let Response::Stream(document) = &recording.exchanges[0].response else {
            unreachable!("the answer is a stream");
        };
        let body = json!({"model": "m", "input": "hi", "tools": [tool]}).to_string();
        let request = ResponsesRequest::parse(body.as_bytes()).unwrap();
        let plan = plan::recorded(document, false);
        let plan = stood_in(plan, &request, || recording.substitutes());
        let events = plan.frames.iter().filter_map(|frame| frame.event.as_ref());
        let names = events.map(|event| event.type_name().to_owned());
        (names.collect(), plan.output().collect())
    }

    #[test]
    fn a_tool_that_is_not_advertised_is_stood_in_for_by_the_shell() {
        let (kept, output) = sent(json!({"type": "custom", "name": "exec"}));
        assert_eq!(output[0].text("input"), Some("text(1)"));
        let (names, output) = sent(json!({"type": "function", "name": "exec_command"}));
        assert_eq!(names.len(), kept.len(), "cut points stay where they were");
        assert!(
            !names.iter().any(|name| name.contains("custom")),
            "{names:?}"
        );
        let call = &output[0];
        assert_eq!(call.call_id(), Some("call_1"));
        assert_eq!(call.text("name"), Some("exec_command"));
        assert_eq!(call.text("arguments"), Some(r#"{"cmd":"sleep 60"}"#));
        let (_, output) = sent(json!({"type": "local_shell"}));
        assert_eq!(output[0].type_name(), "local_shell_call");
    }

    #[test]
    fn without_a_shell_the_call_stays() {
        let (_, output) = sent(json!({"type": "function", "name": "web"}));
        assert_eq!(output[0].text("name"), Some("exec"));
    }
}
