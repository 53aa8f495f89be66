//! `cutpoint record` as a person uses it: a client in between, a recording and a scenario behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};

use cutpoint_protocol::compose::{Composer, Content};
use cutpoint_recording::{Problem, Recording};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{HANG, Place, Running, recording, root};

/// A server in front of which is recorded.
fn serve(place: &Place, what: &str) -> (Running, String) {
    let serving = Running::start(&mut place.cutpoint(["serve", what]));
    let url = serving.line();
    (serving, url)
}

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

/// A stream of these items, as a capture.
fn capture(items: &[Content<'_>]) -> Vec<u8> {
    let mut composer = Composer::new("resp_1", "m", 1_760_000_000);
    items.iter().for_each(|item| composer.item(item));
    let events = composer.completed();
    events
        .iter()
        .flat_map(|event| event.bytes.to_vec())
        .collect()
}

#[test]
fn a_session_becomes_a_scenario_that_runs() {
    let place = Place::new();
    let text = "Hello alice@corp.example.org!";
    place.file(
        "up/01.response.sse",
        capture(&[Content::Text { text, chunks: 9 }]),
    );
    place.file(
        "up/02.response.sse",
        capture(&[Content::Text {
            text: "Bye.",
            chunks: 1,
        }]),
    );
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

    let expected = "scenario \"hello\" {\n    about \"recorded from URL\"\n    model {\n        recording \"hello\"\n    }\n    user \"I am <custom-1> <<email-1>>\"\n    await turn-complete\n    user \"bye\"\n    await turn-complete\n}\n";
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
    for file in place.names("recordings/hello") {
        let mode = folder.join(&file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
        let text = place.read(&format!("recordings/hello/{file}"));
        for secret in ["Zed77", "alice@", "x@corp", "one-two"] {
            assert!(!text.contains(secret), "{file}: {secret}");
        }
    }
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
            "no regular expression",
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

fn codex() -> Option<PathBuf> {
    let folder = std::env::var_os("CUTPOINT_AGENTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| root().join(".agents"));
    std::fs::canonicalize(folder.join("codex-0.169.0/codex")).ok()
}

#[test]
fn a_turn_of_codex_with_a_tool_runs_again_on_codex_and_on_the_reference_agent() {
    let Some(codex) = codex() else {
        eprintln!("skipped: codex 0.169.0 is not installed; run scripts/install-codex 0.169.0");
        return;
    };
    let place = Place::new();
    let arguments = json!({"cmd": "echo first light"}).to_string();
    let call = Content::Function {
        call_id: "call_1",
        name: "exec_command",
        arguments: &arguments,
        chunks: 4,
    };
    place.file("up/01.response.sse", capture(&[call]));
    let text = "It says: first light.";
    place.file(
        "up/02.response.sse",
        capture(&[Content::Text { text, chunks: 5 }]),
    );
    let (serving, upstream) = serve(&place, "up");
    let mut command = record_codex(&place, &codex, "codex-turn", &upstream);
    Running::start(&mut command)
        .wait()
        .code(0)
        .says(&["recordings/codex-turn: 2 exchanges", "exit status: 0"]);
    serving.signal(Signal::SIGINT);
    serving.wait();
    let scenario = place.read("scenarios/recorded/codex-turn.kdl");
    assert!(
        scenario.contains("    user \"run it\"\n    await turn-complete\n}"),
        "{scenario}"
    );
    runs_on_both(&place, &codex, "scenarios/recorded/codex-turn.kdl");
}

/// Ctrl-C at a terminal reaches the recorder and Codex alike.
#[test]
fn an_interrupt_of_codex_is_a_step_at_that_point() {
    let Some(codex) = codex() else {
        eprintln!("skipped: codex 0.169.0 is not installed; run scripts/install-codex 0.169.0");
        return;
    };
    let place = Place::new();
    let text = "A long story that nobody will hear to its end";
    let stream = capture(&[Content::Text { text, chunks: 9 }]);
    let half = stream[..stream.len() / 2].to_vec();
    let (told, begun) = channel();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (told, half) = (told.clone(), half.clone());
            std::thread::spawn(move || half_an_answer(connection.unwrap(), &half, &told));
        }
    });
    let mut command = record_codex(&place, &codex, "codex-cut", &upstream);
    let recording = Running::start(command.process_group(0));
    begun.recv_timeout(HANG).unwrap();
    recording.signal_group(Signal::SIGINT);
    recording.wait().code(0).says(&["recordings/codex-cut"]);
    let scenario = place.read("scenarios/recorded/codex-cut.kdl");
    let step = "interrupt at=\"";
    assert!(
        scenario.contains(step) && scenario.contains("reply 1"),
        "{scenario}"
    );
    assert!(
        scenario.contains("await turn-aborted reason=interrupted"),
        "{scenario}"
    );
    runs_on_both(&place, &codex, "scenarios/recorded/codex-cut.kdl");
}

/// Answers a request for a stream with half of one and then nothing, and any other with 404.
fn half_an_answer(mut stream: TcpStream, half: &[u8], told: &Sender<()>) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_lowercase();
    if !head.starts_with("post /v1/responses ") {
        let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(nothing).unwrap();
        return;
    }
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    reader.read_exact(&mut vec![0; length]).unwrap();
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(&[&head[..], half].concat()).unwrap();
    told.send(()).unwrap();
    // Until the recorder hangs up, whichever way.
    let _ = reader.read(&mut [0]);
}

/// Codex in a home of its own, recorded.
fn record_codex(place: &Place, codex: &Path, name: &str, upstream: &str) -> Command {
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut command = place.cutpoint(["record", name, "--upstream", upstream, "--"]);
    command
        .arg(codex)
        .args(["exec", "--skip-git-repo-check"])
        .arg("--dangerously-bypass-approvals-and-sandbox")
        .args(["-m", "cutpoint-model", "run it"])
        .env("CODEX_HOME", &home)
        .env("HOME", &home)
        .env("OPENAI_API_KEY", "sk-test-abcdefghij0123456789");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command
}

/// The scenario conforms on the reference agent and on Codex.
fn runs_on_both(place: &Place, codex: &Path, scenario: &str) {
    let mut above = codex.ancestors();
    let agents = above
        .find(|above| above.ends_with("codex-0.169.0"))
        .unwrap();
    for agent in ["reference", "codex@0.169.0"] {
        let mut command = place.cutpoint(["run", scenario, "--agent", agent]);
        command.env("CUTPOINT_AGENTS", agents.parent().unwrap());
        let ended = Running::start(&mut command).wait();
        ended.code(0).says(&["1 conforms"]);
    }
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
