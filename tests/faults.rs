//! Agents that misbehave, signals, and full disks: in each case the documented exit code, a message
//! that says what happened, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGKILL, SIGTERM};
use support::agents::{CONFIGURED, THREAD, codex, installed_codex, stdio};
use support::{Ended, Pipe, Place, QUICK, Running, can_mount};

/// More than the harness needs for anything that an agent may tell it, and far less than an agent
/// that prints for ever would fill.
const ROOM_MEBIBYTES: u32 = 1024;

fn run_on(place: &Place, agent: &str, limit: &str) -> Ended {
    place.file("scenario.kdl", QUICK);
    let words = ["run", "scenario.kdl", "--agent", agent, "--limit", limit];
    let ended = place.run_within(ROOM_MEBIBYTES, &words);
    place.assert_clean();
    ended
}

/// Runs a scenario on a fake of the queue protocol.
#[track_caller]
fn stdio_fault(body: &str, limit: &str, code: i32, says: &[&str]) {
    let place = Place::new();
    run_on(&place, &stdio(&place, body), limit)
        .code(code)
        .says(says);
}

/// Runs a scenario on a fake Codex.
#[track_caller]
fn codex_fault(body: &str, limit: &str, code: i32, says: &[&str]) {
    let place = Place::new();
    run_on(&place, &codex(&place, body), limit)
        .code(code)
        .says(says);
}

#[test]
fn a_program_that_is_none() {
    let place = Place::new();
    let junk = place.file("junk", "junk");
    fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for kind in ["stdio", "codex"] {
        let agent = support::agents::named(kind, junk.clone());
        run_on(&place, &agent, "5")
            .code(3)
            .says(&["could not be started", "junk: Exec format error"]);
    }
}

#[test]
fn an_agent_that_exits_at_once() {
    let body = "echo 'no such model' >&2; exit 7";
    let says = [
        "could not be started: it exited with code 7",
        "no such model",
    ];
    stdio_fault(body, "5", 3, &says);
    codex_fault(body, "5", 3, &says);
}

#[test]
fn an_agent_that_kills_itself() {
    let says = ["could not be started: it was killed by SIGKILL (9)"];
    stdio_fault("kill -KILL $$", "5", 3, &says);
    codex_fault("kill -KILL $$", "5", 3, &says);
}

#[test]
fn an_agent_that_crashes_in_mid_turn() {
    let says = [
        "the agent ended unexpectedly: it exited with code 134",
        "out of cheese",
    ];
    let crash = "read -r _; echo 'out of cheese' >&2; exit 134";
    stdio_fault(&format!("{CONFIGURED}; {crash}"), "5", 3, &says);
    codex_fault(&format!("{THREAD}\n{crash}"), "5", 3, &says);
}

/// Its child holds the pipes open: their end never comes, and that of the agent must be seen.
#[test]
fn an_agent_that_crashes_and_leaves_a_child_with_its_pipes() {
    let says = [
        "the agent ended unexpectedly: it was killed by SIGKILL (9)",
        "out of cheese",
    ];
    let crash = "read -r _; setsid sleep 600 & echo 'out of cheese' >&2; kill -KILL $$";
    stdio_fault(&format!("{CONFIGURED}; {crash}"), "60", 3, &says);
    codex_fault(&format!("{THREAD}\n{crash}"), "60", 3, &says);
}

#[test]
fn an_agent_that_says_nothing() {
    stdio_fault(
        "exec sleep 600",
        "1",
        3,
        &["it did not send `session_configured` within 1 s"],
    );
    codex_fault(
        "exec sleep 600",
        "1",
        3,
        &["it did not answer `initialize` within 1 s"],
    );
}

/// An agent that started well and then hangs has not done what the scenario waits for.
#[test]
fn an_agent_that_hangs_in_mid_turn() {
    let says = [
        "not met: user \"go\"",
        "waited 1 s for the acknowledgement of the turn's start",
    ];
    stdio_fault(&format!("{CONFIGURED}; exec sleep 600"), "1", 1, &says);
    codex_fault(&format!("{THREAD}\nexec sleep 600"), "1", 1, &says);
}

