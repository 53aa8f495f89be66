//! Sessions of the real Codex, recorded and run again, where it is installed (`scripts/install-codex 0.169.0`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Sender, channel};

use cutpoint_engine::driver::codex_app_server;
use cutpoint_protocol::compose::ItemContent;
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;
use serde_json::json;
use support::agents::{CODEX_VERSION, named};
use support::upstream::{capture, serve};
use support::{HANG, Place, Running};

/// A session of Codex, recorded.
type Session = fn(&Path);

const SESSIONS: [(&str, Session); 5] = [
    ("a turn with a tool", a_turn_with_a_tool),
    ("an interrupt in mid-stream", an_interrupt_in_mid_stream),
    (
        "two turns, a tool and an interrupt",
        two_turns_a_tool_and_an_interrupt,
    ),
    (
        "two turns with a model that Codex knows",
        two_turns_with_a_model_that_codex_knows,
    ),
    ("two turns of scripts", two_turns_of_scripts),
];

fn main() -> ExitCode {
    let codex = codex_app_server::program_of(CODEX_VERSION);
    let trial = |(name, session): (&str, Session)| {
        let (name, ignored) = match &codex {
            Some(_) => (name.to_owned(), false),
            None => (
                format!("{name}: run scripts/install-codex {CODEX_VERSION}"),
                true,
            ),
        };
        let codex = codex.clone();
        let run = move || {
            session(codex.as_deref().ok_or("codex is not installed")?);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let trials = SESSIONS.into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// An answer that has a command run.
fn runs(call_id: &str, command: &str) -> Vec<u8> {
    capture(&[ItemContent::Function {
        call_id,
        name: "exec_command",
        arguments: &json!({"cmd": command}).to_string(),
        chunks: 4,
    }])
}

/// An answer with a script of the model's that has a command run.
fn scripts(call_id: &str, command: &str) -> Vec<u8> {
    let command = json!({"cmd": command});
    capture(&[ItemContent::Custom {
        call_id,
        name: "exec",
        input: &format!("text(await tools.exec_command({command}));"),
        chunks: 4,
    }])
}

fn a_turn_with_a_tool(codex: &Path) {
    let place = Place::new();
    place.file("up/01.response.sse", runs("call_1", "echo first light"));
    let text = "It says: first light.";
    place.file(
        "up/02.response.sse",
        capture(&[ItemContent::Text { text, chunks: 5 }]),
    );
    let (serving, upstream) = serve(&place, "up");
    let mut command = record_codex(&place, codex, "codex-turn", &upstream);
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
    runs_on_both(&place, codex, "scenarios/recorded/codex-turn.kdl");
}

/// Ctrl-C at a terminal reaches the recorder and Codex alike.
fn an_interrupt_in_mid_stream(codex: &Path) {
    let place = Place::new();
    let text = "A long story that nobody will hear to its end";
    let stream = capture(&[ItemContent::Text { text, chunks: 9 }]);
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
    let mut command = record_codex(&place, codex, "codex-cut", &upstream);
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
    runs_on_both(&place, codex, "scenarios/recorded/codex-cut.kdl");
}

fn two_turns_a_tool_and_an_interrupt(codex: &Path) {
    two_turns(codex, "cutpoint-model", runs);
}

/// With such a model Codex has the developer write the marker, not the user.
fn two_turns_with_a_model_that_codex_knows(codex: &Path) {
    two_turns(codex, "gpt-6.1-sol", runs);
}

/// The newest models call one tool, which runs scripts; no other agent has it.
fn two_turns_of_scripts(codex: &Path) {
    two_turns(codex, "gpt-6.1-sol", scripts);
}

/// A turn that is cut while its second command runs, and another turn of the same session, in two processes.
fn two_turns(codex: &Path, model: &str, runs: fn(&str, &str) -> Vec<u8>) {
    let place = Place::new();
    place.file("up/01.response.sse", runs("call_1", "echo first light"));
    place.file("up/02.response.sse", runs("call_2", "sleep 600"));
    let text = "Stopped. What next?";
    place.file(
        "up/03.response.sse",
        capture(&[ItemContent::Text { text, chunks: 5 }]),
    );
    let (serving, upstream) = serve(&place, "up");
    // The recorder gives its settings to a program of this name. Codex tells when a command has started.
    let script = format!(
        r#"codex={codex}
manner='--skip-git-repo-check --dangerously-bypass-approvals-and-sandbox -m {model}'
mkfifo events
"$codex" "$@" exec --json $manner 'run both' > events &
while read -r event; do
    case $event in *item.started*'sleep 600'*) kill -INT $! ;; esac
done < events
"$codex" "$@" exec resume --last $manner 'and now?'"#,
        codex = codex.display()
    );
    let program = place.script("codex", &script);
    let mut command = recorder(&place, &program, "two-turns", &upstream);
    let ended = Running::start(&mut command).wait();
    ended
        .code(0)
        .says(&["recordings/two-turns: 3 exchanges", "exit status: 0", text]);
    serving.signal(Signal::SIGINT);
    serving.wait();
    let scenario = place.read("scenarios/recorded/two-turns.kdl");
    let steps = r#"    user "run both"
    interrupt at="call_2 running"
    await turn-aborted reason=interrupted
    user "and now?"
    await turn-complete
}
"#;
    assert!(scenario.ends_with(steps), "{scenario}");
    let model_line = format!("model name=\"{model}\" ");
    assert!(scenario.contains(&model_line), "{scenario}");
    runs_on_both(&place, codex, "scenarios/recorded/two-turns.kdl");
    // The rollout that Codex wrote keeps the rules, and tells the same session.
    place.run(["check", "home/sessions", "--strict"]).code(0);
    let (mut name, mut folder) = (String::new(), "home/sessions".to_owned());
    while !name.ends_with(".jsonl") {
        name = place.names(&folder).remove(0);
        folder = format!("{folder}/{name}");
    }
    place.run(["diff", &folder, "recordings/two-turns"]).code(0);
    place
        .run(["import", &folder, "--name", "imported"])
        .code(0)
        .says(&["checked: a replay gives the same items"]);
    for agent in ["reference", &named("codex", codex.to_owned())] {
        place
            .run(["replay", "recordings/two-turns", "--agent", agent])
            .code(0)
            .says(&["0 lost, 0 added"]);
    }
    place.assert_clean();
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

/// `codex exec`, recorded.
fn record_codex(place: &Place, codex: &Path, name: &str, upstream: &str) -> Command {
    let mut command = recorder(place, codex, name, upstream);
    command
        .args(["exec", "--skip-git-repo-check"])
        .arg("--dangerously-bypass-approvals-and-sandbox")
        .args(["-m", "cutpoint-model", "run it"]);
    command
}

/// The recorder of a program that is Codex, in a home of its own.
fn recorder(place: &Place, program: &Path, name: &str, upstream: &str) -> Command {
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut command = place.cutpoint(["record", name, "--upstream", upstream, "--"]);
    command
        .arg(program)
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
    for agent in ["reference", &named("codex", codex.to_owned())] {
        let ended = place.run(["run", scenario, "--agent", agent]);
        ended.code(0).says(&["1 conforms"]);
    }
    place.assert_clean();
}
