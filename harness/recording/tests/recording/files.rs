//! Recordings on disk: what is read, what is refused, and that bytes survive.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{bytes, exchange, message, response, stream};
use cutpoint_protocol::compose::{Composer, ItemContent};
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_recording::{Exchange, Recording, Response};
use proptest::prelude::*;
use serde_json::json;

const HI: ItemContent<'_> = ItemContent::Text {
    text: "hi",
    chunks: 1,
};

fn recording() -> Recording {
    let mut recording = Recording::new("r", "a test");
    let body = Response::Body {
        status: 429,
        headers: BTreeMap::from([("retry-after".to_owned(), "1".to_owned())]),
        body: json!({"error": {"message": "slow down"}}),
    };
    recording.exchanges = vec![
        exchange(1, &[message("user", "hi")], &stream("resp_1", &[HI])),
        Exchange::bare(2, body),
    ];
    recording
}

/// A saved recording with the folder that it is in.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("r");
    recording().save(&dir).unwrap();
    (place, dir)
}

/// What loading says, without the folder's path.
fn refusal(dir: &Path) -> String {
    let errors = Recording::load(dir).unwrap_err().to_string();
    errors.replace(&format!("{}/", dir.display()), "")
}

/// What validating says, without the folder's path.
fn findings(dir: &Path) -> Vec<String> {
    let problems = Recording::load(dir).unwrap().validate();
    let shown = problems.iter().map(ToString::to_string);
    shown
        .map(|text| text.replace(&format!("{}/", dir.display()), ""))
        .collect()
}

#[test]
fn a_recording_is_loaded_as_it_was_saved() {
    let (_place, dir) = saved();
    let loaded = Recording::load(&dir).unwrap();
    assert_eq!(loaded.exchanges, recording().exchanges);
    assert_eq!(
        (loaded.name.as_str(), loaded.source.as_str(), loaded.version),
        ("r", "a test", 1)
    );
    assert_eq!(loaded.validate(), []);
    assert_eq!(loaded.exchange(2).unwrap().response.status(), 429);
    let text = fs::read_to_string(dir.join("01.request.json")).unwrap();
    assert!(text.contains("\"authorization\": \"[redacted]\""), "{text}");
}

#[test]
fn a_bare_capture_is_a_recording() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("capture.sse");
    let captured = stream("resp_1", &[HI]);
    fs::write(&file, &captured).unwrap();
    let lone = Recording::load(&file).unwrap();
    assert_eq!(
        (lone.name.as_str(), lone.source.as_str()),
        ("capture", "bare capture")
    );
    assert_eq!(lone.exchanges, [Exchange::bare(1, response(&captured))]);
    assert_eq!(lone.validate(), []);

    let dir = place.path().join("captures");
    fs::create_dir(&dir).unwrap();
    for number in ["2", "010", "1"] {
        fs::write(dir.join(format!("{number}.response.sse")), &captured).unwrap();
    }
    let folder = Recording::load(&dir).unwrap();
    let numbers: Vec<_> = folder
        .exchanges
        .iter()
        .map(|exchange| exchange.number)
        .collect();
    assert_eq!(
        (folder.name.as_str(), numbers),
        ("captures", vec![1, 2, 10])
    );
    let problems = folder.validate();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0]
            .message
            .starts_with("exchange 3 is missing: exchange 10 follows on 2")
    );
}

