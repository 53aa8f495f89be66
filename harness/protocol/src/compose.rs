//! Complete, valid streams made from items.
//!
//! The order of events and their fields follow what the official SDKs' stream helpers insist on, so
//! that a strict client takes a composed stream as it takes a recorded one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::event::StreamEvent;
use crate::ids::ResponseId;
use crate::item::Item;
use crate::sse;

/// Tokens that a composed response claims to have read.
const INPUT_TOKENS: u64 = 12;
/// Tokens that a composed response claims to have written, per item.
const OUTPUT_TOKENS_PER_ITEM: u64 = 4;

/// One event of a composed stream, with its bytes on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposedEvent {
    /// The event.
    pub event: StreamEvent,
    /// Its frame.
    pub bytes: Bytes,
}

/// An item for a composed stream; `chunks` is the number of deltas.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemContent<'a> {
    /// An assistant message.
    Text {
        /// The whole text.
        text: &'a str,
        /// Number of deltas.
        chunks: usize,
    },
    /// A reasoning item with a summary.
    Reasoning {
        /// The summary.
        text: &'a str,
        /// Number of deltas.
        chunks: usize,
    },
    /// A function call.
    Function {
        /// Pairs the call with its output.
        call_id: &'a str,
        /// The function.
        name: &'a str,
        /// The arguments as sent.
        arguments: &'a str,
        /// Number of deltas.
        chunks: usize,
    },
    /// A custom tool call.
    Custom {
        /// Pairs the call with its output.
        call_id: &'a str,
        /// The tool.
        name: &'a str,
        /// The input as sent.
        input: &'a str,
        /// Number of deltas.
        chunks: usize,
    },
    /// A local shell call.
    LocalShell {
        /// Pairs the call with its output.
        call_id: &'a str,
        /// The command's words.
        command: &'a [String],
    },
    /// Any item, sent as added and done.
    Raw(Item),
}

/// Builds one response's stream, event by event.
#[derive(Debug)]
pub struct Composer {
    response: Map<String, Value>,
    response_id: ResponseId,
    sequence_number: u64,
    output: Vec<Value>,
    usage: Option<Value>,
    events: Vec<ComposedEvent>,
}

impl Composer {
    /// Starts a stream with `response.created` and `response.in_progress`.
    pub fn new(response_id: &str, model: &str, created_at_s: u64) -> Self {
        let response = json!({
            "id": response_id, "object": "response", "created_at": created_at_s,
            "status": "in_progress", "background": false, "error": null,
            "incomplete_details": null, "instructions": null, "metadata": {}, "model": model,
            "output": [], "parallel_tool_calls": true, "previous_response_id": null,
            "store": false, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": null, "user": null,
        });
        let Value::Object(response) = response else {
            unreachable!("json! of an object")
        };
        let mut composer = Self {
            response,
            response_id: response_id.into(),
            sequence_number: 0,
            output: Vec::new(),
            usage: None,
            events: Vec::new(),
        };
        let response = Value::Object(composer.response.clone());
        composer.push(json!({"type": "response.created", "response": response}));
        composer.push(json!({"type": "response.in_progress", "response": response}));
        composer
    }

    /// Adds a whole item.
    pub fn item(&mut self, content: &ItemContent<'_>) {
        match content {
            ItemContent::Text { text, chunks } => self.message(text, *chunks),
            ItemContent::Reasoning { text, chunks } => self.reasoning(text, *chunks),
            ItemContent::Function {
                call_id,
                name,
                arguments,
                chunks,
            } => {
                let item = json!({"name": name, "call_id": call_id});
                let names = ("function_call", "arguments", "function_call_arguments");
                self.call(item, names, arguments, *chunks);
            }
            ItemContent::Custom {
                call_id,
                name,
                input,
                chunks,
            } => {
                let item = json!({"name": name, "call_id": call_id});
                let names = ("custom_tool_call", "input", "custom_tool_call_input");
                self.call(item, names, input, *chunks);
            }
            ItemContent::LocalShell { call_id, command } => {
                let action = json!({
                    "type": "exec", "command": command, "env": {}, "timeout_ms": null,
                    "user": null, "working_directory": null,
                });
                let item = json!({
                    "id": self.item_id("lsh"), "type": "local_shell_call", "call_id": call_id,
                    "action": action, "status": "in_progress",
                });
                self.added(&item);
                self.done(with_status(item, "completed"));
            }
            ItemContent::Raw(item) => {
                self.added(&item.to_value());
                self.done(item.to_value());
            }
        }
    }

    /// Adds the beginning of an assistant message that the stream breaks off in.
    pub fn begun_text(&mut self, text: &str, chunks: usize) {
        self.begin_message(text, chunks);
    }

