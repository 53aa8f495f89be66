//! The items of a session, out of a rollout, a recording or a trace.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::Path;

use cutpoint_protocol::Item;
use cutpoint_protocol::rollout::RolloutLine;
use cutpoint_recording::{Conversation, Recording};
use cutpoint_trace::{Observation, Trace, Unreadable};
use serde_json::{Map, Value};

use crate::Failure;
use crate::console::complain;
use crate::inputs::{self, Content, Input};
use crate::inspect::LINE_LIMIT_BYTES;
use crate::line_reader::{InputLine, each_line};

/// What stands for the session's working directory, which differs from run to run.
const CWD: &str = "<cwd>";

/// Reads the items of what the user names. Lines that can't be read are told and left out.
pub fn read(path: &Path) -> Result<Vec<Item>, Failure> {
    let input = Input::named(path)?;
    let name = input.name();
    let unusable = |why: String| Failure::usage(format!("{name}: {why}"));
    let items = match &input {
        Input::Recording(path) => {
            let recording =
                Recording::load(path).map_err(|errors| Failure::usage(errors.to_string()))?;
            // An event that can't be read has no item to compare: nobody is to miss it unawares.
            for problem in recording.validate().iter().filter(|it| it.is_error()) {
                complain!("{problem}");
            }
            recording.items()
        }
        Input::File(path) => {
            of_text(Some(path), &name).map_err(|error| unusable(error.to_string()))?
        }
        Input::Stdin => of_text(None, &name).map_err(|error| unusable(error.to_string()))?,
        Input::Lost(_, why) => return Err(unusable(why.clone())),
    };
    if items.is_empty() {
        return Err(unusable(
            "holds no item: name a rollout, a recording or a trace".to_owned(),
        ));
    }
    Ok(items)
}

fn of_text(path: Option<&Path>, name: &str) -> io::Result<Vec<Item>> {
    let opened = inputs::open(path)?;
    match opened.kind {
        Content::Compressed(with) => Err(io::Error::other(format!(
            "it is compressed ({with}); decompress it first"
        ))),
        Content::Trace => {
            let (trace, unreadable) = Trace::read(opened.content).map_err(io::Error::other)?;
            for Unreadable {
                line,
                column,
                byte,
                message,
            } in unreadable
            {
                complain!(
                    "{name}:{line}:{column}: left out: the line is no entry of a trace: {message} [byte {byte}]"
                );
            }
            Ok(of_trace(&trace))
        }
        Content::Rollout => of_rollout(opened.content, name),
    }
}

/// The items of a trace's requests and answers, one conversation after the other.
fn of_trace(trace: &Trace) -> Vec<Item> {
    let mut conversations: BTreeMap<usize, Conversation> = BTreeMap::new();
    let mut of_exchange: BTreeMap<usize, usize> = BTreeMap::new();
    for entry in &trace.entries {
        match &entry.observation {
            Observation::Request {
                exchange,
                conversation,
                body,
                history,
                ..
            } => {
                of_exchange.insert(*exchange, *conversation);
                let input = || body["input"].as_array().map(Vec::as_slice);
                let whole = history.as_deref().or_else(input).unwrap_or_default();
                let items = whole
                    .iter()
                    .filter_map(|item| Item::from_value(item.clone()).ok());
                let items: Vec<Item> = items.collect();
                conversations
                    .entry(*conversation)
                    .or_default()
                    .request(&items);
            }
            Observation::Sent { exchange, data, .. }
                if data["type"] == "response.output_item.done" =>
            {
                let conversation = of_exchange.get(exchange).copied().unwrap_or_default();
                if let Ok(item) = Item::from_value(data["item"].clone()) {
                    conversations.entry(conversation).or_default().answer(item);
                }
            }
            _ => {}
        }
    }
    conversations
        .into_values()
        .flat_map(Conversation::into_items)
        .collect()
}

/// The items of a rollout, in the order of its lines, without the names of its working directories.
fn of_rollout(from: impl BufRead, name: &str) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut directories: Vec<String> = Vec::new();
    let mut number = 0;
    each_line(from, LINE_LIMIT_BYTES, |line, byte| {
        number += 1;
        let (InputLine::Whole(bytes) | InputLine::Tail(bytes)) = line else {
            complain!("{name}:{number}: left out: the line is too long [byte {byte}]");
            return true;
        };
        let Ok(mut text) = String::from_utf8(bytes.to_owned()) else {
            complain!("{name}:{number}: left out: the line is not valid UTF-8 [byte {byte}]");
            return true;
        };
        for directory in &directories {
            text = text.replace(directory.as_str(), CWD);
        }
        match RolloutLine::parse_any(&text) {
            Ok(line) => match line.kind.as_str() {
                "session_meta" | "turn_context" => note_directory(&line.payload, &mut directories),
                "response_item" => items.extend(Item::from_value(Value::Object(line.payload))),
                _ => {}
            },
            Err(error) => complain!("{name}:{number}: left out: the line is {error} [byte {byte}]"),
        }
        true
    })?;
    Ok(items)
}

fn note_directory(payload: &Map<String, Value>, directories: &mut Vec<String>) {
    let directory = payload.get("cwd").and_then(Value::as_str);
    let Some(directory) = directory.filter(|directory| directory.len() > 1) else {
        return;
    };
    // As it stands within JSON.
    let quoted = Value::from(directory).to_string();
    let written = quoted[1..quoted.len() - 1].to_owned();
    if written != CWD && !directories.contains(&written) {
        directories.push(written);
        // One that lies within another is replaced first.
        directories.sort_by_key(|directory| std::cmp::Reverse(directory.len()));
    }
}