#[test]
fn what_is_no_stream_says_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("01.response.sse");
    let cases: [(&[u8], &str); 8] = [
        (
            b"",
            "01.response.sse:1: error: is empty: capture the stream again",
        ),
        (
            b"data: a\n\ndata: \0\n\n",
            "01.response.sse:3: error: is binary",
        ),
        (
            b"\x1F\x8B\x08\0",
            "01.response.sse:1: error: is compressed with gzip",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\n",
            "01.response.sse:1: error: starts with HTTP headers",
        ),
        (
            b"\xEF\xBB\xBF {\"error\":1}",
            "01.response.sse:1: error: is one whole document",
        ),
        (b"<html>", "01.response.sse:1: error: is one whole document"),
        (
            &[b'x'; EVENT_LIMIT_BYTES + 1],
            "01.response.sse:1: error: one server-sent event is larger than",
        ),
        (
            &[b"data: a\n\n: b\n\n", &[b'x'; EVENT_LIMIT_BYTES + 1][..]].concat(),
            "01.response.sse:5: error: one server-sent event is larger than",
        ),
    ];
    for (content, expected) in cases {
        fs::write(&file, content).unwrap();
        let refusal = refusal(place.path());
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}

#[test]
fn a_file_of_a_gigabyte_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let file = fs::File::create(place.path().join("01.response.sse")).unwrap();
    file.set_len(1 << 30).unwrap();
    assert!(refusal(place.path()).contains("is larger than the 67108864 bytes"));

    let limits = cutpoint_recording::LoadLimits {
        recording_bytes: 100,
        ..Default::default()
    };
    let (_place, dir) = saved();
    let errors = Recording::load_within(&dir, &limits).unwrap_err();
    assert!(
        errors.problems[0]
            .message
            .contains("larger than the 100 bytes that one may have")
    );
}

#[test]
fn what_is_no_recording_says_so() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    assert!(refusal(&path("nowhere")).contains("there is no such recording"));
    assert!(refusal(place.path()).contains("holds no exchange"));
    fs::write(path("notes.txt"), "x").unwrap();
    assert!(refusal(&path("notes.txt")).contains("neither a folder nor an .sse file"));
    fs::create_dir(path("01.response.sse")).unwrap();
    assert!(refusal(place.path()).contains("01.response.sse: error: is not a regular file"));
}

#[test]
fn files_that_do_not_fit_together_are_named() {
    let (_place, dir) = saved();
    fs::write(dir.join("03.request.json"), "{").unwrap();
    fs::write(dir.join("2.response.json"), "{}").unwrap();
    fs::write(dir.join("1.response.json"), "{\n\"status\": true}").unwrap();
    fs::write(dir.join("0.response.sse"), "data: a\n\n").unwrap();
    fs::write(
        dir.join("recording.json"),
        "{\"format\": \"cutpoint-recording\", \"version\": 2}",
    )
    .unwrap();
    let refusal = refusal(&dir);
    for expected in [
        "0.response.sse: error: exchanges are numbered from 1",
        "2.response.json: error: stands for the same part as `02.response.json`",
        "1.response.json: error: stands beside a stream for the same exchange",
        "03.request.json: error: has no response beside it: add `03.response.sse`",
        "03.request.json:1: error: EOF while parsing an object",
        "recording.json:1: error: found format version 2, expected 1",
    ] {
        assert!(
            refusal.contains(expected),
            "{expected} is not in\n{refusal}"
        );
    }
}

#[test]
fn changed_files_are_named() {
    let (_place, dir) = saved();
    fs::write(dir.join("01.response.sse"), stream("resp_2", &[HI])).unwrap();
    fs::write(dir.join("03.response.sse"), stream("resp_3", &[HI])).unwrap();
    fs::remove_file(dir.join("02.response.json")).unwrap();
    fs::write(dir.join("notes.txt"), "x").unwrap();
    let found = findings(&dir);
    let expected = [
        "01.response.sse: error: was changed since it was recorded",
        "02.response.json: error: is missing: restore it",
        "03.response.sse: error: was added since recording.json was written",
        "notes.txt: warning: is no part of a recording",
    ];
    for expected in expected {
        assert!(
            found.iter().any(|text| text.starts_with(expected)),
            "{expected} is not in {found:#?}"
        );
    }
    // Loaded and saved again, the change is part of the recording.
    let mut loaded = Recording::load(&dir).unwrap();
    loaded.exchanges[1].number = 2;
    fs::remove_file(dir.join("notes.txt")).unwrap();
    loaded.save(&dir).unwrap();
    assert_eq!(findings(&dir), Vec::<String>::new());
}

