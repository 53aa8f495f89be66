//! The recordings that come with cutpoint are what their builders below make, and have no problem.
//!
//! `CUTPOINT_UPDATE=1 cargo test -p cutpoint-recording` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{exchange, message, output, shell_arguments, shell_call, stream};
use cutpoint_protocol::compose::ItemContent;
use cutpoint_recording::{Recording, Response};

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recordings")
}

fn text(text: &str) -> ItemContent<'_> {
    let chunks = text.split(' ').count();
    ItemContent::Text { text, chunks }
}

fn example(name: &str, source: &str) -> Recording {
    let mut recording = Recording::new(name, source);
    recording.created = Some("2025-11-02T12:00:00Z".to_owned());
    recording
}

/// What every conversation of the examples starts with.
fn context() -> [serde_json::Value; 2] {
    let environment = "<environment_context>\n  <cwd>/home/user/project</cwd>\n  <shell>bash</shell>\n</environment_context>";
    [
        message("developer", "Ask before you delete anything."),
        message("user", environment),
    ]
}

/// One question, one answer in words.
fn text_answer() -> Recording {
    let answer = "An interrupted turn leaves three things behind: an output for every call, a marker that the model can read, and a rollout that another process can resume.";
    let reasoning = ItemContent::Reasoning {
        text: "**Listing what an interrupt owes**",
        chunks: 4,
    };
    let mut recording = example("text-answer", "composed: one answer in words");
    let [developer, environment] = context();
    let input = [
        developer,
        environment,
        message("user", "What does an interrupted turn leave behind?"),
    ];
    let bytes = stream("resp_text_1", &[reasoning, text(answer)]);
    recording.exchanges = vec![exchange(1, &input, &bytes)];
    recording
}

/// A shell call, its output, an answer in words, and the next question.
fn shell_then_text() -> Recording {
    let command = "ls -1 src | head -n 3";
    let arguments = shell_arguments(command);
    let said = "Let me look.";
    let answer = "There are three files: lib.rs, main.rs and run.rs.";
    let call = ItemContent::Function {
        call_id: "call_ls",
        name: "shell",
        arguments: &arguments,
        chunks: 6,
    };
    let [developer, environment] = context();
    let mut input = vec![
        developer,
        environment,
        message("user", "Which files are in src?"),
    ];
    let first = exchange(1, &input, &stream("resp_shell_1", &[text(said), call]));
    input.extend([
        message("assistant", said),
        shell_call("call_ls", command),
        output("call_ls", "lib.rs\nmain.rs\nrun.rs\n"),
    ]);
    let second = exchange(2, &input, &stream("resp_shell_2", &[text(answer)]));
    input.extend([message("assistant", answer), message("user", "Thanks!")]);
    let third = exchange(
        3,
        &input,
        &stream("resp_shell_3", &[text("You are welcome.")]),
    );
    let mut recording = example("shell-then-text", "composed: a shell call, then words");
    recording.exchanges = vec![first, second, third];
    recording
}

/// The same streams as `curl -N` would have printed them, without `recording.json`.
fn bare_curl() -> Vec<(String, Vec<u8>)> {
    let exchanges = shell_then_text().exchanges.into_iter().take(2);
    exchanges
        .map(|exchange| match exchange.response {
            Response::Stream(document) => (
                format!("{:02}.response.sse", exchange.number),
                document.to_bytes(),
            ),
            Response::Body { .. } => panic!("the example has streams only"),
        })
        .collect()
}

/// The files of a folder, by name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The example as it stands is the example as it is built.
fn check(name: &str, built: &Path) {
    let stored = recordings().join(name);
    if std::env::var_os("CUTPOINT_UPDATE").is_some() {
        fs::create_dir_all(&stored).unwrap();
        for (file, _) in files(&stored) {
            fs::remove_file(stored.join(file)).unwrap();
        }
        for (file, bytes) in files(built) {
            fs::write(stored.join(file), bytes).unwrap();
        }
    }
    let (stored, built) = (files(&stored), files(built));
    assert!(
        stored == built,
        "recordings/{name} is not what this test builds: run it with CUTPOINT_UPDATE=1"
    );
}

#[test]
fn the_examples_are_what_their_builders_make() {
    let place = tempfile::tempdir().unwrap();
    for recording in [text_answer(), shell_then_text()] {
        let dir = place.path().join(&recording.name);
        recording.save(&dir).unwrap();
        check(&recording.name, &dir);
    }
    let dir = place.path().join("bare-curl");
    fs::create_dir(&dir).unwrap();
    for (file, bytes) in bare_curl() {
        fs::write(dir.join(file), bytes).unwrap();
    }
    check("bare-curl", &dir);
}

#[test]
fn no_recording_has_a_problem() {
    let mut seen = 0;
    for entry in fs::read_dir(recordings()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let recording = Recording::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(recording.validate(), [], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} recordings");
}
