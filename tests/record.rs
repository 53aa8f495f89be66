//! `cutpoint record` as a person uses it: a client in between, a recording and a scenario behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_recording::{Problem, Recording};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::upstream::{capture, serve};
use support::{HANG, Place, Running, recording};

/// Sends a request to a base URL.
fn ask(url: &str, body: &Value) -> TcpStream {
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let body = body.to_string();
    let length = body.len();
    let head = "POST /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer one-two-three-four\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    stream
}

/// Sends a request, and reads the answer to its end.
fn answer(url: &str, body: &Value) -> String {
    let mut text = String::new();
    ask(url, body).read_to_string(&mut text).unwrap();
    text
}

fn says(text: &str) -> Value {
    json!({"model": "m", "stream": true, "store": false, "input": text})
}

/// Only the owner can read the files below a folder, and none of them has a secret.
fn assert_private(place: &Place, folder: &str, secrets: &[&str]) {
    for name in place.names(folder) {
        let file = place.path().join(folder).join(&name);
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let text = place.read(&format!("{folder}/{name}"));
        for secret in secrets {
            assert!(!text.contains(secret), "{name}: {secret}");
        }
    }
}

/// The captures that the stand-in for the API answers with.
fn place_with_two_answers(first: &str) -> Place {
    let place = Place::new();
    for (file, text, chunks) in [
        ("up/01.response.sse", first, 9),
        ("up/02.response.sse", "Bye.", 1),
    ] {
        place.file(file, capture(&[ItemContent::Text { text, chunks }]));
    }
    place
}

#[test]
fn a_session_becomes_a_scenario_that_runs() {
    let text = "Hello alice@corp.example.org!";
    let place = place_with_two_answers(text);
    let (serving, upstream) = serve(&place, "up");
    let (url, go) = (place.signal_pipe("url"), place.signal_pipe("go"));
    let client = place.script(
        "client",
        "echo $OPENAI_BASE_URL > url; read line < go; exit 7",
    );
    let mut command = place.cutpoint([
        "record",
        "hello",
        "--redact",
        "Zed[0-9]+",
        "--upstream",
        &upstream,
        "--",
    ]);
    let recording = Running::start(command.arg(client));
    let proxy = url.wait();
    let first = answer(&proxy, &says("I am Zed77 <x@corp.example.org>"));
    assert!(first.contains("response.completed") && first.contains("alice@corp.example.org"));
    let past = json!([
        {"type": "message", "role": "user", "content": "I am Zed77 <x@corp.example.org>"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        {"type": "message", "role": "user", "content": "bye"},
    ]);
    answer(
        &proxy,
        &json!({"model": "m", "stream": true, "input": past}),
    );
    std::fs::write(go.path(), "go\n").unwrap();
    let ended = recording.wait();
    ended.code(0).says(&[
        "the command ended with exit status: 7",
        "recordings/hello: 2 exchanges",
        "custom × 1",
        "email × 2",
        "cutpoint run scenarios/recorded/hello.kdl",
    ]);
    ended.never_says(&["Zed77", "alice@", "one-two"]);
    serving.signal(Signal::SIGINT);
    serving.wait();

    let expected = "scenario \"hello\" {\n    about \"recorded from URL\"\n    model name=\"m\" {\n        recording \"hello\"\n    }\n    user \"I am <custom-1> <<email-1>>\"\n    await turn-complete\n    user \"bye\"\n    await turn-complete\n}\n";
    let scenario = place
        .read("scenarios/recorded/hello.kdl")
        .replace(&upstream, "URL");
    assert_eq!(scenario, expected);
    let folder = place.path().join("recordings/hello");
    let loaded = Recording::load(&folder).unwrap();
    assert!(
        !loaded.validate().iter().any(Problem::is_error),
        "{:#?}",
        loaded.validate()
    );
    assert_private(
        &place,
        "recordings/hello",
        &["Zed77", "alice@", "x@corp", "one-two"],
    );
    place
        .run(["run", "scenarios/recorded/hello.kdl"])
        .code(0)
        .says(&["1 conforms"]);
    place.assert_clean();

    // What is there is not replaced unless asked to.
    let words = ["record", "hello", "--upstream", "http://127.0.0.1:9/v1"];
    place
        .run(words)
        .code(2)
        .says(&["recordings/hello is there already", "--force"]);
}

/// The stream never ends by itself; what came before the end is what is saved.
#[test]
fn a_signal_in_mid_stream_leaves_a_whole_recording_and_no_process() {
    let stalled = b": cutpoint end=stall\nevent: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"output\":[]},\"sequence_number\":0}\n\n";
    for with_command in [false, true] {
        let place = Place::new();
        place.file("up/01.response.sse", stalled);
        let (serving, upstream) = serve(&place, "up");
        let url = place.signal_pipe("url");
        let mut command = place.cutpoint(["record", "cut", "--upstream", &upstream]);
        if with_command {
            let client = place.script("client", "echo $OPENAI_BASE_URL > url; exec sleep 600");
            command.arg("--").arg(client);
        }
        let recording = Running::start(&mut command);
        let proxy = if with_command {
            url.wait()
        } else {
            recording.line()
        };
        let mut stream = ask(&proxy, &says("go on"));
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("\"sequence_number\":0}") {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0);
            read.extend_from_slice(&buffer[..count]);
        }
        assert!(!place.path().join("recordings").exists());
        let signal = if with_command {
            Signal::SIGTERM
        } else {
            Signal::SIGINT
        };
        recording.signal(signal);
        if !with_command {
            // Whoever is impatient gets the recording all the same.
            recording.signal(signal);
        }
        recording
            .wait()
            .code(0)
            .says(&["recordings/cut: 1 exchange"]);
        drop(stream);
        serving.signal(Signal::SIGINT);
        serving.wait();
        assert_eq!(place.names("recordings"), ["cut"]);
        let scenario = place.read("scenarios/recorded/cut.kdl");
        assert!(
            scenario.contains("interrupt at=\"reply 1 event 1\""),
            "{scenario}"
        );
        place
            .run(["run", "scenarios/recorded/cut.kdl"])
            .code(0)
            .says(&["1 conforms"]);
        place.assert_clean();
    }
}

