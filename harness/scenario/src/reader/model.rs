//! The model's side: recordings and replies.

use super::step::drop_way;
use super::{DefinedCall, MODEL, NodeReader, OTHER, REPLY, STATUS, ScenarioReader};
use crate::ast::{
    ModelScript, RecordingRef, Reply, ReplyBody, ReplyEnd, ReplyPart, SideConversationScript,
};
use crate::diagnostic::Diagnostic;
use crate::kdl::{Arg, Block, Node};

/// The bytes that JSON adds to a command in the shortest form of a shell call, `{"cmd":""}`; an
/// argument can be cut into that many more deltas than its command has characters.
const SHELL_ENVELOPE_CHARS: usize = 10;

/// The parts and ends of a reply, as they are written.
fn usage(name: &str) -> &'static str {
    match name {
        "text" => "text \"Hello\" chunks=3",
        "reasoning" => "reasoning \"Let me see\" chunks=2",
        "shell" => "shell call_1 \"sleep 60\"",
        "function" => "function call_1 name #\"{\"a\":1}\"#",
        "custom" => "custom call_1 apply_patch \"input\"",
        "local-shell" => "local-shell call_1 \"ls\" \"-l\"",
        "item" => "item #\"{\"type\":\"message\",…}\"#",
        "event" => "event #\"{\"type\":\"response.created\",…}\"#",
        "malformed" => "malformed \"data: {oops\"",
        "pause" => "pause \"50ms\"",
        "stall" => "stall",
        "drop" => "drop reset",
        "incomplete" => "incomplete \"max_output_tokens\"",
        "failed" => "failed code=\"server_error\" message=\"…\"",
        _ => "error code=\"server_error\" message=\"…\"",
    }
}

/// Reads `model for="…" { … }`.
pub(super) fn read_other(reader: &mut ScenarioReader<'_>, node: &Node) -> SideConversationScript {
    let span = reader.span(node);
    let mut fields = NodeReader::new(reader, node, "model for=\"Look into it\" { reply { … } }");
    let opening = fields.prop_needle("for").unwrap_or_default();
    let block = fields.block();
    fields.finish();
    let mut replies = Vec::new();
    for child in block.map_or(&[][..], |block| &block.nodes) {
        if reader.is_full() {
            break;
        }
        if child.name == "reply" {
            replies.push(reply(reader, child));
        } else {
            reader.facts.open_world = true;
            reader.unknown_node(child, &OTHER);
        }
    }
    if replies.is_empty() && !reader.facts.open_world {
        reader.problems.push(
            Diagnostic::new(
                "empty-model",
                node.name_span.clone(),
                "this model answers nothing",
                "the conversation would get no reply",
            )
            .help("write `model for=\"…\" { reply { text \"Hello\" } }`"),
        );
    }
    SideConversationScript {
        opening,
        replies,
        span,
    }
}

/// Reads `model { … }`.
pub(super) fn read(reader: &mut ScenarioReader<'_>, node: &Node) -> ModelScript {
    let mut fields = NodeReader::new(reader, node, "model { reply { … } }");
    let mut model = ModelScript {
        name: model_name(&mut fields),
        substitute_tools: fields.prop_flag("substitute-tools"),
        ..ModelScript::default()
    };
    let block = fields.block();
    fields.finish();
    for child in block.map_or(&[][..], |block| &block.nodes) {
        if reader.is_full() {
            break;
        }
        match child.name.as_str() {
            "reply" => model.replies.push(reply(reader, child)),
            "recording" => {
                let span = reader.span(child);
                let mut fields = NodeReader::new(reader, child, "recording \"name\"");
                let name = fields.text("a name");
                fields.finish();
                reader.facts.open_world = true;
                if model.recording.is_some() {
                    reader.problems.push(
                        Diagnostic::new(
                            "duplicate-node",
                            child.name_span.clone(),
                            "a model replays one recording only",
                            "this is the second",
                        )
                        .help(
                            "single exchanges of other recordings are \
                             `reply recording=\"name\" exchange=1`",
                        ),
                    );
                }
                model.recording = Some(RecordingRef { name, span });
            }
            _ => {
                reader.facts.open_world = true;
                reader.unknown_node(child, &MODEL);
            }
        }
    }
    if model.recording.is_some() && !model.replies.is_empty() {
        reader.problems.push(
            Diagnostic::new(
                "recording-and-replies",
                node.name_span.clone(),
                "a model replays a recording or composes its replies, not both",
                "this one has a `recording` and a `reply`",
            )
            .help("single exchanges of a recording are `reply recording=\"name\" exchange=1`"),
        );
    }
    model
}

