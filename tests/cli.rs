//! The command line as scripts and CI see it: exit codes, messages, files. `0` conforms, `1` a
//! breach, `2` the user's mistake, `3` the agent, `4` interrupted or trouble.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::{INTERRUPTED, Place, QUICK, Running, place_with, recording};

const COMMANDS: &[&str] = &[
    "run",
    "doctor",
    "sweep",
    "fuzz",
    "replay",
    "report",
    "record",
    "serve",
    "mutate",
    "rules",
    "fmt",
    "defects",
    "agents",
    "agent",
    "completions",
];

#[test]
fn help_is_there_for_every_command_and_tells_the_exit_codes() {
    let place = Place::new();
    let help = place.run(["--help"]);
    help.code(0).says(&[
        "Exit codes:",
        "0 everything conforms",
        "4 interrupted, or trouble",
    ]);
    for command in COMMANDS {
        place
            .run([command, "--help"])
            .code(0)
            .says(&["Usage: cutpoint", command]);
    }
    place
        .run(["--version"])
        .code(0)
        .says(&[env!("CARGO_PKG_VERSION")]);
    let run = place.run(["run", "--help"]);
    run.says(&["[default: 10]", "[default: --limit if given, else 30]"]);
}

#[test]
fn a_conforming_run_is_0_and_a_breach_is_1() {
    let place = place_with(INTERRUPTED);
    place
        .run(["run", "scenario.kdl"])
        .code(0)
        .says(&["PASS scenario.kdl", "1 case: 1 conforms"]);
    let words = ["run", "scenario.kdl", "--defect", "forget-output"];
    for agent in ["reference", "reference-stdio", "reference-jsonrpc"] {
        let breach = place.run(words.into_iter().chain(["--agent", agent]));
        breach.code(1).says(&[
            "FAIL scenario.kdl",
            "CALL-1/",
            "MUST: ",
            "replay",
            "--defect forget-output",
        ]);
    }
    place.assert_clean();
}

#[test]
fn a_verbose_run_shows_what_a_person_saw() {
    let place = place_with(INTERRUPTED);
    let quiet = place.run(["run", "scenario.kdl"]);
    assert!(!quiet.stdout.contains("task interrupted"));
    for flag in ["-v", "--verbose"] {
        place.run(["run", "scenario.kdl", flag]).code(0).says(&[
            "    › ",
            "    $ sleep",
            "    ■ task interrupted",
            "    → interrupt at=",
        ]);
    }
    place.assert_clean();
}

/// A token has dots in it, and is no path for that.
#[test]
fn what_a_sweep_finds_is_replayed_by_its_token() {
    let place = place_with(QUICK);
    let defect = ["--defect", "marker-after-event"];
    let words = [
        "sweep",
        "scenario.kdl",
        "--acts",
        "interrupt",
        "--yields",
        "0",
    ];
    let found = place.run(words.iter().chain(&defect));
    found
        .code(1)
        .says(&["MARK-1", "replay: cutpoint replay cp2:"]);
    let (_, token) = found.stdout.split_once("replay: cutpoint replay ").unwrap();
    let token = token.split_whitespace().next().unwrap();
    let again = ["replay", token, "scenario.kdl", "--times", "3"];
    let broken = place.run(again.iter().chain(&defect));
    broken.code(1).says(&["MARK-1", "3 runs, one trace"]);
    place.run(again).code(0).says(&["3 runs, one trace"]);
    place
        .run(["replay", "no-such-thing"])
        .code(2)
        .says(&["is not a token"]);
    place.assert_clean();
}

/// A scenario may end the agent itself, and need not start it again.
#[test]
fn a_session_that_the_scenario_ended_is_not_ended_twice() {
    let place = Place::new();
    for last in ["shutdown", "kill"] {
        place.file(
            "scenario.kdl",
            QUICK.replace("turn-complete", &format!("turn-complete\n    {last}")),
        );
        for agent in ["reference", "reference-stdio", "reference-jsonrpc"] {
            place
                .run(["run", "scenario.kdl", "--agent", agent])
                .code(0)
                .says(&["1 conforms"]);
        }
    }
    place.assert_clean();
}