#[test]
fn what_cannot_be_recorded_is_told_before_anything_is_written() {
    let place = Place::new();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["record", "../x"], 2, "a name has letters"),
        (
            &["record", "x", "--redact", "("],
            2,
            "not a regular expression",
        ),
        (
            &["record", "x", "--upstream", "ftp://x"],
            2,
            "has to begin with http",
        ),
        (
            &[
                "record",
                "x",
                "--upstream",
                "https://127.0.0.1:9",
                "--ca",
                "none.pem",
            ],
            2,
            "none.pem",
        ),
        (
            &["record", "x", "--redact", "a", "--no-redact"],
            2,
            "cannot be used with",
        ),
        (
            &["record", "x", "--", "./no-such-program"],
            3,
            "cannot be started",
        ),
        (&["record", "x", "--", "true"], 3, "nothing was recorded"),
    ];
    for (words, code, message) in cases {
        place.run(words).code(code).says(&[message]);
    }
    assert_eq!(place.names("."), ["tmp"]);
    place.assert_clean();
}

/// What is served from a recording is recorded as it stands there.
#[test]
fn a_recording_of_a_recording_is_the_same() {
    let place = Place::new();
    let (serving, upstream) = serve(&place, &recording("shell-then-text"));
    let recorder = Running::start(&mut place.cutpoint([
        "record",
        "again",
        "--no-redact",
        "--upstream",
        &upstream,
    ]));
    let proxy = recorder.line();
    let original = Recording::load(&PathBuf::from(recording("shell-then-text"))).unwrap();
    for exchange in &original.exchanges {
        answer(&proxy, &exchange.request.as_ref().unwrap().body);
    }
    recorder.signal(Signal::SIGINT);
    recorder.wait().code(0).says(&["redacted: nothing"]);
    serving.signal(Signal::SIGINT);
    serving.wait().says(&["3 exact"]);
    let again = Recording::load(&place.path().join("recordings/again")).unwrap();
    for (one, other) in original.exchanges.iter().zip(&again.exchanges) {
        assert_eq!(
            one.request.as_ref().unwrap().body,
            other.request.as_ref().unwrap().body
        );
        let wire = |exchange: &cutpoint_recording::Exchange| match &exchange.response {
            cutpoint_recording::Response::Stream(document) => document
                .frames
                .iter()
                .flat_map(|frame| frame.wire.clone())
                .collect::<Vec<u8>>(),
            cutpoint_recording::Response::Body { .. } => panic!("no stream"),
        };
        assert_eq!(wire(one), wire(other));
    }
    assert_eq!(again.exchanges.len(), original.exchanges.len());
    place.assert_clean();
}