/// Reads `name="…"`: the name goes to agents as it is.
fn model_name(fields: &mut NodeReader<'_, '_, '_>) -> Option<String> {
    let arg = fields.prop("name")?;
    let name = fields.as_text(arg, "`name`")?;
    if name.trim().is_empty() {
        fields.problem(
            "empty-text",
            arg.span.clone(),
            "a model's name is not empty".to_owned(),
            "this is empty",
            "write a name such as `gpt-6.1-sol`, or leave `name` out for the agent's own default"
                .to_owned(),
        );
    }
    Some(name)
}

fn reply(reader: &mut ScenarioReader<'_>, node: &Node) -> Reply {
    let span = reader.span(node);
    let mut fields = NodeReader::new(reader, node, "reply { text \"Hello\" }");
    let lenient = fields.prop_flag("lenient");
    let status = fields.prop("status");
    let retry_after = fields.prop("retry-after");
    let recording = fields.prop_text("recording");
    let exchange = fields.prop_position("exchange");
    let is_recorded = node.props.iter().any(|prop| prop.name == "recording");
    let body = if is_recorded {
        if exchange.is_none() && !node.props.iter().any(|prop| prop.name == "exchange") {
            fields.form(
                "reply recording=…".to_owned(),
                "reply recording=\"name\" exchange=1",
            );
            fields.missing_prop("exchange");
        }
        for key in ["status", "retry-after"] {
            refuse_prop(&mut fields, node, key, "a recorded exchange brings its own");
        }
        fields.form(
            "reply recording=…".to_owned(),
            "reply recording=\"name\" exchange=1",
        );
        fields.reader.facts.open_world = true;
        fields.finish();
        ReplyBody::Recorded {
            name: recording.unwrap_or_default(),
            exchange: exchange.unwrap_or_default(),
        }
    } else {
        refuse_prop(
            &mut fields,
            node,
            "exchange",
            "say of which recording: `recording=\"name\"`",
        );
        match status {
            Some(arg) => status_body(fields, arg, retry_after),
            None => {
                refuse_prop(
                    &mut fields,
                    node,
                    "retry-after",
                    "it needs an HTTP status: `reply status=429 retry-after=1`",
                );
                stream_body(fields, node)
            }
        }
    };
    Reply {
        body,
        lenient,
        span,
    }
}

/// Reports a property that this form of a reply cannot have.
fn refuse_prop(fields: &mut NodeReader<'_, '_, '_>, node: &Node, key: &str, help: &str) {
    if let Some(prop) = node.props.iter().find(|prop| prop.name == key) {
        fields.problem(
            "unknown-property",
            prop.name_span.clone(),
            format!("`{key}` has no meaning in this reply"),
            "does not belong here",
            help.to_owned(),
        );
    }
}