    /// Sets what the response claims to have read and written.
    pub fn usage(&mut self, usage: Value) {
        self.usage = Some(usage);
    }

    /// Adds one raw event; `sequence_number` is filled in where it is absent.
    pub fn event(&mut self, event: StreamEvent) {
        self.push(Value::clone(event.as_value()));
    }

    /// Ends the stream with `response.completed`.
    pub fn completed(mut self) -> Vec<ComposedEvent> {
        self.terminal("response.completed", "completed", &[]);
        self.events
    }

    /// Ends the stream with `response.incomplete`.
    pub fn incomplete(mut self, reason: &str) -> Vec<ComposedEvent> {
        let details = ("incomplete_details", json!({"reason": reason}));
        self.terminal("response.incomplete", "incomplete", &[details]);
        self.events
    }

    /// Ends the stream with `response.failed`.
    pub fn failed(mut self, code: &str, message: &str) -> Vec<ComposedEvent> {
        let error = ("error", json!({"code": code, "message": message}));
        self.terminal("response.failed", "failed", &[error]);
        self.events
    }

    /// Ends the stream with an `error` event, nested (as captured) or flat (as the SDKs declare it).
    pub fn error(mut self, code: &str, message: &str, nested: bool) -> Vec<ComposedEvent> {
        self.push(if nested {
            let error = json!({"type": "invalid_request_error", "code": code, "message": message, "param": null});
            json!({"type": "error", "error": error})
        } else {
            json!({"type": "error", "code": code, "message": message, "param": null})
        });
        self.events
    }

    /// Leaves the stream without a terminal event.
    pub fn unfinished(self) -> Vec<ComposedEvent> {
        self.events
    }

    /// The number of events so far.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are no events; a stream always has at least `response.created`.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn push(&mut self, mut value: Value) {
        if value.get("sequence_number").is_none() {
            value["sequence_number"] = json!(self.sequence_number);
        }
        self.sequence_number += 1;
        // Every value made here is an object with a type; raw events were checked when parsed.
        if let Ok(event) = StreamEvent::from_value(value) {
            let bytes = Bytes::from(sse::frame(event.type_name(), &event.to_json()));
            self.events.push(ComposedEvent { event, bytes });
        }
    }

    fn item_id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.response_id, self.output.len())
    }

    fn added(&mut self, item: &Value) {
        let output_index = self.output.len();
        self.push(json!({
            "type": "response.output_item.added", "output_index": output_index, "item": item,
        }));
    }

    fn done(&mut self, item: Value) {
        let output_index = self.output.len();
        self.push(json!({
            "type": "response.output_item.done", "output_index": output_index, "item": item,
        }));
        self.output.push(item);
    }

    fn message(&mut self, text: &str, chunks: usize) {
        let (id, index) = (self.item_id("msg"), self.output.len());
        self.begin_message(text, chunks);
        self.push(json!({
            "type": "response.output_text.done", "item_id": id, "output_index": index,
            "content_index": 0, "text": text, "logprobs": [],
        }));
        self.push(json!({
            "type": "response.content_part.done", "item_id": id, "output_index": index,
            "content_index": 0, "part": text_part(text),
        }));
        self.done(message_item(&id, "completed", json!([text_part(text)])));
    }

    fn begin_message(&mut self, text: &str, chunks: usize) {
        let (id, index) = (self.item_id("msg"), self.output.len());
        self.added(&message_item(&id, "in_progress", json!([])));
        self.push(json!({
            "type": "response.content_part.added", "item_id": id, "output_index": index,
            "content_index": 0, "part": text_part(""),
        }));
        for delta in split_text(text, chunks) {
            self.push(json!({
                "type": "response.output_text.delta", "item_id": id, "output_index": index,
                "content_index": 0, "delta": delta, "logprobs": [],
            }));
        }
    }

    fn reasoning(&mut self, text: &str, chunks: usize) {
        let (id, index) = (self.item_id("rs"), self.output.len());
        let item = |summary: Value| json!({"id": id, "type": "reasoning", "summary": summary});
        let part = |text: &str| json!({"type": "summary_text", "text": text});
        self.added(&item(json!([])));
        self.push(json!({
            "type": "response.reasoning_summary_part.added", "item_id": id, "output_index": index,
            "summary_index": 0, "part": part(""),
        }));
        for delta in split_text(text, chunks) {
            self.push(json!({
                "type": "response.reasoning_summary_text.delta", "item_id": id,
                "output_index": index, "summary_index": 0, "delta": delta,
            }));
        }
        self.push(json!({
            "type": "response.reasoning_summary_text.done", "item_id": id, "output_index": index,
            "summary_index": 0, "text": text,
        }));
        self.push(json!({
            "type": "response.reasoning_summary_part.done", "item_id": id, "output_index": index,
            "summary_index": 0, "part": part(text),
        }));
        self.done(item(json!([part(text)])));
    }

    /// A call whose text (arguments or input) is streamed in deltas.
    fn call(&mut self, mut item: Value, names: (&str, &str, &str), text: &str, chunks: usize) {
        let (kind, field, event) = names;
        let prefix = if kind == "function_call" { "fc" } else { "ctc" };
        let (id, index) = (self.item_id(prefix), self.output.len());
        item["id"] = json!(id);
        item["type"] = json!(kind);
        item["status"] = json!("in_progress");
        item[field] = json!("");
        self.added(&item);
        for delta in split_text(text, chunks) {
            self.push(json!({
                "type": format!("response.{event}.delta"), "item_id": id, "output_index": index,
                "delta": delta,
            }));
        }
        let mut done = json!({
            "type": format!("response.{event}.done"), "item_id": id, "output_index": index,
        });
        done[field] = json!(text);
        self.push(done);
        item[field] = json!(text);
        self.done(with_status(item, "completed"));
    }

    fn terminal(&mut self, kind: &str, status: &str, more: &[(&str, Value)]) {
        let output_tokens = OUTPUT_TOKENS_PER_ITEM * self.output.len() as u64;
        let mut response = self.response.clone();
        response.insert("status".to_owned(), json!(status));
        response.insert("output".to_owned(), json!(self.output));
        let usage = json!({
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + output_tokens,
        });
        response.insert("usage".to_owned(), self.usage.take().unwrap_or(usage));
        for (name, value) in more {
            response.insert((*name).to_owned(), value.clone());
        }
        self.push(json!({"type": kind, "response": response}));
    }
}