#[test]
fn an_agent_that_hangs_ignores_its_input_and_sigterm() {
    let stubborn = "trap '' TERM INT HUP; while :; do sleep 600; done";
    let says = ["waited 1 s for the acknowledgement"];
    stdio_fault(&format!("{CONFIGURED}; {stubborn}"), "1", 1, &says);
    codex_fault(&format!("{THREAD}\n{stubborn}"), "1", 1, &says);
}

#[test]
fn the_start_has_a_limit_of_its_own() {
    let place = Place::new();
    place.file("scenario.kdl", QUICK);
    for agent in [
        stdio(&place, "exec sleep 600"),
        codex(&place, "exec sleep 600"),
    ] {
        let words = [
            "run",
            "scenario.kdl",
            "--limit",
            "600",
            "--start-limit",
            "1",
            "--agent",
            &agent,
        ];
        place.run(words).code(3).says(&["within 1 s"]);
    }
    let agent = support::agents::named("codex", place.script("slow-version", "exec sleep 600"));
    let words = [
        "run",
        "scenario.kdl",
        "--start-limit",
        "1",
        "--agent",
        &agent,
    ];
    place
        .run(words)
        .code(3)
        .says(&["slow-version: `--version` did not end within 1 s"]);
    place.assert_clean();
}

/// An app-server that can't be started is not tried again for each case.
#[test]
fn a_codex_that_hangs_at_its_start_costs_the_limit_once() {
    let place = Place::new();
    let many: String = (0..20)
        .map(|n| QUICK.replace("quick", &format!("quick {n}")))
        .collect();
    place.file("scenario.kdl", many);
    let agent = codex(&place, "echo started >> \"${0%/*}/starts\"; exec sleep 600");
    let words = [
        "run",
        "scenario.kdl",
        "--start-limit",
        "1",
        "--agent",
        &agent,
    ];
    place
        .run(words)
        .code(3)
        .says(&["20 where the agent could not be run"]);
    assert_eq!(place.read("starts").lines().count(), 1);
    place.assert_clean();
}

#[test]
fn an_agent_that_prints_garbage_for_ever() {
    let says = [
        "it did not send `session_configured` within 1 s",
        "it printed \"garbage\"",
    ];
    stdio_fault("exec yes garbage", "1", 3, &says);
    let says = [
        "it did not answer `initialize` within 1 s",
        "it printed \"garbage\"",
    ];
    codex_fault("exec yes garbage", "1", 3, &says);
    stdio_fault(
        &format!("{CONFIGURED}; exec yes garbage"),
        "1",
        1,
        &["waited 1 s for"],
    );
    codex_fault(
        &format!("{THREAD}\nexec yes garbage"),
        "1",
        1,
        &["waited 1 s for"],
    );
    let place = Place::new();
    place.file("scenario.kdl", QUICK);
    let agent = support::agents::named("codex", place.script("yes", "exec yes"));
    let words = [
        "run",
        "scenario.kdl",
        "--start-limit",
        "1",
        "--agent",
        &agent,
    ];
    place
        .run_within(ROOM_MEBIBYTES, &words)
        .code(3)
        .says(&["yes: `--version`"]);
    place.assert_clean();
}