fn status_body(
    mut fields: NodeReader<'_, '_, '_>,
    status: &Arg,
    retry_after: Option<&Arg>,
) -> ReplyBody {
    fields.form(
        "reply status=…".to_owned(),
        "reply status=429 retry-after=1 { header \"name\" \"value\"; body \"…\" }",
    );
    let number = fields.as_number(status, "`status`");
    if number.is_some_and(|number| !(200..=599).contains(&number)) {
        fields.problem(
            "bad-status",
            status.span.clone(),
            "this is not the HTTP status of a response".to_owned(),
            "out of range",
            "write a number from 200 to 599".to_owned(),
        );
    }
    let retry_after_s = retry_after
        .and_then(|arg| fields.as_number(arg, "`retry-after`"))
        .map(|seconds| seconds as u64);
    let mut headers = Vec::new();
    let mut body = None;
    let block = fields.block();
    let reader = fields.finish();
    for child in block.map_or(&[][..], |block| &block.nodes) {
        match child.name.as_str() {
            "header" => headers.extend(header(reader, child)),
            "body" => {
                let mut fields = NodeReader::new(reader, child, "body #\"{\"error\":{}}\"#");
                let text = fields.text("a text");
                if body.is_some() {
                    fields.problem(
                        "duplicate-node",
                        child.name_span.clone(),
                        "a reply has one `body` only".to_owned(),
                        "this is the second",
                        "join them into one".to_owned(),
                    );
                }
                fields.finish();
                body = Some(text);
            }
            _ => reader.unknown_node(child, &STATUS),
        }
    }
    ReplyBody::Status {
        status: number
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or_default(),
        retry_after_s,
        headers,
        body,
    }
}

fn header(reader: &mut ScenarioReader<'_>, node: &Node) -> Option<(String, String)> {
    let mut fields = NodeReader::new(reader, node, "header \"x-request-id\" \"r1\"");
    let name = fields.required("a header's name and value");
    let value = match name {
        Some(_) => fields.required("a value"),
        None => None,
    };
    let pair = match (name, value) {
        (Some(name), Some(value)) => {
            let texts = (
                fields.as_text(name, "a header's name"),
                fields.as_text(value, "a header's value"),
            );
            if texts.0.as_ref().is_some_and(|text| !is_header_name(text)) {
                fields.problem(
                    "bad-header",
                    name.span.clone(),
                    "this is not the name of an HTTP header".to_owned(),
                    "not a header name",
                    "a name has letters, digits and `-`, such as `x-request-id`".to_owned(),
                );
            }
            let breaks = |text: &String| text.contains(|c: char| c.is_control() && c != '\t');
            if texts.1.as_ref().is_some_and(breaks) {
                fields.problem(
                    "bad-header",
                    value.span.clone(),
                    "a header's value is one line of text".to_owned(),
                    "it contains a control character",
                    "remove it; further headers are further `header` nodes".to_owned(),
                );
            }
            texts.0.zip(texts.1)
        }
        _ => None,
    };
    fields.finish();
    pair
}

fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn stream_body(mut fields: NodeReader<'_, '_, '_>, node: &Node) -> ReplyBody {
    let block = fields.block();
    if block.is_none() && !node.props.iter().any(|prop| prop.name == "exchange") {
        fields.problem(
            "missing-block",
            node.name_span.clone(),
            "this reply does not say what it sends".to_owned(),
            "`{ … }`, `status=…` or `recording=…` should follow",
            "write `reply { text \"Hello\" }`; a reply without any item is `reply {}`".to_owned(),
        );
    }
    let reader = fields.finish();
    block.map_or(
        ReplyBody::Stream {
            parts: Vec::new(),
            end: ReplyEnd::Completed,
        },
        |block| stream(reader, block),
    )
}

fn stream(reader: &mut ScenarioReader<'_>, block: &Block) -> ReplyBody {
    let mut parts = Vec::new();
    let mut end: Option<(ReplyEnd, &Node)> = None;
    for child in &block.nodes {
        let name = child.name.as_str();
        let known = REPLY.nodes.contains(&name);
        if let Some((_, ender)) = &end
            && known
        {
            reader.problems.push(
                Diagnostic::new(
                    "after-end",
                    child.name_span.clone(),
                    format!("`{name}` comes after the end of its reply"),
                    format!("`{}` already ended the reply", ender.name),
                )
                .help(format!("put `{}` last", ender.name)),
            );
        }
        match name {
            "stall" | "drop" | "incomplete" | "failed" | "error" => {
                let read = read_end(reader, child);
                if end.is_none() {
                    end = Some((read, child));
                }
            }
            _ if known => parts.push(part(reader, child)),
            _ => {
                reader.facts.open_world = true;
                reader.unknown_node(child, &REPLY);
            }
        }
    }
    ReplyBody::Stream {
        parts,
        end: end.map(|(end, _)| end).unwrap_or_default(),
    }
}