fn message_item(id: &str, status: &str, content: Value) -> Value {
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn with_status(mut item: Value, status: &str) -> Value {
    item["status"] = json!(status);
    item
}

/// Cuts a text into that many pieces of nearly equal length in characters; an empty text is one
/// empty piece, and a piece never is empty otherwise.
pub fn split_text(text: &str, chunks: usize) -> Vec<&str> {
    let bounds: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    let characters = bounds.len() - 1;
    let chunks = chunks.clamp(1, characters.max(1));
    (0..chunks)
        .map(|n| &text[bounds[n * characters / chunks]..bounds[(n + 1) * characters / chunks]])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn composed() -> Vec<ComposedEvent> {
        let mut composer = Composer::new("resp_1", "m", 1);
        composer.item(&ItemContent::Reasoning {
            text: "hm hm",
            chunks: 2,
        });
        composer.item(&ItemContent::Text {
            text: "héllo",
            chunks: 3,
        });
        composer.item(&ItemContent::Function {
            call_id: "call_1",
            name: "f",
            arguments: "{\"a\":1}",
            chunks: 2,
        });
        composer.item(&ItemContent::Custom {
            call_id: "call_2",
            name: "g",
            input: "x",
            chunks: 1,
        });
        composer.item(&ItemContent::LocalShell {
            call_id: "call_3",
            command: &["ls".to_owned()],
        });
        composer.completed()
    }

    #[test]
    fn every_field_that_the_types_require_is_there() {
        for ComposedEvent { event, .. } in composed() {
            assert_eq!(
                event.problems(),
                Vec::<String>::new(),
                "{}",
                event.to_json()
            );
            if event.type_name() == "response.output_item.done" {
                assert_eq!(event.item().unwrap().problems(), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn the_order_that_strict_clients_insist_on() {
        let events = composed();
        let numbers: Vec<_> = events
            .iter()
            .map(|e| e.event.integer("sequence_number").unwrap())
            .collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        let names: Vec<_> = events
            .iter()
            .map(|e| e.event.type_name().to_owned())
            .collect();
        assert_eq!(
            names
                .iter()
                .filter(|name| *name == "response.output_item.added")
                .count(),
            5
        );
        assert_eq!(
            names
                .iter()
                .filter(|name| *name == "response.output_item.done")
                .count(),
            5
        );
        assert_eq!(names.first().map(String::as_str), Some("response.created"));
        assert_eq!(names.last().map(String::as_str), Some("response.completed"));
        let last = events.last().unwrap().event.response().unwrap();
        assert_eq!(last["output"].as_array().unwrap().len(), 5);
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_text(text in ".{0,40}", chunks in 0usize..50) {
            let pieces = split_text(&text, chunks);
            prop_assert_eq!(pieces.concat(), text.clone());
            prop_assert!(text.is_empty() || pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