/// A shell takes the command that a failure prints, whatever the names in it.
#[test]
fn the_replay_command_replays() {
    let place = Place::new();
    let name = "it's a \"test\" $HOME.kdl";
    place.file(name, INTERRUPTED);
    let failed = place.run([
        "run",
        name,
        "--defect",
        "forget-output",
        "--seed",
        "7",
        "--limit",
        "9",
    ]);
    let told = failed
        .code(1)
        .stdout
        .lines()
        .find_map(|line| line.trim().strip_prefix("replay "));
    let told = told
        .expect("no replay command")
        .trim()
        .strip_prefix("cutpoint ")
        .unwrap();
    let mut again = place.command("sh");
    again.args([
        "-c",
        &format!("\"$0\" {told}"),
        env!("CARGO_BIN_EXE_cutpoint"),
    ]);
    let again = Running::start(&mut again).wait();
    again
        .code(1)
        .says(&["CALL-1/", "MUST: ", "1 case: 1 failed", "seed 7"]);
}

/// What is wrong with a command line, and what its message says.
const MISTAKES: &[(&str, &[&str])] = &[
    (
        "run --agent codx",
        &["no agent `codx`; there are reference, reference-stdio, reference-jsonrpc"],
    ),
    ("run --agent stdio:", &["`stdio:` is cut short"]),
    (
        "run --defect nope",
        &["no planted defect is called `nope`; `cutpoint defects` lists them"],
    ),
    (
        "defects No_Sync",
        &["no planted defect is called `No_Sync`; did you mean `no-sync`?"],
    ),
    (
        "run scenario.kdl --defect no-sync --agent codex",
        &["--defect goes with"],
    ),
    (
        "run scenario.kdl --defect no-sync --agent stdio:/x",
        &["--defect goes with"],
    ),
    ("run nowhere", &["nowhere: does not exist"]),
    ("run", &["scenarios: does not exist"]),
    ("run empty", &["there is no .kdl file in empty"]),
    (
        "run /dev/zero",
        &["/dev/zero: is neither a file nor a directory"],
    ),
    ("run scenario.kdl --only other", &["contains \"other\""]),
    ("run scenario.kdl --jobs 0", &["0 is not in 1..=64"]),
    ("run scenario.kdl --limit 0", &["0 is not in 1..=86400"]),
    (
        "run scenario.kdl --limit 18446744073709551615",
        &["is not in 1..=86400"],
    ),
    (
        "run scenario.kdl --start-limit 0",
        &["0 is not in 1..=86400"],
    ),
    (
        "run scenario.kdl --junit no/x.xml",
        &["no/x.xml", "No such file"],
    ),
    (
        "run scenario.kdl --json scenario.kdl/x",
        &["Not a directory"],
    ),
    ("run scenario.kdl --json empty", &["empty: is a directory"]),
    (
        "run scenario.kdl --trace scenario.kdl/x",
        &["Not a directory"],
    ),
    (
        "rules NOPE-1",
        &["there is no rule NOPE-1; there are CALL-1"],
    ),
    ("rules mark", &["there is no rule MARK; did you mean"]),
    ("rules --scenarios nowhere", &["nowhere: does not exist"]),
    ("fmt nowhere", &["nowhere: does not exist"]),
    ("serve nowhere", &["nowhere", "there is no such recording"]),
    ("serve empty", &["holds no exchange"]),
    ("serve scenario.kdl", &["neither a folder nor an .sse file"]),
    (
        "agent --base-url ftp://x",
        &["does not start with `http://`"],
    ),
    ("completions tcsh", &["invalid value 'tcsh'", "bash"]),
    ("frobnicate", &["unrecognized subcommand 'frobnicate'"]),
];

#[test]
fn mistakes_on_the_command_line_are_2() {
    let place = place_with(QUICK);
    fs::create_dir(place.path().join("empty")).unwrap();
    for (words, says) in MISTAKES {
        place.run(words.split(' ')).code(2).says(says);
    }
    place.assert_clean();
}

#[test]
fn a_mistake_in_a_scenario_is_shown_where_it_stands() {
    let place = place_with(&QUICK.replace("turn-complete", "turn-complet"));
    place.file("right.kdl", QUICK);
    let refused = place.run(["run", "."]);
    refused.code(2).says(&[
        "--> ./scenario.kdl:4:11",
        "^^^^^^^^^^^^",
        "did you mean `turn-complete`?",
        "1 scenario file has mistakes; nothing was run",
    ]);
    refused.never_says(&["PASS"]);
    place.file("cut.kdl", &QUICK[..QUICK.len() - 2]);
    let unreadable = place.run(["fmt", "cut.kdl"]);
    unreadable.code(2).says(&["--> cut.kdl:"]);
    assert_eq!(place.read("cut.kdl"), QUICK[..QUICK.len() - 2]);
}