#[test]
fn the_hash_over_all_files_is_checked_too() {
    let (_place, dir) = saved();
    let path = dir.join("recording.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("sha256:", "sha256:0")).unwrap();
    let found = findings(&dir);
    assert!(
        found[0].starts_with("recording.json: error: `hash` is not that of the exchange files"),
        "{found:?}"
    );
    let without: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("sha256:"))
        .collect();
    fs::write(
        &path,
        without
            .join("\n")
            .replace("\"name\": \"r\"", "\"name\": \"other\""),
    )
    .unwrap();
    let found = findings(&dir);
    assert!(
        found[0].contains("warning: `name` is \"other\", the folder is \"r\""),
        "{found:?}"
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn a_request_that_is_none_and_a_secret_are_found_with_their_line() {
    let (_place, dir) = saved();
    let text = "{\n\"method\": \"POST\",\n\"path\": \"/v1/responses?x=1\",\n\"headers\": {\"Cookie\": \"a=b\"},\n\"body\": {\"input\": 3}\n}";
    fs::write(dir.join("01.request.json"), text).unwrap();
    let found = findings(&dir);
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("01.request.json:5: error: the body is no request"))
    );
    assert!(found.iter().any(|text| {
        text.starts_with("01.request.json:5: error: the header `Cookie` holds a secret")
    }));
}

fn documents() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"data: {\"type\":\"x\"}".to_vec()),
        Just(b"event: response.created".to_vec()),
        Just(b": a comment".to_vec()),
        Just(b": +35ms".to_vec()),
        Just(b": cutpoint status=200".to_vec()),
        Just("é\u{1F600}\u{FEFF}".as_bytes().to_vec()),
        proptest::collection::vec(1u8.., 0..4),
    ];
    let pieces = proptest::collection::vec(piece, 0..40);
    (any::<bool>(), pieces).prop_map(|(bom, pieces)| {
        let start: &[u8] = if bom {
            b"\xEF\xBB\xBF: start"
        } else {
            b": start"
        };
        [start, &pieces.concat()].concat()
    })
}

/// A composed stream, its line endings changed, with comments, cut off anywhere.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    ("\\PC{0,30}", 1usize..5, ending, any::<bool>(), 1usize..4000).prop_map(
        |(text, chunks, ending, comment, length)| {
            let mut composer = Composer::new("resp_1", "m", 1);
            composer.item(&ItemContent::Text {
                text: &text,
                chunks,
            });
            let composed = bytes(&composer.completed());
            let text = String::from_utf8(composed).unwrap().replace('\n', ending);
            let start = if comment {
                ": cutpoint status=200\n: +1.5ms\n"
            } else {
                ""
            };
            let mut bytes = format!("{start}{text}").into_bytes();
            bytes.truncate(length);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stream_survives_saving_and_loading_byte_for_byte(bytes in prop_oneof![documents(), streams()]) {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("r");
        let mut recording = Recording::new("r", "a test");
        let document = Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap();
        recording.exchanges = vec![Exchange::bare(1, Response::Stream(document))];
        recording.save(&dir).unwrap();
        prop_assert_eq!(&fs::read(dir.join("01.response.sse")).unwrap(), &bytes);
        let loaded = Recording::load(&dir).unwrap();
        prop_assert_eq!(&loaded.exchanges, &recording.exchanges);
        loaded.save(&dir).unwrap();
        prop_assert_eq!(&fs::read(dir.join("01.response.sse")).unwrap(), &bytes);
        // Whatever the stream holds, looking for problems ends well.
        let changed = loaded.validate().iter().any(|problem| problem.message.contains("was changed"));
        prop_assert!(!changed);
    }
}
