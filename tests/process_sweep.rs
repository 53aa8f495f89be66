//! The sweep of agents in other processes: it raises no false alarm, it finds a planted defect and finds it
//! again, and it loses nothing when an agent dies or the user stops it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::agents::{CONFIGURED, installed_codex, stdio};
use support::{Ended, Place, Running, place_with};

/// A turn with text and a command, and a second one, without any cut point.
const PLAIN: &str = r#"scenario "a turn with a command, and another one" {
    model {
        reply { text "Let me see." chunks=2; shell call_1 "echo one" }
        reply { text "It says one." chunks=2 }
        reply { text "Yes." }
    }
    user "run it"
    await turn-ended
    user "sure?"
    await turn-ended
}
"#;

/// A turn with few cut points.
const SHORT: &str = r#"scenario "short" {
    model { reply { text "Hello." } }
    user "hi"
    await turn-ended
}
"#;

const STDIO: [&str; 6] = [
    "sweep",
    "scenario.kdl",
    "--agent",
    "reference-stdio",
    "--json",
    "out.json",
];

fn sweep(place: &Place, words: &[&str]) -> Ended {
    place.run(STDIO.iter().chain(words))
}

fn result(place: &Place) -> Value {
    serde_json::from_str(&place.read("out.json")).unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// Requests and events come by two ways: on an overloaded machine, a request may be seen after an event
/// that it was sent before. That does not come back.
fn nothing_comes_back(scenario: &Value) {
    for group in scenario["failures"].as_array().unwrap() {
        let repeats = &group["repeats"];
        assert!(
            2 * count(&repeats["failed"]) < count(&repeats["runs"]),
            "{group}"
        );
    }
}

#[test]
fn the_correct_agent_violates_no_rule_again_and_again_and_the_plan_is_shown() {
    let place = place_with(PLAIN);
    let ended = sweep(&place, &["--acts", "interrupt,steer,replace", "--strict"]);
    ended.says(&[
        "gated and observed, not exhaustive",
        "exercised, ",
        "interrupted turns/s",
    ]);
    let result = result(&place);
    let scenario = &result["scenarios"][0];
    nothing_comes_back(scenario);
    // Three requests with their events, and what the agent reports of them, twice.
    assert!(count(&scenario["ran"]) > 120, "{scenario}");
    assert_eq!(scenario["ran"], scenario["planned"]);
    assert!(count(&scenario["traces"]) > 10, "{scenario}");
    assert!(count(&scenario["exercised"]["MARK-3"]) > 0, "{result}");
    assert!(
        count(&result["sampling"]["interrupted_turns"]) > 0,
        "{result}"
    );
    place.assert_clean();
}

#[test]
fn a_planted_defect_is_found_in_every_run_and_its_token_replays_it() {
    let place = place_with(PLAIN);
    let defect = ["--defect", "marker-missing"];
    let words = ["--acts", "interrupt", "--repeat", "3", "--out", "found"];
    let ended = sweep(&place, &[&words[..], &defect].concat());
    ended
        .code(1)
        .says(&["MARK-3", "3 of 3 runs", "stored: found/scenario-1.kdl"]);
    let group = &result(&place)["scenarios"][0]["failures"][0];
    let repeats = &group["repeats"];
    assert_eq!((count(&repeats["failed"]), count(&repeats["runs"])), (3, 3));
    let token = group["token"].as_str().unwrap();
    let replay = [
        "replay",
        token,
        "scenario.kdl",
        "--agent",
        "reference-stdio",
    ];
    let broken = place.run(replay.iter().chain(&defect).chain(&["--times", "2"]));
    broken
        .code(1)
        .says(&["interrupt at=", "2 of 2 runs violated a rule"]);
    let correct = place.run(replay);
    correct.code(0).says(&["0 of 1 runs violated a rule"]);
    // The stored file is a scenario like any other.
    let stored = ["run", "found/scenario-1.kdl", "--agent", "reference-stdio"];
    place
        .run(stored.iter().chain(&defect))
        .code(1)
        .says(&["MARK-3"]);
    place.assert_clean();
}

#[test]
fn bytes_pairs_and_shards_change_the_plan() {
    let place = place_with(SHORT);
    let quick = ["--acts", "interrupt", "--repeat", "0"];
    let planned = |more: &[&str]| {
        sweep(&place, &[&quick[..], more].concat()).code(0);
        let scenario = &result(&place)["scenarios"][0];
        (count(&scenario["schedules"]), count(&scenario["ran"]))
    };
    let (plain, ran) = planned(&[]);
    assert_eq!(plain, ran);
    assert_eq!(planned(&["--pairs"]).0, 2 * plain - 1);
    assert!(planned(&["--bytes", "64"]).0 > plain + 5);
    let part = |shard: &str| {
        let ran = planned(&["--shard", shard]).1;
        let name = format!("{}.json", shard.replace('/', "-of-"));
        place.file(&name, place.read("out.json"));
        (ran, name)
    };
    let [(one, first), (two, second)] = ["1/2", "2/2"].map(part);
    // The scenario as it is runs in each part, and counts in one.
    assert_eq!(one + two, plain);
    let merge = ["report", "merge", &first, &second];
    place.run(merge).code(0).says(&[
        &format!("{plain} of {plain} schedules ran"),
        "interrupted turns/s",
    ]);
}

#[test]
fn a_crashed_agent_is_resumed_and_goes_on() {
    let place = place_with(PLAIN);
    let ended = sweep(&place, &["--acts", "crash", "--shard", "1/4"]);
    ended.says(&["crash at every request"]);
    let scenario = &result(&place)["scenarios"][0];
    nothing_comes_back(scenario);
    assert!(count(&scenario["ran"]) > 8, "{scenario}");
    place.assert_clean();
}

#[test]
fn an_agent_that_dies_is_a_finding_of_its_schedule_and_the_rest_goes_on() {
    // The second turn makes sure that the client does not ask the agent to end before it has died.
    let place = place_with(
        r#"scenario "two turns" {
    model { reply { text "Hi" }; reply { text "Ho" } }
    user "go"
    await turn-ended
    user "more"
    await turn-ended
}
"#,
    );
    // Its turns end as they start, and every interrupt ends it.
    let event =
        |name: &str| format!(r#"echo '{{"id":"","msg":{{"type":"{name}","turn_id":"'$turn'"}}}}'"#);
    let (started, complete) = (event("turn_started"), event("turn_complete"));
    let body = format!(
        "{CONFIGURED}\nturn=0\nwhile read -r line; do case $line in *interrupt*) exit 3;; \
         *user_input*) turn=$((turn + 1)); {started}; {complete};; *) exit 0;; esac; done"
    );
    let agent = stdio(&place, &body);
    let words = ["sweep", "scenario.kdl", "--agent", &agent, "--repeat", "2"];
    let more = ["--acts", "interrupt,steer", "--json", "out.json"];
    let ended = place.run(words.iter().chain(&more));
    ended
        .code(1)
        .says(&["AGENT", "the agent ended unexpectedly", "2 of 2 runs"]);
    let scenario = &result(&place)["scenarios"][0];
    assert_eq!(scenario["ran"], scenario["planned"]);
    assert!(count(&scenario["failures"][0]["schedules"]) < count(&scenario["ran"]));
    place.assert_clean();
}

#[test]
fn an_interrupted_sweep_prints_what_was_found_and_leaves_nothing_behind() {
    let place = place_with(SHORT);
    place.file(
        "z.kdl",
        SHORT.replace("reply { text", "reply { pause \"60s\"; text"),
    );
    let defect = [
        "--defect",
        "terminal-twice",
        "--repeat",
        "1",
        "--limit",
        "60",
    ];
    let words = ["sweep", ".", "--agent", "reference-stdio", "--jobs", "4"];
    let running = Running::start(&mut place.cutpoint(words.iter().chain(&defect)));
    while !running.line().contains("scenario.kdl: ") {}
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    ended.code(1).says(&[
        "TURN-1",
        "replay: cutpoint replay cp2:",
        "interrupted: what had not run",
    ]);
    place.assert_clean();
}

#[test]
fn mistakes_are_the_users() {
    let place = place_with(SHORT);
    sweep(&place, &["--acts", "approve"])
        .code(2)
        .says(&["there is no act `approve`"]);
    sweep(&place, &["--crash"]).code(2);
    place
        .run(["sweep", "scenario.kdl", "--bytes", "4"])
        .code(2)
        .says(&["--agent"]);
    let codex = [
        "sweep",
        "scenario.kdl",
        "--agent",
        "codex:none",
        "--defect",
        "no-sync",
    ];
    place.run(codex).code(2).says(&["--defect goes with"]);
    let scenario = cutpoint_scenario::parse("scenario.kdl", SHORT).unwrap();
    let fingerprint = cutpoint_explore::fingerprint(&scenario.scenarios[0]);
    let gate = "interrupt@request.1/1";
    for version in ["cp2", "cpx1"] {
        let token = format!("{version}:{fingerprint:016x}:0:{gate}");
        place
            .run(["replay", &token, "scenario.kdl"])
            .code(2)
            .says(&["name it with --agent"]);
    }
}

#[test]
fn codex_shares_a_process_among_all_cases() {
    let Some(codex) = installed_codex() else {
        return;
    };
    let place = place_with(SHORT);
    let words = ["--acts", "interrupt", "--repeat", "0", "--json", "out.json"];
    let ended = place.run(
        ["sweep", "scenario.kdl", "--agent", &codex]
            .iter()
            .chain(&words),
    );
    // A race of Codex's own may show here (docs/findings); a harness error must not.
    assert!(
        matches!(ended.status.code(), Some(0 | 1)),
        "{}",
        ended.all()
    );
    ended.says(&["in 1 processes", "gated and observed"]);
    let scenario = &result(&place)["scenarios"][0];
    assert!(count(&scenario["ran"]) > 15, "{scenario}");
    assert_eq!(scenario["ran"], scenario["planned"]);
    place.assert_clean();
}