#[test]
fn a_waiver_of_an_unknown_rule_is_a_mistake() {
    let waiving = |rule: &str| {
        let end = QUICK.rfind('}').expect("a block");
        let waiver = format!("    waive {rule} because=\"known\"\n}}\n");
        format!("{}{waiver}", &QUICK[..end])
    };
    let place = place_with(&waiving("CAL-1"));
    let refused = place.run(["run", "."]);
    refused.code(2).says(&[
        "there is no rule `CAL-1`",
        "--> ./scenario.kdl:",
        "^^^^^ unknown rule",
        "did you mean `CALL-1`?",
        "1 scenario file has mistakes; nothing was run",
    ]);
    // A rule that exists, but is not broken: the case conforms, and says so.
    place.file("scenario.kdl", waiving("CALL-1"));
    let run = place.run(["run", ".", "--json", "results.json"]);
    run.code(0)
        .says(&["PASS", "waiver not needed: CALL-1: the rule was"]);
    assert!(
        place
            .read("results.json")
            .contains(r#""unneeded_waivers":["CALL-1"]"#)
    );
}

#[test]
fn fmt_tells_changes_and_keeps() {
    let untidy = QUICK.replace("    ", " ");
    let place = place_with(&untidy);
    let check = place.run(["fmt", "--check", "scenario.kdl"]);
    check
        .code(1)
        .says(&["scenario.kdl is not formatted; run `cutpoint fmt scenario.kdl`"]);
    assert_eq!(place.read("scenario.kdl"), untidy);

    // Words in an old spelling are replaced.
    place.file(
        "old.kdl",
        QUICK.replace("    await", "    interrupt at=\"told error\"\n    await"),
    );
    place.run(["fmt", "--check", "old.kdl"]).code(1);
    place.run(["fmt", "old.kdl"]).code(0).says(&["old.kdl"]);
    assert!(
        place
            .read("old.kdl")
            .contains("interrupt at=\"event error\"")
    );
    fs::remove_file(place.path().join("old.kdl")).unwrap();

    // A link stays a link: what it leads to is laid out, with the permissions that it had.
    let file = place.path().join("scenario.kdl");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&file, place.path().join("link.kdl")).unwrap();
    place.run(["fmt", "link.kdl"]).code(0).says(&["link.kdl"]);
    assert_eq!(place.read("scenario.kdl"), QUICK);
    assert!(place.path().join("link.kdl").is_symlink());
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o640
    );
    place.run(["fmt", "--check", "."]).code(0);

    let mut stdin = place.cutpoint(["fmt", "-"]);
    stdin.stdin(fs::File::open(place.file("untidy.txt", &untidy)).unwrap());
    assert_eq!(Running::start(&mut stdin).wait().code(0).stdout, QUICK);
    assert_eq!(
        place.names("."),
        ["link.kdl", "scenario.kdl", "tmp", "untidy.txt"]
    );
}

#[test]
fn an_agent_that_is_not_there_is_3() {
    let place = place_with(QUICK);
    place.file("plain-file", "no program");
    fs::create_dir(place.path().join("agents")).unwrap();
    place.script("no-version", "exit 1");
    place.script("odd-version", "echo hello world");
    let cases: &[(&str, &[&str])] = &[
        ("stdio:nowhere", &["nowhere: No such file or directory"]),
        ("stdio:plain-file", &["plain-file: Permission denied"]),
        ("codex:nowhere", &["nowhere: No such file or directory"]),
        ("codex:plain-file", &["plain-file: Permission denied"]),
        (
            "codex:no-version",
            &["no-version: `--version` failed (exit status: 1)"],
        ),
        (
            "codex:odd-version",
            &["odd-version: `--version` printed no version; is this Codex?"],
        ),
        (
            "codex",
            &["codex is not installed; run `scripts/install-codex 0.169.0`"],
        ),
        (
            "codex@1.2.3",
            &["codex 1.2.3 is not installed; run `scripts/install-codex 1.2.3`"],
        ),
    ];
    for (agent, says) in cases {
        let mut command = place.cutpoint(["run", "scenario.kdl", "--agent", agent]);
        let ended = Running::start(command.env("CUTPOINT_AGENTS", "agents")).wait();
        ended.code(3).says(says);
    }
    place.assert_clean();
}

