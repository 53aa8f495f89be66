//! `cutpoint import` of what is no rollout: what it is, what was expected, and what to do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_recording::{Exchange, Recording, Response};
use serde_json::json;
use support::upstream::capture;
use support::{INTERRUPTED, Place, place_with};

const EXPECTED: &str =
    "expected a rollout, which is lines of JSON as Codex writes them below ~/.codex/sessions";

fn refused(place: &Place, file: &str, says: &[&str]) {
    let ended = place.run(["import", file, "--name", "x"]);
    ended.code(2).says(&[&format!("{file}: ")]).says(says);
    // One thing is said, not one for each line.
    assert_eq!(ended.all().trim_end().lines().count(), 1, "{}", ended.all());
    assert!(!place.path().join("recordings").exists());
    assert!(!place.path().join("scenarios").exists());
}

#[test]
fn what_is_no_rollout_is_named() {
    let place = Place::new();
    let transcript = [
        json!({"type": "summary", "summary": "a talk", "leafUuid": "1"}),
        json!({"parentUuid": null, "sessionId": "s", "type": "user", "message": {"role": "user", "content": "hi"}, "uuid": "1", "timestamp": "t"}),
    ];
    let transcript: String = transcript.iter().map(|line| format!("{line}\n")).collect();
    let other = format!("{}\n", json!({"level": "info", "text": "hi"})).repeat(400);
    let pretty = serde_json::to_string_pretty(&json!({"name": "cutpoint", "version": 1})).unwrap();
    let cases: [(&str, &[u8], &[&str]); 9] = [
        ("empty.jsonl", b"", &["is empty", EXPECTED]),
        ("blank.jsonl", b"\n \n", &["is empty", EXPECTED]),
        (
            "binary.jsonl",
            b"\x7fELF\0\x01\xff\n\0",
            &["is binary", EXPECTED],
        ),
        (
            "r.jsonl.gz",
            &[0x1f, 0x8b, 8, 0],
            &["is compressed: decompress it first, `gzip -dk r.jsonl.gz`"],
        ),
        (
            "r.jsonl.zst",
            &[0x28, 0xb5, 0x2f, 0xfd, 0],
            &["`zstd -dk r.jsonl.zst`"],
        ),
        (
            "package.json",
            pretty.as_bytes(),
            &["is one JSON document", EXPECTED],
        ),
        ("notes.txt", b"plain text\n", &["is text", EXPECTED]),
        (
            "talk.jsonl",
            transcript.as_bytes(),
            &["is a transcript of Claude Code", EXPECTED],
        ),
        (
            "log.jsonl",
            other.as_bytes(),
            &["lines of JSON in a form that is not known", EXPECTED],
        ),
    ];
    for (name, content, says) in cases {
        place.file(name, content);
        refused(&place, name, says);
    }
    place.assert_clean();
}

#[test]
fn what_belongs_to_cutpoint_is_told_where_it_goes() {
    let place = place_with(INTERRUPTED);
    let ran = ["run", "scenario.kdl", "--trace", "traces"];
    place.run(ran).code(0);
    let trace = format!("traces/{}", place.names("traces")[0].replace('\'', "_"));
    std::fs::rename(
        place.path().join("traces").join(&place.names("traces")[0]),
        place.path().join(&trace),
    )
    .unwrap();
    let judges = format!("is a trace of cutpoint: `cutpoint check {trace}` judges it");
    refused(&place, &trace, &[&judges, EXPECTED]);
    let text = ItemContent::Text {
        text: "hi",
        chunks: 1,
    };
    let stream = capture(&[text]);
    let document = cutpoint_protocol::sse::Document::parse(&stream, 1 << 20).unwrap();
    let mut recording = Recording::new("r", "a test");
    recording.exchanges = vec![
        Exchange::bare(1, Response::Stream(document)),
        Exchange::bare(
            2,
            Response::Body {
                status: 429,
                headers: Default::default(),
                body: json!({}),
            },
        ),
    ];
    recording.save(&place.path().join("kept/r")).unwrap();
    let replay = "run `cutpoint replay kept/r`";
    refused(&place, "kept/r", &["is a recording: ", replay, EXPECTED]);
    let parts = [
        ("01.response.sse", "is a stream, one answer of a recording"),
        ("02.response.json", "is one file of a recording"),
        ("recording.json", "is one file of a recording"),
    ];
    for (part, what) in parts {
        refused(&place, &format!("kept/r/{part}"), &[what, replay]);
    }
    place.assert_clean();
}

#[test]
fn what_cannot_be_read_says_why() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("folder")).unwrap();
    let pipe = place.signal_pipe("pipe");
    assert!(pipe.path().exists());
    refused(&place, "nowhere.jsonl", &["cannot be read: No such file"]);
    refused(
        &place,
        "folder",
        &["is a directory: name the rollout's file"],
    );
    refused(&place, "pipe", &["is no regular file"]);
    // No process can read its own memory from the beginning.
    refused(
        &place,
        "/proc/self/mem",
        &["cannot be read: Input/output error"],
    );
    let large = std::fs::File::create(place.path().join("large.jsonl")).unwrap();
    large.set_len((256 << 20) + 1).unwrap();
    refused(
        &place,
        "large.jsonl",
        &["is larger than the 256 MiB", "head -n"],
    );
}