/// Two turns whose answers the client leaves in the middle; what comes of it runs as it stands.
#[test]
fn two_turns_cut_in_mid_stream_become_a_scenario_that_runs() {
    let place = Place::new();
    let texts = ["The quick brown fox jumps", "over the lazy dog, it says"];
    for (at, text) in texts.into_iter().enumerate() {
        // The upstream stalls behind a part of it, so the client is the one that leaves.
        let whole = capture(&[ItemContent::Text { text, chunks: 12 }]);
        let whole = String::from_utf8(whole).unwrap();
        let events: Vec<&str> = whole.split_inclusive("\n\n").take(6 + at).collect();
        let stalled = format!(": cutpoint end=stall\n{}", events.concat());
        place.file(&format!("up/0{}.response.sse", at + 1), stalled);
    }
    let text = "What next?";
    place.file(
        "up/03.response.sse",
        capture(&[ItemContent::Text { text, chunks: 2 }]),
    );
    let (serving, upstream) = serve(&place, "up");
    let mut command = place.cutpoint(["record", "twice", "--out", "kept/recordings"]);
    command.args(["--scenario-out", "kept/twice.kdl", "--upstream", &upstream]);
    let recorder = Running::start(&mut command);
    let proxy = recorder.line();
    let user = |text: &str| json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
    let said = |text: &str| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
    let marker =
        user("<turn_aborted>\nThe user interrupted the previous turn on purpose.\n</turn_aborted>");
    let asked =
        |input: &[Value]| json!({"model": "m", "stream": true, "store": false, "input": input});
    let mut input = vec![user("go on")];
    for (at, heard) in ["The ", "over "].into_iter().enumerate() {
        let mut stream = ask(&proxy, &asked(&input));
        let last = format!("\"sequence_number\":{}}}", 5 + at);
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(&last) {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0);
            read.extend_from_slice(&buffer[..count]);
        }
        drop(stream);
        input.extend([said(heard), marker.clone(), user(&format!("again, {at}"))]);
    }
    assert!(answer(&proxy, &asked(&input)).contains("response.completed"));
    recorder.signal(Signal::SIGINT);
    recorder.wait().code(0).says(&[
        "kept/recordings/twice: 3 exchanges",
        "run it with `cutpoint run kept/twice.kdl`",
    ]);
    serving.signal(Signal::SIGINT);
    serving.wait();
    let scenario = place.read("kept/twice.kdl");
    let steps = [
        "reply recording=\"recordings/twice\" exchange=1",
        "user \"go on\"\n    interrupt at=\"reply 1 event 6\"\n    await turn-aborted reason=interrupted",
        "user \"again, 0\"\n    interrupt at=\"reply 2 event 7\"\n    await turn-aborted reason=interrupted",
        "user \"again, 1\"\n    await turn-complete",
    ];
    for step in steps {
        assert!(scenario.contains(step), "{step}\n{scenario}");
    }
    place
        .run(["run", "kept/twice.kdl"])
        .code(0)
        .says(&["1 conforms"]);
    // That the client left is no fault of the recording.
    place
        .run(["check", "--strict", "kept/recordings/twice"])
        .code(0);
    place.assert_clean();
}