/// What ended before an agent that is missing is reported all the same.
#[test]
fn several_agents_are_reported_one_by_one() {
    let place = place_with(QUICK);
    let words = [
        "run",
        "scenario.kdl",
        "--agent",
        "reference",
        "--agent",
        "stdio:nowhere",
    ];
    let ended = place.run(words.into_iter().chain(["--junit", "report.xml"]));
    ended.code(3).says(&[
        "PASS scenario.kdl",
        "1 case: 1 conforms",
        "nowhere: No such file",
    ]);
    assert!(place.read("report.xml").contains("</testsuites>"));
    assert_eq!(place.names("."), ["report.xml", "scenario.kdl", "tmp"]);
}

/// What people read in tables, programs read as JSON: the defects, the rules with what puts them to
/// the test, and what catches what.
#[test]
fn defects_rules_and_what_they_are_worth_can_be_read_by_programs() {
    let place = place_with(INTERRUPTED);
    let json = |words: &[&str]| -> serde_json::Value {
        let ended = place.run(words);
        ended.code(0);
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let defects = json(&["defects", "--json"]);
    let of_call_1 = |defect: &&serde_json::Value| defect["rule"] == "CALL-1";
    let defect = defects["defects"]
        .as_array()
        .unwrap()
        .iter()
        .find(of_call_1);
    assert_eq!(defect.unwrap()["name"], "forget-output");
    let rule = &json(&["rules", "call-1", "--json"])["rules"][0];
    assert_eq!(rule["defects"][0], "forget-output");
    assert_eq!(rule["kinds"][0]["kind"], "no-output");
    assert!(rule.get("exercised_by").is_none(), "nothing was measured");
    let measured = ["rules", "CALL-1", "--scenarios", "scenario.kdl"];
    let rule = &json(&[&measured[..], &["--json"]].concat())["rules"][0];
    assert_eq!(rule["exercised_by"][0]["scenario"], "it's interrupted");
    place.run(measured).code(0).says(&[
        "Scenarios that exercise it: 1",
        "scenario.kdl: it's interrupted",
    ]);
    let mutate = ["mutate", "scenario.kdl", "--defect", "forget-output"];
    let table = place.run([&mutate[..], &["--json", "score.json"]].concat());
    table
        .code(0)
        .says(&["forget-output CALL-1 caught scenario.kdl CALL-1 (1)"]);
    let score: serde_json::Value = serde_json::from_str(&place.read("score.json")).unwrap();
    let caught_by = &score["defects"][0]["caught_by"]["CALL-1"];
    assert_eq!(caught_by[0]["file"], "scenario.kdl");
    let rule = &score["rules"][0];
    assert_eq!(
        (&rule["rule"], &rule["catches"][0]),
        (&"CALL-1".into(), &"forget-output".into())
    );
    assert_eq!(rule["exercised_by"][0]["file"], "scenario.kdl");
    place.assert_clean();
}

/// What `--strict` changes is for breaches of SHOULD; a conforming agent and a breach of a MUST are
/// what they are.
#[test]
fn strict_changes_neither_a_pass_nor_a_breach_of_must() {
    let place = place_with(INTERRUPTED);
    place.run(["run", "scenario.kdl", "--strict"]).code(0);
    place
        .run([
            "run",
            "scenario.kdl",
            "--strict",
            "--defect",
            "forget-output",
        ])
        .code(1);
}

#[test]
fn there_is_no_colour_where_nobody_sees_it() {
    let place = place_with(INTERRUPTED);
    place.file("wrong/wrong.kdl", "scenario {");
    let cases: [(&[&str], i32); 5] = [
        (&["run", "scenario.kdl", "--defect", "forget-output"], 1),
        (&["run", "wrong"], 2),
        (&["rules"], 0),
        (&["agents"], 0),
        (&["run", "--frobnicate"], 2),
    ];
    for (words, code) in cases {
        place.run(words).code(code).never_says(&["\u{1b}"]);
        let mut command = place.cutpoint(words);
        Running::start(command.env("NO_COLOR", "1"))
            .wait()
            .code(code)
            .never_says(&["\u{1b}"]);
    }
}

/// `cutpoint rules | head -1`: the reader is gone when the program writes.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = place_with(INTERRUPTED);
    let breach = ["run", "scenario.kdl", "--defect", "forget-output"];
    let cases: [(&[&str], i32); 8] = [
        (&["rules"], 0),
        (&["rules", "MARK-1"], 0),
        (&["defects"], 0),
        (&["defects", "no-sync"], 0),
        (&["agents"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&breach, 1),
    ];
    for (words, code) in cases {
        let mut command = place.command("sh");
        // The exit code is that of the program, told by a descriptor of its own.
        let script = "{ \"$0\" \"$@\" 2>&3; echo \"code $?\" >&2; } 3>errors | :";
        command
            .args(["-c", script, env!("CARGO_BIN_EXE_cutpoint")])
            .args(words);
        Running::start(&mut command)
            .wait()
            .says(&[&format!("code {code}")]);
        assert_eq!(place.read("errors"), "", "{words:?}");
    }
}

/// A device is written to, never replaced by a file: neither as stdout nor as a report. The link is
/// there so that a program that gets this wrong replaces a link.
#[test]
fn a_full_device_is_trouble_and_stays_a_device() {
    let place = place_with(QUICK);
    symlink("/dev/full", place.path().join("full")).unwrap();
    symlink("/dev/null", place.path().join("null")).unwrap();
    let commands: [&[&str]; 7] = [
        &["rules"],
        &["agents"],
        &["defects"],
        &["mutate", "scenario.kdl", "--defect", "no-sync"],
        &["rules", "MARK-1"],
        &["completions", "zsh"],
        &["run", "scenario.kdl"],
    ];
    for words in commands {
        let script = "exec \"$0\" \"$@\" >/dev/full";
        let mut command = place.command("sh");
        command
            .args(["-c", script, env!("CARGO_BIN_EXE_cutpoint")])
            .args(words);
        Running::start(&mut command)
            .wait()
            .code(4)
            .says(&["stdout: No space left on device"]);
    }
    for report in ["--json", "--junit"] {
        let full = place.run(["run", "scenario.kdl", report, "full"]);
        full.code(4).says(&["full: No space left on device"]);
        place.run(["run", "scenario.kdl", report, "null"]).code(0);
    }
    for link in ["full", "null"] {
        assert!(place.path().join(link).is_symlink());
        assert!(
            fs::metadata(place.path().join(link))
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }
    place.assert_clean();
}

/// One report that fails is not to cost the others, nor what stood there before.
#[test]
fn a_report_that_fails_leaves_the_others_whole() {
    let place = place_with(QUICK);
    symlink("/dev/full", place.path().join("full")).unwrap();
    let words = [
        "run",
        "scenario.kdl",
        "--json",
        "out.jsonl",
        "--junit",
        "full",
        "--trace",
        "traces",
    ];
    place
        .run(words)
        .code(4)
        .says(&["PASS scenario.kdl", "full: No space left on device"]);
    assert_eq!(place.read("out.jsonl").lines().count(), 3);
    assert_eq!(place.names("traces").len(), 1);

    let script = "exec \"$0\" run scenario.kdl --junit report.xml --json more.jsonl >/dev/full";
    let mut command = place.command("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_cutpoint")]);
    Running::start(&mut command)
        .wait()
        .code(4)
        .says(&["stdout: No space left"]);
    assert!(place.read("report.xml").contains("</testsuites>"));
    assert_eq!(place.read("more.jsonl").lines().count(), 3);
}