fn read_end(reader: &mut ScenarioReader<'_>, node: &Node) -> ReplyEnd {
    let mut fields = NodeReader::new(reader, node, usage(&node.name));
    let end = match node.name.as_str() {
        "stall" => ReplyEnd::Stall,
        "drop" => ReplyEnd::Drop(drop_way(&mut fields)),
        "incomplete" => ReplyEnd::Incomplete {
            reason: fields.text("a reason"),
        },
        name => {
            let code = fields.prop_text("code");
            if !node.props.iter().any(|prop| prop.name == "code") {
                fields.missing_prop("code");
            }
            let code = code.unwrap_or_default();
            let message = fields.prop_text("message");
            if name == "failed" {
                ReplyEnd::Failed { code, message }
            } else {
                let nested = fields
                    .prop("shape")
                    .and_then(|arg| {
                        fields.as_choice(
                            arg,
                            "shape of an error event",
                            &[("nested", true), ("flat", false)],
                        )
                    })
                    .unwrap_or(true);
                ReplyEnd::Error {
                    code,
                    message,
                    nested,
                }
            }
        }
    };
    fields.finish();
    end
}

fn part(reader: &mut ScenarioReader<'_>, node: &Node) -> ReplyPart {
    let mut fields = NodeReader::new(reader, node, usage(&node.name));
    let part = match node.name.as_str() {
        "text" => {
            let text = fields.text("a text");
            let chunks = chunks(&mut fields, text.chars().count());
            ReplyPart::Text { text, chunks }
        }
        "reasoning" => {
            let text = fields.text("a text");
            let chunks = chunks(&mut fields, text.chars().count());
            ReplyPart::Reasoning { text, chunks }
        }
        "shell" => {
            let (call, span) = fields.call_id();
            let command = fields.text("a command line");
            let limit = command.chars().count() + SHELL_ENVELOPE_CHARS;
            let chunks = chunks(&mut fields, limit);
            define(fields.reader, &call, span, chunks);
            ReplyPart::Shell {
                call,
                command,
                chunks,
            }
        }
        "function" | "custom" => tool_call(&mut fields, &node.name),
        "local-shell" => {
            let (call, span) = fields.call_id();
            define(fields.reader, &call, span, 0);
            let mut command = vec![fields.text("a command")];
            while let Some(arg) = fields.optional() {
                command.extend(fields.as_text(arg, "a word of the command"));
            }
            ReplyPart::LocalShell { call, command }
        }
        "item" => ReplyPart::Item {
            json: json(&mut fields, "the item"),
        },
        "event" => ReplyPart::Event {
            json: json(&mut fields, "the event"),
        },
        "malformed" => ReplyPart::Malformed {
            text: fields.text("a text"),
        },
        _ => ReplyPart::Pause {
            duration: fields.duration("a duration"),
        },
    };
    fields.finish();
    part
}

fn tool_call(fields: &mut NodeReader<'_, '_, '_>, kind: &str) -> ReplyPart {
    let (call, span) = fields.call_id();
    let name = fields.text("the tool's name");
    let input = fields.text("the tool's input");
    let chunks = chunks(fields, input.chars().count());
    define(fields.reader, &call, span, chunks);
    if kind == "function" {
        ReplyPart::Function {
            call,
            name,
            arguments: input,
            chunks,
        }
    } else {
        ReplyPart::Custom {
            call,
            name,
            input,
            chunks,
        }
    }
}