/// The harness keeps what an agent says, so there is an end to it: of small messages and large ones.
#[test]
fn an_agent_that_prints_events_for_ever() {
    let says = ["the agent ended unexpectedly: it printed more than 64 MiB in one case"];
    for text in ["x", "$(head -c 100000 /dev/zero | tr '\\0' x)"] {
        let event =
            format!(r#"{{"id":"","msg":{{"type":"background_event","message":"'"{text}"'"}}}}"#);
        stdio_fault(&format!("{CONFIGURED}; exec yes '{event}'"), "60", 3, &says);
        let event =
            format!(r#"{{"method":"warning","params":{{"threadId":"t","message":"'"{text}"'"}}}}"#);
        codex_fault(&format!("{THREAD}\nexec yes '{event}'"), "60", 3, &says);
    }
}

#[test]
fn an_agent_that_prints_a_line_without_end() {
    let line = "head -c 100000000 /dev/zero | tr '\\0' x; exec sleep 600";
    stdio_fault(
        line,
        "3",
        3,
        &["it did not send `session_configured` within 3 s"],
    );
    stdio_fault(
        &format!("{CONFIGURED}; {line}"),
        "3",
        1,
        &["waited 3 s for"],
    );
    codex_fault(line, "3", 3, &["it did not answer `initialize` within 3 s"]);
    let stderr = "head -c 100000000 /dev/zero | tr '\\0' x >&2; echo 'the end' >&2; exit 1";
    stdio_fault(stderr, "60", 3, &["it exited with code 1", "the end"]);
}

#[test]
fn an_agent_that_prints_half_lines_around_whole_ones() {
    let body = format!(
        "printf 'warning: \\nnull\\n[]\\n{{\"id\":\\n\\n'; {CONFIGURED}; printf '{{\"id\":\"x\",\"msg\":{{\"ty'; exit 0"
    );
    let says = ["the agent ended unexpectedly"];
    stdio_fault(&body, "5", 3, &says);
    let body = format!("echo 'warning: '; {THREAD}\nprintf '{{\"method\":'; exit 0");
    codex_fault(&body, "5", 3, &says);
}

#[test]
fn an_agent_that_closes_its_output_and_lives_on() {
    let says = ["could not be started: it closed its output, but did not exit"];
    stdio_fault("exec >&-; exec sleep 600", "30", 3, &says);
    codex_fault("exec >&-; exec sleep 600", "30", 3, &says);
    let says = ["ended unexpectedly: it closed its output, but did not exit"];
    stdio_fault(
        &format!("{CONFIGURED}; read -r _; exec >&-; exec sleep 600"),
        "30",
        3,
        &says,
    );
    codex_fault(
        &format!("{THREAD}\nread -r _; exec >&-; exec sleep 600"),
        "30",
        3,
        &says,
    );
}

#[test]
fn a_rollout_that_is_no_file_blocks_nobody() {
    for rollout in ["/dev/zero", "/dev/full", "/", "'\"$PWD\"'/pipe"] {
        let event = format!(
            r#"{{"id":"","msg":{{"type":"session_configured","session_id":"s","rollout_path":"{rollout}"}}}}"#
        );
        stdio_fault(
            &format!("mkfifo pipe; echo '{event}'; exec sleep 600"),
            "1",
            1,
            &["waited 1 s for"],
        );
    }
}

#[test]
fn a_codex_that_answers_wrongly() {
    let refused = "read -r _; echo '{\"id\":0,\"error\":{\"code\":-1,\"message\":\"too old\"}}'; exec sleep 600";
    codex_fault(
        refused,
        "5",
        3,
        &["could not be started: `initialize` was refused: too old"],
    );
    let wrong = "read -r _; echo '{\"id\":77,\"result\":{}}'; exec sleep 600";
    let says = ["it did not answer `initialize` within 1 s", "it printed"];
    codex_fault(wrong, "1", 3, &says);
    let nothing = "read -r _; echo '{\"id\":0,\"result\":{}}'; read -r _; read -r _; echo '{\"id\":1,\"result\":{}}'; exec sleep 600";
    codex_fault(nothing, "5", 3, &["`thread/start` gave no thread id"]);
    let turn = format!(
        "{THREAD}\nread -r _; echo '{{\"id\":2,\"error\":{{\"message\":\"not today\"}}}}'; exec sleep 600"
    );
    codex_fault(&turn, "1", 1, &["the input was refused: not today"]);
}

/// A scenario whose tool tells by a pipe that it runs, and then never ends.
fn stalling(pipe: &Pipe) -> String {
    let tool = format!(
        "setsid sleep 600 & echo up > {}; exec sleep 600",
        pipe.path().display()
    );
    QUICK
        .replace(r#"text "hi""#, &format!("shell call_1 {tool:?}"))
        .replace("quick", "stalls")
}

/// Starts a run of a scenario that ends and one that stalls, with every kind of report, and comes
/// back when the tool of the latter runs.
fn stalled(place: &Place, agent: &str) -> Running {
    let pipe = place.signal_pipe("up");
    place.file("scenarios/1-quick.kdl", QUICK);
    place.file("scenarios/2-stalls.kdl", stalling(&pipe));
    let reports = [
        "--junit",
        "out/report.xml",
        "--json",
        "out/results.jsonl",
        "--trace",
        "traces",
    ];
    fs::create_dir(place.path().join("out")).unwrap();
    let mut command = place.cutpoint([
        "run",
        "scenarios",
        "--jobs",
        "1",
        "--limit",
        "600",
        "--agent",
        agent,
    ]);
    let running = Running::start(command.args(reports));
    assert_eq!(pipe.wait(), "up");
    running
}

/// What an interrupted run owes: its code, what had ended, whole reports, nothing left.
#[track_caller]
fn assert_interrupted(place: &Place, ended: &Ended) {
    ended.code(4).says(&[
        "interrupted; the cases that had ended are reported",
        "1-quick.kdl: quick",
    ]);
    ended.never_says(&["2-stalls.kdl"]);
    place.assert_clean();
    assert_eq!(place.names("out"), ["report.xml", "results.jsonl"]);
    assert!(
        place
            .read("out/report.xml")
            .trim_end()
            .ends_with("</testsuites>")
    );
    let results = place.read("out/results.jsonl");
    let lines: Vec<serde_json::Value> = results
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "a header, a case, a summary");
    assert_eq!(lines[2]["type"], "summary");
    let traces = place.names("traces");
    assert!(
        traces.len() == 1 && traces[0].starts_with("001-quick"),
        "{traces:?}"
    );
}

fn interrupted_by(agent: &str, signals: &[Signal]) {
    let place = Place::new();
    let running = stalled(&place, agent);
    for signal in signals {
        running.signal(*signal);
    }
    assert_interrupted(&place, &running.wait());
}

#[test]
fn signals_end_a_run_of_the_reference_agent() {
    for signals in [
        &[SIGINT][..],
        &[SIGTERM],
        &[SIGHUP],
        &[SIGINT, SIGINT],
        &[SIGTERM, SIGINT, SIGHUP],
    ] {
        interrupted_by("reference", signals);
    }
}

#[test]
fn signals_end_a_run_of_an_agent_of_its_own_process() {
    for signals in [&[SIGINT][..], &[SIGTERM], &[SIGHUP], &[SIGINT, SIGINT]] {
        interrupted_by("reference-stdio", signals);
    }
    interrupted_by("reference-jsonrpc", &[SIGINT]);
}

/// Whichever other versions are installed, the one whose behaviour is known is driven.
#[test]
fn signals_end_a_run_of_codex() {
    let Some(codex) = installed_codex() else {
        return;
    };
    for signals in [&[SIGINT][..], &[SIGTERM, SIGTERM]] {
        interrupted_by(&codex, signals);
    }
}

/// Everything that a process can do to be forgotten: another session, another folder, deaf to
/// signals, its parent gone.
#[test]
fn an_interrupt_ends_what_has_left_the_process_tree() {
    let place = Place::new();
    let pipe = place.signal_pipe("up");
    place.file("scenario.kdl", QUICK);
    let hidden = format!(
        "trap \"\" TERM INT HUP; cd /; setsid sleep 600 & echo up > {}; while :; do sleep 600; done",
        pipe.path().display()
    );
    let agent = stdio(
        &place,
        &format!("{CONFIGURED}; (setsid sh -c '{hidden}' &); trap '' TERM; exec sleep 600"),
    );
    for signals in [&[SIGINT][..], &[SIGTERM, SIGTERM]] {
        let words = ["run", "scenario.kdl", "--limit", "600", "--agent", &agent];
        let running = Running::start(&mut place.cutpoint(words));
        assert_eq!(pipe.wait(), "up");
        for signal in signals {
            running.signal(*signal);
        }
        running.wait().code(4).says(&["interrupted"]);
        support::process::wait_until_gone(place.path());
        place.assert_clean();
    }
}

/// A case that ended is told, even if one ahead of it never did.
#[test]
fn an_interrupt_loses_no_case_that_waits_for_its_turn() {
    let place = Place::new();
    let pipe = place.signal_pipe("up");
    place.file("scenarios/1-stalls.kdl", stalling(&pipe));
    place.file("scenarios/2-quick.kdl", QUICK);
    let words = [
        "run",
        "scenarios",
        "--jobs",
        "2",
        "--limit",
        "600",
        "--trace",
        "traces",
    ];
    let running = Running::start(&mut place.cutpoint(words));
    assert_eq!(pipe.wait(), "up");
    // The trace is stored before the case is told.
    while !place.path().join("traces").is_dir()
        || place
            .names("traces")
            .iter()
            .all(|name| !name.contains("002-quick"))
    {
        std::thread::yield_now();
    }
    running.signal(SIGINT);
    running.wait().code(4).says(&[
        "PASS scenarios/2-quick.kdl",
        "1 case: 1 conforms",
        "interrupted",
    ]);
    place.assert_clean();
}

/// SIGKILL gives no time to do anything. What is left to chance then: the directory of temporary
/// files, reports in the making, and agents that don't end with their input. The reference agent
/// does, and takes its tools along.
#[test]
fn a_killed_harness_leaves_no_reference_agent_behind() {
    let place = Place::new();
    let running = stalled(&place, "reference-stdio");
    running.signal(SIGKILL);
    assert_eq!(running.wait().status.code(), None);
    support::process::wait_until_gone(place.path());
    assert!(
        !place.path().join("out/report.xml").exists(),
        "half a report took its place"
    );
}

/// Runs the program with a tiny file system at `small`, which nobody else sees; `fill` prepares it.
/// Ends with its code, behind a list of what is in `small`.
fn on_a_small_disk(place: &Place, options: &str, fill: &str, words: &[&str]) -> Ended {
    let _ = fs::create_dir(place.path().join("small"));
    let script = format!(
        "mount -t tmpfs -o {options} none small && {{ {fill}; }} 2>/dev/null; \"$0\" \"$@\"; code=$?; \
         cd small; for name in * .[!.]*; do [ -e \"$name\" ] && echo \"small has $name: $(head -c 9 \"$name\")\"; done; \
         exit $code"
    );
    let mut command = place.command("unshare");
    command
        .args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_cutpoint")])
        .args(words);
    Running::start(&mut command).wait()
}

const FULL: &str = "head -c 1000000 /dev/zero > small/fill";

#[test]
fn a_full_disk_below_the_reports_is_trouble_and_old_reports_stay() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    place.file("scenario.kdl", QUICK);
    let old = format!("echo old-1 > small/j.xml; echo old-2 > small/o.jsonl; {FULL}");
    for report in [["--junit", "small/j.xml"], ["--json", "small/o.jsonl"]] {
        let ended = on_a_small_disk(
            &place,
            "size=64k",
            &old,
            &["run", "scenario.kdl", report[0], report[1]],
        );
        ended.code(4).says(&[
            "No space left on device",
            "small has j.xml: old-1",
            "small has o.jsonl: old-2",
        ]);
        ended.never_says(&["small has .tmp"]);
    }
    let fill = format!("mkdir small/traces; {FULL}");
    let ended = on_a_small_disk(
        &place,
        "size=64k",
        &fill,
        &["run", "scenario.kdl", "--trace", "small/traces"],
    );
    ended.code(4).says(&[
        "PASS scenario.kdl",
        "small/traces/001-quick",
        "No space left on device",
    ]);
    place.assert_clean();
}

#[test]
fn a_read_only_place_for_reports_is_trouble() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    place.file("scenario.kdl", QUICK);
    for words in [
        ["--junit", "small/j.xml"],
        ["--json", "small/o.jsonl"],
        ["--trace", "small/traces"],
    ] {
        let ended = on_a_small_disk(
            &place,
            "ro",
            "true",
            &["run", "scenario.kdl", words[0], words[1]],
        );
        ended
            .code(4)
            .says(&["Read-only file system"])
            .never_says(&["PASS"]);
    }
}

/// A rollout that can't be written is the agent's failure, a case that can't be prepared the harness's.
#[test]
fn a_full_disk_below_the_cases() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    place.file("scenario.kdl", QUICK);
    let here = "export TMPDIR=$PWD/small";
    for agent in ["reference", "reference-stdio", "reference-jsonrpc"] {
        let words = ["run", "scenario.kdl", "--agent", agent];
        let ended = on_a_small_disk(&place, "size=64k", &format!("{here}; {FULL}"), &words);
        ended
            .code(3)
            .says(&["the rollout could not be written: No space left on device"]);
        ended.never_says(&["small has cutpoint"]);
    }
    let words = ["run", "scenario.kdl"];
    for (inodes, says) in [("1", "no temporary directory"), ("3", "case-1")] {
        let options = format!("size=64k,nr_inodes={inodes}");
        let ended = on_a_small_disk(&place, &options, here, &words);
        ended
            .code(4)
            .says(&[says, "No space left on device"])
            .never_says(&["small has cutpoint"]);
    }
}