#[test]
fn reports_can_be_read_by_others() {
    let place = place_with(QUICK);
    let script = "umask 022; exec \"$0\" run scenario.kdl --junit j.xml --json o.jsonl --trace t";
    let mut command = place.command("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_cutpoint")]);
    Running::start(&mut command).wait().code(0);
    let trace = format!("t/{}", place.names("t")[0]);
    for name in ["j.xml", "o.jsonl", &trace] {
        let mode = fs::metadata(place.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644, "{name}");
    }
}

#[test]
fn serve_answers_a_raw_client_and_counts() {
    let place = Place::new();
    let server = Running::start(&mut place.cutpoint(["serve", &recording("bare-curl")]));
    let url = server.line();
    let address = url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/v1")
        .unwrap()
        .to_owned();

    let taken = place.run(["serve", &recording("bare-curl"), "--listen", &address]);
    taken.code(2).says(&[
        &format!("cannot listen on {address}"),
        "Address already in use",
    ]);

    let body = r#"{"model":"m","stream":true,"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#;
    let mut client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(support::HANG)).unwrap();
    write!(
        client,
        "POST /v1/responses HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("event: response.completed"), "{answer}");

    server.signal(Signal::SIGINT);
    server
        .wait()
        .code(0)
        .says(&["1 served", "0 refused, 0 unmatched"]);
}

