//! `cutpoint check`, end to end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::agents::installed_codex;
use support::{Ended, Place, Running, recording, root};

/// Two turns, as the newest form has them.
const SOUND: &str = concat!(
    r#"{"timestamp":"t","ordinal":0,"type":"session_meta","payload":{"id":"s","cwd":"/w"}}"#,
    "\n",
    r#"{"timestamp":"t","ordinal":1,"type":"event_msg","payload":{"type":"task_started","turn_id":"a"}}"#,
    "\n",
    r#"{"timestamp":"t","ordinal":2,"type":"response_item","payload":{"type":"message","role":"user","content":[]}}"#,
    "\n",
    r#"{"timestamp":"t","ordinal":3,"type":"event_msg","payload":{"type":"task_complete","turn_id":"a"}}"#,
    "\n",
    r#"{"timestamp":"t","ordinal":4,"type":"event_msg","payload":{"type":"task_started","turn_id":"b"}}"#,
    "\n",
    r#"{"timestamp":"t","ordinal":5,"type":"event_msg","payload":{"type":"task_complete","turn_id":"b"}}"#,
    "\n",
);

/// A place with a sound rollout, one with a line torn in the middle, and one of another program.
fn three() -> Place {
    let place = Place::new();
    place.file("sessions/2026/a.jsonl", SOUND);
    let torn = SOUND.replacen(r#","turn_id":"a"}}"#, "", 1);
    place.file("sessions/2026/b.jsonl", torn);
    place.file("sessions/c.jsonl", "{\"level\":\"info\"}\nplain text\n");
    place.file("sessions/notes.txt", "no rollout");
    place
}

/// The rollouts that stand in the traces of a folder, as they were read last; their names.
fn rollouts(place: &Place, traces: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (number, name) in place.names(traces).iter().enumerate() {
        let file = fs::File::open(place.path().join(traces).join(name)).unwrap();
        let mut content = String::new();
        for line in BufReader::new(file).lines() {
            let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if entry["kind"] == "rollout" {
                content.truncate(usize::try_from(entry["from"].as_u64().unwrap()).unwrap());
                content += entry["text"].as_str().unwrap();
            }
        }
        let name = format!("{traces}-rollouts/{number}.jsonl");
        place.file(&name, content);
        names.push(name);
    }
    names
}

/// Runs a scenario, and checks the rollout that the agent wrote.
fn written(scenario: &str, agent: &[&str]) -> Ended {
    let place = Place::new();
    let scenario = root().join("scenarios").join(scenario);
    let mut command = place.cutpoint(["run", "--trace", "traces"]);
    Running::start(command.arg(scenario).args(agent)).wait();
    let names = rollouts(&place, "traces");
    assert!(!names.is_empty());
    place.run(
        [
            &["check"],
            names
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice(),
        ]
        .concat(),
    )
}

#[test]
fn a_folder_is_walked_and_every_fault_is_placed() {
    let place = three();
    let ended = place.run(["check", "sessions"]);
    ended.code(1).says(&[
        "sessions/2026/b.jsonl:2:80: ROLL-1: the line is not valid JSON: EOF while parsing an object [byte 163]",
        "sessions/c.jsonl:1:1: ROLL-1: the line is not of the form {timestamp, type, payload}",
        "sessions/c.jsonl:2:1: ROLL-1: the line is not valid JSON: expected value",
        "not exercised: ROLL-6, CALL-1, CALL-2, MARK-3",
        "3 files, 14 lines, 3 findings in 2 files (",
    ]);
    // A torn line hides nothing else, and nothing follows from it.
    ended.never_says(&["a.jsonl", "ROLL-4", "notes.txt"]);
    // However many work, the files are told in their order.
    let lines = |ended: &Ended| {
        ended
            .stdout
            .lines()
            .take(4)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let one = place.run(["check", "--jobs", "1", "sessions"]);
    assert_eq!(lines(&one), lines(&ended));
    place
        .run(["check", "sessions/2026/a.jsonl"])
        .code(0)
        .says(&["1 file, 6 lines, 0 findings in 0 files"]);
    place.assert_clean();
}

#[test]
fn quiet_says_the_last_line_alone_and_limits_are_kept() {
    let place = three();
    let quiet = place.run(["check", "-q", "sessions"]);
    assert_eq!(quiet.code(1).stdout.lines().count(), 1);
    place.file("many.jsonl", "x\n".repeat(500));
    let ended = place.run(["check", "--limit", "3", "many.jsonl"]);
    ended.code(1).says(&[
        "many.jsonl: 497 more; --limit 500 shows all",
        "500 findings in 1 file",
    ]);
    assert_eq!(ended.stdout.matches("ROLL-1: ").count(), 3);
}

#[test]
fn json_has_an_object_per_finding_and_a_summary() {
    let place = three();
    let ended = place.run(["check", "--json", "sessions"]);
    let values: Vec<Value> = ended
        .code(1)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(values.len(), 4);
    for value in &values {
        assert_eq!(
            (&value["format"], &value["version"]),
            (&"cutpoint-check".into(), &1.into())
        );
    }
    let torn = &values[0];
    assert_eq!(
        (&torn["type"], &torn["rule"], &torn["level"]),
        (&"finding".into(), &"ROLL-1".into(), &"MUST".into())
    );
    assert_eq!(
        (&torn["line"], &torn["column"], &torn["byte"]),
        (&2.into(), &80.into(), &163.into())
    );
    let summary = &values[3];
    assert_eq!(
        (&summary["files"], &summary["must"], &summary["should"]),
        (&3.into(), &3.into(), &0.into())
    );
    assert_eq!(summary["exercised"]["ROLL-6"], 0);
    assert!(summary["exercised"]["ROLL-4"].as_u64() > Some(0));
}

#[test]
fn standard_input_and_torn_ends_are_read() {
    let place = Place::new();
    let check = |words: &[&str], text: &str| {
        place.file("in", text);
        let mut command = place.cutpoint(words);
        command.stdin(fs::File::open(place.path().join("in")).unwrap());
        Running::start(&mut command).wait()
    };
    check(&["check", "-"], SOUND)
        .code(0)
        .says(&["1 file, 6 lines"]);
    let torn = &SOUND[..SOUND.len() - 20];
    let warning = check(&["check", "-"], torn);
    warning.code(0).says(&[
        "-:6:78: ROLL-1 (warning): the last line has no line break",
        "1 of them warnings",
    ]);
    check(&["check", "--strict", "-"], torn).code(1);
    check(&["check", "-"], "")
        .code(0)
        .says(&["1 file, 0 lines"]);
    check(&["check", "--kind", "recording", "-"], "")
        .code(4)
        .says(&["name its folder"]);
}

#[test]
fn what_cannot_be_read_is_told_and_stops_nothing() {
    let place = three();
    place.file("sessions/old.jsonl.zst", [0x28, 0xb5, 0x2f, 0xfd, 0]);
    place.file("sessions/odd.jsonl", [0x1f, 0x8b, 8]);
    place.file("sessions/bytes.jsonl", b"{\"timestamp\":\"\xff\"}\n");
    place.run(["check", "sessions"]).code(1).says(&[
        "sessions/old.jsonl.zst: not read: it is compressed (zstd); decompress it first",
        "sessions/odd.jsonl: not read: it is compressed (gzip)",
        "sessions/bytes.jsonl:1:15: ROLL-1: the line is not valid UTF-8 [byte 14]",
        "6 files",
        "2 compressed and not read",
    ]);
    // A file whose reading fails: no process can read its own memory from the beginning.
    place
        .run(["check", "/proc/self/mem", "sessions/2026/a.jsonl"])
        .code(4)
        .says(&[
            "/proc/self/mem: Input/output error",
            "2 files, 6 lines, 0 findings in 0 files; 1 unreadable",
        ]);
    place
        .run(["check", "nowhere"])
        .code(2)
        .says(&["nowhere: No such file"]);
    fs::create_dir(place.path().join("empty")).unwrap();
    place
        .run(["check", "empty"])
        .code(2)
        .says(&["no rollout, recording or trace in empty"]);
}

#[test]
fn a_line_above_the_limit_is_passed_over_in_bounded_memory() {
    let place = Place::new();
    let mut file = fs::File::create(place.path().join("huge.jsonl")).unwrap();
    file.write_all(SOUND.as_bytes()).unwrap();
    for _ in 0..300 {
        file.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    file.write_all(b"\n").unwrap();
    file.write_all(SOUND.as_bytes()).unwrap();
    let bytes = 300 << 20;
    place.run_within(1024, &["check", "--jobs", "1", "huge.jsonl"]).code(1).says(&[
        &format!("huge.jsonl:7:1: ROLL-1: the line has {bytes} bytes, more than the 67108864 that are read of one"),
        "1 file, 13 lines, 1 finding in 1 file",
    ]);
}

#[test]
fn a_reader_that_goes_away_and_an_interrupt_end_it() {
    let place = three();
    let mut command = place.command("sh");
    let script = "{ \"$0\" check sessions 2>&3; echo \"code $?\" >&2; } 3>errors | :";
    command.args(["-c", script, env!("CARGO_BIN_EXE_cutpoint")]);
    Running::start(&mut command).wait().says(&["code 1"]);
    assert_eq!(place.read("errors"), "");
    // Standard input that goes on and on.
    let (input, mut endless) = std::io::pipe().unwrap();
    let mut command = place.cutpoint(["check", "--jobs", "1", "-"]);
    command.stdin(input);
    let running = Running::start(&mut command);
    // It holds the pipe open, too.
    drop(command);
    // More than a pipe holds: when it is written, the program reads.
    endless.write_all(&b"{}\n".repeat(1 << 20)).unwrap();
    let writing = std::thread::spawn(move || while endless.write_all(b"{}\n").is_ok() {});
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    writing.join().unwrap();
    ended.code(4).says(&["not read to its end", "interrupted"]);
}

#[test]
fn traces_are_judged_by_the_whole_book() {
    let place = support::place_with(support::INTERRUPTED);
    place
        .run(["run", "scenario.kdl", "--trace", "good"])
        .code(0);
    place
        .run([
            "run",
            "scenario.kdl",
            "--trace",
            "bad",
            "--defect",
            "forget-output",
        ])
        .code(1);
    place
        .run(["check", "good"])
        .code(0)
        .says(&["1 file", "0 findings"]);
    place
        .run(["check", "bad"])
        .code(1)
        .says(&["CALL-1: request 2 "]);
    let torn = place.read(&format!("good/{}", place.names("good")[0]));
    let third = torn.match_indices('\n').nth(1).unwrap().0 + 1;
    let foreign = [
        &torn[..third],
        "what is this?\n",
        &torn[third..torn.len() - 10],
    ]
    .concat();
    place.file("torn.jsonl", &foreign);
    // No damaged line ends the scan, and no rule judges a trace that may lack entries.
    let last = foreign.lines().count();
    place.run(["check", "torn.jsonl"]).code(1).says(&[
        "torn.jsonl:3:1: TRACE: the line is no entry of a trace",
        &format!("torn.jsonl:{last}:"),
        "the rules were not asked",
        "3 findings",
    ]);
    place
        .run(["diff", "torn.jsonl", "torn.jsonl"])
        .code(0)
        .says(&[
            "torn.jsonl:3:1: left out: the line is no entry of a trace",
            "the same: 5 items",
        ]);
    place
        .run(["check", "--kind", "rollout", "good"])
        .code(1)
        .says(&["ROLL-1"]);
}

#[test]
fn recordings_are_validated() {
    let place = Place::new();
    // A client that left is not a fault of the recording, which says so.
    place.file("cut/01.response.sse", ": cutpoint end=stall\nevent: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"output\":[]},\"sequence_number\":0}\n\n");
    place.run(["check", "--strict", "cut"]).code(0);
    let sound = recording("shell-then-text");
    place
        .run(["check", &sound, &format!("{sound}/recording.json")])
        .code(0)
        .says(&["1 file"]);
    place.file(
        "mine/01.response.sse",
        "event: response.created\ndata: {}\n\n",
    );
    place
        .run(["check", "."])
        .code(1)
        .says(&["mine/01.response.sse", "RECORDING"]);
    // A finding has the byte at which its line starts, whatever ends the lines of a stream.
    place.file(
        "lines/01.response.sse",
        "event: response.created\rdata: {}\r\n\r\n\n: x\n",
    );
    place
        .run(["check", "lines"])
        .code(1)
        .says(&["01.response.sse:2: RECORDING: ", "[byte 24]"]);
}

#[test]
fn secrets_are_warned_of_and_never_repeated() {
    let place = Place::new();
    let key = format!("sk-proj-{}7", "aB3d".repeat(10));
    let mail = "alice@corp.example.org";
    let stream = |text: &str| {
        let data = format!("{{\"type\":\"response.output_text.done\",\"text\":\"{text}\"}}");
        format!("event: response.output_text.done\ndata: {data}\n\n")
    };
    let text = stream(&format!("for {mail}: {key}"));
    let places = [mail, &key].map(|secret| {
        let (byte, start) = (text.find(secret).unwrap(), text.find("data").unwrap());
        (byte - start + 1, byte)
    });
    place.file("r/01.response.sse", &text);
    let ended = place.run(["check", "r"]);
    for ((column, byte), kind) in places.into_iter().zip(["email", "api-key"]) {
        let place = format!("r/01.response.sse:2:{column}: SECRET (warning): ");
        let end = format!("[byte {byte}]");
        let says = [place.as_str(), "was left in the recording", kind, &end];
        ended.says(&says);
    }
    ended.never_says(&[&key, mail]);
    place.run(["check", "r", "--strict"]).code(1);
    place.file(
        "clean/01.response.sse",
        stream("for <email-1>: <api-key-1>"),
    );
    let clean = place.run(["check", "clean"]);
    clean.never_says(&["SECRET"]);

    // What is no text in front of it moves no place.
    let torn = [&b": \xFF\xFE\n\n: \xF0\x9F"[..], text.as_bytes()].concat();
    place.file("torn/01.response.sse", torn);
    let told = format!("torn/01.response.sse:4:{}: SECRET", places[0].0);
    let byte = format!("[byte {}]", places[0].1 + 10);
    place.run(["check", "torn"]).says(&[&told, &byte]);

    // A rollout is the user's own file: only what opens doors is worth a word, and only if asked for.
    let written = SOUND.replacen("\"/w\"", &format!("\"/home/alice/{mail} {key}\""), 1);
    let byte = written.find(&key).unwrap();
    place.file("own.jsonl", written);
    place
        .run(["check", "own.jsonl", "--strict"])
        .code(0)
        .never_says(&["SECRET"]);
    let asked = place.run(["check", "own.jsonl", "--secrets"]);
    let place_of_key = format!("own.jsonl:1:{}: SECRET (warning): ", byte + 1);
    asked
        .code(0)
        .says(&[&place_of_key, "api-key", "1 finding in 1 file"]);
    asked.never_says(&[&key]);
    place
        .run(["check", "own.jsonl", "--secrets", "--strict"])
        .code(1);
    place.assert_clean();
}

#[test]
fn what_the_reference_agent_writes_passes() {
    for scenario in [
        "tools/tool-running.kdl",
        "replace-and-steer/replaced.kdl",
        "streams/middle-delta.kdl",
    ] {
        written(scenario, &[])
            .code(0)
            .says(&["0 findings in 0 files"]);
    }
    written("tools/tool-running.kdl", &["--agent", "reference-stdio"])
        .code(0)
        .says(&["0 findings in 0 files"]);
}

#[test]
fn defects_are_seen_in_the_file_alone() {
    let cases = [
        (
            "half-marker",
            "tools/tool-running.kdl",
            0,
            "MARK-3 (warning): turn",
        ),
        // What its requests lack, its file has: that takes a run to see.
        ("marker-missing", "tools/tool-running.kdl", 0, "0 findings"),
        ("marker-twice", "tools/tool-running.kdl", 1, "MARK-3: turn"),
        (
            "marker-on-replace",
            "replace-and-steer/replaced.kdl",
            1,
            "MARK-4: a marker for turn",
        ),
        (
            "torn-line",
            "tools/tool-running.kdl",
            1,
            "ROLL-1: the line is not valid JSON",
        ),
        (
            "ordinal-skips",
            "tools/tool-running.kdl",
            1,
            "ROLL-4: ordinal",
        ),
        (
            "terminal-line-missing",
            "tools/tool-running.kdl",
            1,
            "has no terminal line",
        ),
    ];
    for (defect, scenario, code, says) in cases {
        written(scenario, &["--defect", defect])
            .code(code)
            .says(&[says]);
    }
}

/// Codex's rollouts show what docs/findings tells of it, and nothing else.
#[test]
fn what_codex_writes_shows_known_findings_alone() {
    let Some(codex) = installed_codex() else {
        return;
    };
    let place = Place::new();
    let run = |traces: &str, scenario: &str| {
        let mut command = place.cutpoint(["run", "--agent", &codex, "--trace", traces]);
        command.arg(root().join("scenarios").join(scenario));
        Running::start(&mut command).wait();
        rollouts(&place, traces).remove(0)
    };
    let sound = run("sound", "tools/tool-running.kdl");
    place
        .run(["check", &sound])
        .code(0)
        .says(&["0 findings in 0 files"]);
    // docs/findings/codex-0.169.0.md#a-turn-cut-by-a-crash-never-ends-in-the-rollout
    let killed = run("killed", "resume/killed-in-mid-sentence.kdl");
    place
        .run(["check", &killed])
        .code(1)
        .says(&["has no terminal line", "1 finding in 1 file"]);
}
