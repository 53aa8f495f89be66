//! `cutpoint diff`, end to end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use cutpoint_protocol::compose::ItemContent;
use serde_json::{Value, json};
use support::upstream::capture;
use support::{INTERRUPTED, Place, place_with, recording};

/// A rollout of these items, written by a session of that name in that directory.
fn rollout(session: &str, cwd: &str, items: &[Value]) -> String {
    let meta = json!({"id": session, "cwd": cwd});
    let lines = [("session_meta", &meta)];
    let items = items.iter().map(|item| ("response_item", item));
    let lines = lines.into_iter().chain(items);
    let written = lines.map(|(kind, payload)| {
        let line = json!({"timestamp": session, "type": kind, "payload": payload});
        format!("{line}\n")
            .replace("CALL", &format!("call_{session}"))
            .replace("CWD", cwd)
    });
    written.collect()
}

fn said(role: &str, text: &str) -> Value {
    json!({"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]})
}

fn session() -> Vec<Value> {
    vec![
        said("user", "<environment_context>\nCWD\n</environment_context>"),
        said("user", "run it"),
        json!({"type": "function_call", "call_id": "CALL", "name": "shell", "arguments": "{\"workdir\":\"CWD/x\"}"}),
        json!({"type": "function_call_output", "call_id": "CALL", "output": "at 2026-01-02T03:04:05Z in CWD"}),
        said("assistant", "Done."),
        said("user", "thanks"),
    ]
}

fn two(a: &str, b: &str) -> Place {
    let place = Place::new();
    place.file("a.jsonl", a);
    place.file("b.jsonl", b);
    place
}

#[test]
fn other_ids_times_and_directories_are_no_difference() {
    let later = serde_json::to_string(&session())
        .unwrap()
        .replace("2026-01-02T03", "2027-09-09T09");
    let later: Vec<Value> = serde_json::from_str(&later).unwrap();
    let place = two(
        &rollout("one", "/home/a/work", &session()),
        &rollout("two", "/srv/b", &later),
    );
    let ended = place.run(["diff", "a.jsonl", "b.jsonl"]);
    assert_eq!(ended.code(0).stdout, "the same: 4 items\n");
}

#[test]
fn what_is_lost_added_and_moved_is_shown() {
    let mut other = session();
    other.remove(4);
    other.push(said("assistant", "You are welcome."));
    let place = two(
        &rollout("one", "/a", &session()),
        &rollout("two", "/b", &other),
    );
    place.run(["diff", "a.jsonl", "b.jsonl"]).code(1).says(&[
        "- assistant: Done.",
        "+ assistant: You are welcome.",
        "3 kept, 1 lost, 1 added, 0 moved",
    ]);
    let ended = place.run(["diff", "--json", "a.jsonl", "b.jsonl"]);
    let value: Value = serde_json::from_str(&ended.code(1).stdout).unwrap();
    assert_eq!(
        (&value["format"], &value["version"], &value["same"]),
        (&"cutpoint-diff".into(), &1.into(), &false.into())
    );
    assert_eq!(
        value["counts"],
        json!({"kept": 3, "lost": 1, "added": 1, "moved": 0})
    );
    assert_eq!(
        value["changes"][0],
        json!({"change": "lost", "a": 2, "item": "assistant: Done."})
    );
    assert_eq!(value["changes"][1]["change"], "added");
    let mut swapped = session();
    swapped.swap(4, 5);
    place.file("c.jsonl", rollout("three", "/c", &swapped));
    place
        .run(["diff", "a.jsonl", "c.jsonl"])
        .code(1)
        .says(&["moved from place", "1 moved"]);
}

#[test]
fn the_oldest_generation_compares_with_the_newest() {
    let mut items = session();
    // Its header does not tell the directory.
    items.drain(2..4);
    let bare: String = items.iter().map(|item| format!("{item}\n")).collect();
    let header = r#"{"id":"u","timestamp":"t"}"#;
    let state = r#"{"record_type":"state"}"#;
    let old = format!("{header}\n{state}\n{bare}");
    let place = two(&old, &rollout("new", "/w", &items));
    let ended = place.run(["diff", "a.jsonl", "b.jsonl"]);
    ended.code(0).never_says(&["left out"]);
}

#[test]
fn torn_and_foreign_lines_are_told_and_left_out() {
    let whole = rollout("one", "/a", &session());
    let damaged = format!("{whole}{{\"torn\n{{\"hello\":1}}\n");
    let place = two(&whole, &damaged);
    place.run(["diff", "a.jsonl", "b.jsonl"]).code(0).says(&[
        "b.jsonl:8: left out: the line is not valid JSON",
        "b.jsonl:9: left out: the line is not of the form",
    ]);
}

#[test]
fn sides_that_cannot_be_used_are_refused() {
    let place = two(&rollout("one", "/a", &session()), "plain text\n");
    place
        .run(["diff", "a.jsonl", "nowhere"])
        .code(2)
        .says(&["nowhere: No such file"]);
    place
        .run(["diff", "a.jsonl", "b.jsonl"])
        .code(2)
        .says(&["holds no item"]);
    place
        .run(["diff", "-", "-"])
        .code(2)
        .says(&["only one side"]);
    place
        .run(["diff", ".", "a.jsonl"])
        .code(2)
        .says(&["holds no exchange"]);
}

#[test]
fn recordings_and_traces_compare() {
    let place = place_with(INTERRUPTED);
    for (traces, defect) in [("one", None), ("two", None), ("bad", Some("forget-output"))] {
        let defect = defect.map(|defect| ["--defect", defect]);
        let words = ["run", "scenario.kdl", "--trace", traces];
        place.run(words.iter().chain(defect.iter().flatten()));
    }
    let trace = |folder: &str| format!("{folder}/{}", place.names(folder)[0]);
    place
        .run(["diff", &trace("one"), &trace("two")])
        .code(0)
        .says(&["the same"]);
    let ended = place.run(["diff", &trace("one"), &trace("bad")]);
    ended
        .code(1)
        .says(&["output 1: status: aborted before it ended"]);
    let recording = recording("shell-then-text");
    place
        .run(["diff", &recording, &recording])
        .code(0)
        .says(&["the same"]);
    place
        .run(["diff", &recording, &trace("one")])
        .code(1)
        .says(&["lost"]);
}

/// What a damaged event said can't be compared; that it is there is told.
#[test]
fn events_that_cannot_be_read_are_told() {
    let place = Place::new();
    let text = |text| ItemContent::Text { text, chunks: 2 };
    let stream = String::from_utf8(capture(&[text("hi"), text("bye")])).unwrap();
    place.file("whole/01.response.sse", &stream);
    let damaged = stream.replacen(
        "data: {\"type\":\"response.output_item.done\"",
        "data: {\"type:",
        1,
    );
    assert_ne!(damaged, stream);
    let line = 1 + damaged
        .split("data: {\"type:")
        .next()
        .unwrap()
        .matches('\n')
        .count();
    place.file("damaged/01.response.sse", damaged);
    let ended = place.run(["diff", "whole", "damaged"]);
    let told = format!("damaged/01.response.sse:{line}: error: ");
    ended.code(1).says(&[&told]).never_says(&["whole/01"]);
    place.file("damaged/02.response.json", "{");
    let refused = place.run(["diff", "whole", "damaged"]);
    refused
        .code(2)
        .says(&[&told, "damaged/02.response.json:1: error: "]);
}