#[test]
fn serve_stays_on_loopback_unless_told() {
    let place = Place::new();
    let path = recording("bare-curl");
    let refused = place.run(["serve", &path, "--listen", "0.0.0.0:0"]);
    refused
        .code(2)
        .says(&["0.0.0.0 can be reached from other machines"]);
    place
        .run(["serve", &path, "--listen", "localhost"])
        .code(2)
        .says(&["--listen <ADDRESS:PORT>"]);
    let server = Running::start(&mut place.cutpoint([
        "serve",
        &path,
        "--listen",
        "0.0.0.0:0",
        "--beyond-loopback",
    ]));
    assert!(server.line().starts_with("http://0.0.0.0:"));
    server.signal(Signal::SIGTERM);
    server.wait().code(0).says(&["0 served"]);
}

/// Feeds the reference agent these lines and gives its events, without the greeting.
fn agent(place: &Place, input: &[u8]) -> Vec<serde_json::Value> {
    let mut command = place.cutpoint([
        "agent",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--rollout-dir",
        "out",
    ]);
    command.stdin(fs::File::open(place.file("input", input)).unwrap());
    let ended = Running::start(&mut command).wait();
    ended.code(0);
    let mut events: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let greeting = events.remove(0);
    assert_eq!(greeting["msg"]["type"], "session_configured");
    let rollout = greeting["msg"]["rollout_path"].as_str().unwrap();
    assert!(place.path().join(rollout).is_file(), "{rollout}");
    events
}

#[test]
fn the_agent_answers_every_line_and_ends_with_its_input() {
    let place = Place::new();
    let types = |events: &[serde_json::Value]| -> Vec<String> {
        events
            .iter()
            .map(|event| event["msg"]["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(types(&agent(&place, b"")), ["shutdown_complete"]);

    let lines = b"junk\n{\"id\":\"a\",\"op\":{\"type\":\"nope\"}}\n{\"id\":\"b\"}\n\xff\xfe\n\n[]\n{\"id\":\"c\",\"op";
    let events = agent(&place, lines);
    assert_eq!(types(&events[..events.len() - 1]), ["error"; 6]);
    assert_eq!(types(&events).last().unwrap(), "shutdown_complete");
    for (id, says) in [
        ("a", "does not know the op `nope`"),
        ("b", "missing field `op`"),
    ] {
        let about = events.iter().find(|event| event["id"] == id).unwrap();
        assert!(
            about["msg"]["message"].as_str().unwrap().contains(says),
            "{about}"
        );
    }

    let long = vec![b'x'; 5 << 20];
    let events = agent(&place, &long);
    assert!(
        events[0]["msg"]["message"]
            .as_str()
            .unwrap()
            .contains("longer than the agent reads")
    );

    let shut = b"{\"id\":\"s\",\"op\":{\"type\":\"shutdown\"}}\n{\"id\":\"t\",\"op\":{\"type\":\"interrupt\"}}\n";
    assert_eq!(types(&agent(&place, shut)), ["shutdown_complete"]);
    place.assert_clean();
}

#[test]
fn an_agent_that_cannot_start_says_why() {
    let place = Place::new();
    place.file("file", "");
    let base = ["agent", "--base-url", "http://127.0.0.1:9/v1"];
    let cases: [(&[&str], &str); 3] = [
        (&["--rollout-dir", "file/x"], "file/x: Not a directory"),
        (
            &["--resume", "nowhere.jsonl"],
            "the rollout at nowhere.jsonl can't be used",
        ),
        (&["--resume", "tmp"], "the rollout at tmp can't be used"),
    ];
    for (more, says) in cases {
        place.run(base.iter().chain(more)).code(3).says(&[says]);
    }
}

/// A client that goes away ends the agent, too: its last words have no reader.
#[test]
fn an_agent_whose_client_is_gone_ends() {
    let place = Place::new();
    let mut command = place.cutpoint(["agent", "--base-url", "http://127.0.0.1:9/v1"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    drop(child.stdin.take());
    drop(child);
    support::process::wait_until_gone(place.path());
}
