//! Snapshots of normalised traces: what the reference agent and the server do, in order, per source.
//!
//! Sources run side by side, so their order among each other is not part of the snapshot; ids,
//! times and paths are replaced by what they stand for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_protocol::Item;
use cutpoint_protocol::rollout::{LineContent, RolloutLine, split};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::{AgentEvent, Entry, Observation};
use serde_json::Value;

fn snapshot(file: &str) {
    let scenarios = common::scenarios();
    let planned = scenarios
        .iter()
        .find(|planned| planned.file.ends_with(file))
        .unwrap();
    let case = common::runtime().block_on(async {
        let bench = common::Bench::new(Arc::new(ReferenceDriver::default())).await;
        bench.run(planned).await
    });
    assert_eq!(
        case.status(true),
        CaseStatus::Conforms,
        "{}",
        common::complaints(&case)
    );
    let name = file.trim_end_matches(".kdl").replace('/', "-");
    insta::assert_snapshot!(name, Normal::of(&case).text);
}

#[test]
fn a_tool_is_interrupted() {
    snapshot("tools/tool-running.kdl");
}

#[test]
fn a_text_is_cut_in_the_middle() {
    snapshot("streams/middle-delta.kdl");
}

#[test]
fn a_turn_is_replaced() {
    snapshot("replace-and-steer/replaced.kdl");
}

#[test]
fn a_session_is_killed_and_resumed() {
    snapshot("resume/killed-while-a-tool-runs.kdl");
}

#[test]
fn the_history_lives_on_the_server() {
    snapshot("history/server-side.kdl");
}

/// A trace as text, source by source.
struct Normal {
    text: String,
    /// Id → the name that stands for it.
    names: HashMap<String, String>,
}

impl Normal {
    fn of(case: &CaseResult) -> Self {
        let mut normal = Self {
            text: String::new(),
            names: HashMap::new(),
        };
        let entries = &case.trace.entries;
        for entry in entries {
            if let Observation::Event {
                event: AgentEvent::TurnStarted { turn_id },
                ..
            } = &entry.observation
            {
                let name = format!("turn {}", normal.names.len() + 1);
                normal.names.insert(turn_id.to_string(), name);
            }
        }
        type Line = fn(&mut Normal, &Observation);
        let sources: [(&str, Line); 5] = [
            ("client", Normal::client),
            ("requests", Normal::request),
            ("streams", Normal::stream),
            ("turns", Normal::turn),
            ("tools", Normal::tool),
        ];
        for (source, line) in sources {
            writeln!(normal.text, "{source}").unwrap();
            entries
                .iter()
                .for_each(|entry| line(&mut normal, &entry.observation));
        }
        normal.rollout(entries);
        normal
    }

    fn line(&mut self, text: &str) {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            text = text.replace(id.as_str(), name);
        }
        writeln!(self.text, "    {text}").unwrap();
    }

    fn client(&mut self, what: &Observation) {
        match what {
            Observation::Op { op, .. } => {
                let op = serde_json::to_string(op).unwrap();
                self.line(&op);
            }
            Observation::AgentStarted { resumed: true, .. } => self.line("resumed"),
            Observation::AgentKilled => self.line("killed"),
            _ => {}
        }
    }

    fn request(&mut self, what: &Observation) {
        let Observation::Request {
            exchange,
            body,
            history,
            ..
        } = what
        else {
            return;
        };
        let continued = body.get("previous_response_id").and_then(Value::as_str);
        self.line(&format!(
            "{exchange} after {}",
            continued.unwrap_or("nothing")
        ));
        let items = history
            .as_ref()
            .or_else(|| body["input"].as_array())
            .unwrap();
        for value in items {
            let item = outline(&Item::from_value(value.clone()).unwrap());
            self.line(&format!("    {item}"));
        }
    }

    fn stream(&mut self, what: &Observation) {
        match what {
            Observation::Sent { exchange, data, .. } => {
                self.line(&format!("{exchange} {}", data["type"].as_str().unwrap()));
            }
            Observation::StreamEnd { exchange, how } => {
                self.line(&format!("{exchange} ends: {how:?}"))
            }
            Observation::Disconnected { exchange } => {
                self.line(&format!("{exchange} closed by the agent"))
            }
            _ => {}
        }
    }

    fn turn(&mut self, what: &Observation) {
        let Observation::Event { event, .. } = what else {
            return;
        };
        match event {
            // Tools run beside the stream; other events come at times of their own.
            AgentEvent::CallBegin { .. }
            | AgentEvent::CallOutput { .. }
            | AgentEvent::CallEnd { .. }
            | AgentEvent::Other { .. } => {}
            _ => self.line(&serde_json::to_string(event).unwrap()),
        }
    }

    fn tool(&mut self, what: &Observation) {
        let Observation::Event { event, .. } = what else {
            return;
        };
        match event {
            AgentEvent::CallBegin {
                call_id, command, ..
            } => {
                self.line(&format!("{call_id} begins: {command}"));
            }
            AgentEvent::CallEnd {
                call_id,
                exit_code,
                output,
                ..
            } => {
                self.line(&format!("{call_id} ends: {exit_code:?} {output:?}"));
            }
            _ => {}
        }
    }

    /// The rollout as it was read last.
    fn rollout(&mut self, entries: &[Entry]) {
        let mut content = String::new();
        for entry in entries {
            if let Observation::Rollout { from, text, .. } = &entry.observation {
                content.truncate(usize::try_from(*from).unwrap());
                content.push_str(text);
            }
        }
        self.text.push_str("rollout\n");
        let (lines, tail) = split(&content);
        assert_eq!(tail, None, "the last line is whole");
        for line in lines {
            let line = RolloutLine::parse(line).unwrap();
            let content = match line.content() {
                LineContent::Item(item) => outline(&item),
                LineContent::SessionMeta | LineContent::TurnContext => String::new(),
                _ => Value::Object(line.payload.clone()).to_string(),
            };
            self.line(format!("{} {} {content}", line.ordinal.unwrap(), line.kind).trim_end());
        }
    }
}

fn outline(item: &Item) -> String {
    let who = item.role().unwrap_or(item.type_name());
    let call = item
        .call_id()
        .map(|call| format!(" {call}"))
        .unwrap_or_default();
    format!("{who}{call} {:?}", item.all_text())
}