/// Notes a call, and reports it if its id is taken.
fn define(
    reader: &mut ScenarioReader<'_>,
    call: &str,
    span: std::ops::Range<usize>,
    deltas: usize,
) {
    if call.is_empty() {
        reader.facts.open_world = true;
        return;
    }
    let line = reader.line(span.start);
    if let Some(earlier) = reader.facts.defined.get(call) {
        let line = earlier.line;
        reader.problems.push(
            Diagnostic::new(
                "duplicate-call",
                span,
                format!("there are two calls with the id `{call}`"),
                format!("the id is taken on line {line}"),
            )
            .help("give each call of a scenario an id of its own"),
        );
        return;
    }
    reader
        .facts
        .defined
        .insert(call.to_owned(), DefinedCall { line, deltas });
}

/// `chunks=…`: how many deltas a text is sent in, at most one for each character.
fn chunks(fields: &mut NodeReader<'_, '_, '_>, limit: usize) -> usize {
    let Some(arg) = fields.prop("chunks") else {
        return 1;
    };
    let Some(number) = fields.as_number(arg, "`chunks`") else {
        return 1;
    };
    let limit = limit.max(1);
    let (message, label) = match number {
        0 => ("a text cannot be sent in 0 chunks".to_owned(), "at least 1"),
        _ if number > limit => (
            format!("a text of this length has no {number} chunks"),
            "more chunks than characters",
        ),
        _ => return number,
    };
    fields.problem(
        "bad-chunks",
        arg.span.clone(),
        message,
        label,
        if limit == 1 {
            "the only number possible here is 1; leave `chunks` out".to_owned()
        } else {
            format!("write a number from 1 to {limit}")
        },
    );
    1
}

/// A JSON object with a `type`, as text.
fn json(fields: &mut NodeReader<'_, '_, '_>, what: &str) -> String {
    fields.reader.facts.open_world = true;
    let Some(arg) = fields.required("a JSON object") else {
        return String::new();
    };
    let Some(text) = fields.as_text(arg, what) else {
        return String::new();
    };
    let problem = match serde_json::from_str::<serde_json::Value>(&text) {
        Err(error) => {
            let span = json_place(arg, &text, &error);
            let message = error.to_string();
            let reason = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(reason, _)| reason);
            Diagnostic::new(
                "bad-json",
                span,
                format!("{what} is not valid JSON: {reason}"),
                "the JSON is wrong here",
            )
            .help("to send bytes that are wrong on purpose, write `malformed \"…\"`")
        }
        Ok(serde_json::Value::Object(object)) => match object.get("type") {
            Some(serde_json::Value::String(_)) => return text,
            Some(_) => Diagnostic::new(
                "bad-json",
                arg.span.clone(),
                format!("the `type` of {what} is not a string"),
                "`type` must be a string",
            )
            .help("write `\"type\":\"…\"`"),
            None => Diagnostic::new(
                "bad-json",
                arg.span.clone(),
                format!("{what} has no `type`"),
                "`type` is missing",
            )
            .help("every item and event of the API says its `type`"),
        },
        Ok(_) => Diagnostic::new(
            "bad-json",
            arg.span.clone(),
            format!("{what} is not a JSON object"),
            "expected an object",
        )
        .help("write it as `#\"{\"type\":\"…\"}\"#`"),
    };
    fields.reader.problems.push(problem);
    text
}

/// Where in the file the JSON is wrong, when the text stands there as it is.
fn json_place(arg: &Arg, text: &str, error: &serde_json::Error) -> std::ops::Range<usize> {
    let Some(content) = arg.content else {
        return arg.span.clone();
    };
    // The text is a single line, so the column alone says where; it counts bytes from 1.
    let mut at = error.column().saturating_sub(1).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let width = text[at..].chars().next().map_or(0, char::len_utf8);
    content + at..content + at + width
}
