//! Several machines do the work of one: their merged results are what one would have written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{INTERRUPTED, Place, QUICK, Running, place_with};

/// A turn with a command, in which `abort-twice` and other defects show when it is interrupted.
const TWO: &str = r#"scenario "a command" {
    model {
        reply { text "Let me see."; shell call_1 "echo one; sleep 1; echo two" }
        reply { text "It says two." }
    }
    user "run it"
    await turn-ended
}

scenario "a word" {
    model { reply { text "Yes." } }
    user "sure?"
    await turn-ended
}
"#;

/// The defects give several kinds of failure.
const SWEEP: &[&str] = &[
    "sweep",
    "scenario.kdl",
    "--yields",
    "0",
    "--defect",
    "forget-output",
    "--defect",
    "terminal-twice",
    "--jobs",
];

/// Sweeps one part. Returns the name of its results.
fn swept(place: &Place, shard: &str, more: &[&str]) -> String {
    let name = format!("{}.json", shard.replace('/', "-of-"));
    // Threads end in any order, and nothing may depend on it.
    let part = ["2", "--shard", shard, "--json", name.as_str()];
    let words = SWEEP
        .iter()
        .copied()
        .chain(part)
        .chain(more.iter().copied());
    place.run(words).says(&["schedules ran"]);
    name
}

#[test]
fn parts_of_a_sweep_make_up_the_whole_byte_for_byte() {
    let place = place_with(TWO);
    let acts = ["--acts", "interrupt,replace"];
    let whole = swept(&place, "1/1", &acts);
    let parts = ["1/3", "2/3", "3/3"].map(|shard| swept(&place, shard, &acts));
    let json: Value = serde_json::from_str(&place.read(&whole)).unwrap();
    let failures = json["scenarios"][0]["failures"].as_array().unwrap();
    assert!(failures.len() > 1, "{failures:?}");
    // No part has seen everything, and several have seen the same kind of failure.
    let part = |name: &String| serde_json::from_str::<Value>(&place.read(name)).unwrap();
    let ran = |json: &Value| json["scenarios"][0]["ran"].as_u64().unwrap();
    assert!(parts.iter().all(|name| ran(&part(name)) < ran(&json)));
    assert_eq!(
        parts.iter().map(|name| ran(&part(name))).sum::<u64>(),
        ran(&json)
    );

    let [one, two, three] = &parts;
    let words = ["report", "merge", three, one, two, "--json", "merged.json"];
    let merged = place.run(words);
    merged
        .code(1)
        .says(&[&format!("{} kinds of failure", failures.len())])
        // The second scenario fails as the first one does.
        .says(&["Over all scenarios, ", "\n  in 2 scenarios, "]);
    assert_eq!(place.read("merged.json"), place.read(&whole));
    // It prints what the whole prints, too.
    let alone = place.run(["report", "merge", &whole]);
    assert_eq!(alone.stdout, merged.stdout);
    place.assert_clean();
}

#[test]
fn files_that_are_not_parts_of_one_sweep_are_refused() {
    let place = place_with(TWO);
    let [one, two] = ["1/2", "2/2"].map(|shard| swept(&place, shard, &["--acts", "steer"]));
    let refused = |files: &[&String], says: &str| {
        let words = ["report", "merge"].into_iter().map(str::to_owned);
        let words = words.chain(files.iter().map(|name| (*name).clone()));
        place.run(words).code(2).says(&[says]);
    };
    place.run(["report", "merge", &one, &two]).says(&[
        "scenarios     2",
        "with planted defects: forget-output, terminal-twice",
    ]);
    refused(&[&one], "missing: 2/2");
    refused(
        &[&one, &two, &one],
        "1-of-2.json and 1-of-2.json are both part 1/2",
    );
    let lost = "lost.json".to_owned();
    refused(&[&one, &lost], "lost.json");
    place.file("scenario.kdl", TWO.replace("Yes.", "No."));
    let other = swept(&place, "2/2", &["--acts", "steer"]);
    refused(
        &[&one, &other],
        "a scenario differs, `scenario.kdl \"a word\"",
    );
    let seed = swept(&place, "2/2", &["--acts", "steer", "--seed", "1"]);
    refused(&[&one, &seed], "the seed differs, `0` and `1`");
    let bound = swept(&place, "2/2", &["--acts", "replace"]);
    refused(&[&one, &bound], "the plan differs");
    let text = place.read(&one).replace("\"version\": 3", "\"version\": 1");
    let old = place.file("old.json", text).display().to_string();
    refused(
        &[&old],
        "old.json: these results have format version 1; this build reads",
    );
    let text = r#"{"format": "cutpoint-external-sweep", "version": 1}"#;
    let old = place.file("old.json", text).display().to_string();
    refused(&[&old], "sweep again with this version");
    let none = place.file("none.json", "{}").display().to_string();
    refused(&[&none], "none.json: these are not the results of a sweep");
}

#[test]
fn parts_of_a_run_make_up_the_whole() {
    let place = Place::new();
    for number in 0..6 {
        let text = QUICK.replace("quick", &format!("quick {number}"));
        place.file(&format!("all/{number}.kdl"), text);
    }
    place.file("all/breach.kdl", INTERRUPTED);
    let run = |shard: &str| {
        let name = format!("{}.jsonl", shard.replace('/', "-of-"));
        let words = [
            "run",
            "all",
            "--defect",
            "forget-output",
            "--trace",
            "traces",
            "--shard",
        ];
        let words = words.into_iter().chain([shard, "--json", name.as_str()]);
        let ended = place.run(words);
        (name, ended)
    };
    let (whole, ended) = run("1/1");
    ended.code(1).says(&["7 cases"]);
    let traces = place.names("traces");
    fs::remove_dir_all(place.path().join("traces")).unwrap();
    let parts = ["1/3", "2/3", "3/3"].map(|shard| run(shard).0);
    // A case's trace has the same name, whichever part it falls to.
    assert_eq!(place.names("traces"), traces);
    let mut words = vec!["report", "merge", "--json", "merged.jsonl"];
    words.extend(parts.iter().map(String::as_str));
    let merged = place.run(&words);
    merged
        .code(1)
        .says(&["breach.kdl", "7 cases", "--defect forget-output"]);
    assert_eq!(
        timeless(&place.read("merged.jsonl")),
        timeless(&place.read(&whole))
    );
    place
        .run(&words[..words.len() - 1])
        .code(2)
        .says(&["missing: 3/3"]);
    let other = [
        "run",
        "all/0.kdl",
        "--shard",
        "3/3",
        "--json",
        "3-of-3.jsonl",
    ];
    place.run(other).code(0);
    place.run(&words).code(2).says(&["parts of different runs"]);
}

/// Results of a run without what differs between two runs: the times, and the breaches, which contain
/// ids.
fn timeless(text: &str) -> Vec<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !["duration_ms", "breaches"].contains(&name.as_str()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let line = |line: &str| {
        let mut value = serde_json::from_str(line).unwrap();
        strip(&mut value);
        value
    };
    text.lines().map(line).collect()
}

#[test]
fn the_part_comes_from_the_ci_engine_as_well() {
    let place = place_with(TWO);
    let auto = |index: &str| {
        let words = [
            "sweep",
            "scenario.kdl",
            "--acts",
            "steer",
            "--yields",
            "0",
            "--shard",
            "auto",
        ];
        let mut command = place.cutpoint(words);
        command.env("CUTPOINT_SHARD_INDEX", index);
        command.env("CUTPOINT_SHARD_TOTAL", "2");
        Running::start(&mut command).wait()
    };
    auto("1").code(0).says(&["part 2/2"]);
    auto("2")
        .code(2)
        .says(&["CUTPOINT_SHARD_INDEX is 2, which is not a part of 2"]);
    let fuzz = |shard| place.run(["fuzz", "--runs", "3", "--jobs", "1", "--shard", shard]);
    fuzz("2/2").code(0).says(&["seed 0, part 2/2"]);
    fuzz("3/2")
        .code(2)
        .says(&["`3/2` is not a part of a whole"]);
}

#[test]
fn a_sweep_prints_what_it_covers_and_what_it_does_not() {
    let place = place_with(TWO);
    let ended = place.run([
        "sweep",
        "scenario.kdl",
        "--acts",
        "interrupt",
        "--yields",
        "0",
    ]);
    ended.code(0).says(&[
        "agent         reference",
        "rules",
        "exercised, ",
        "least often",
        "not exercised CALL-",
        "durability    L1",
        "no crash was tried",
    ]);
    let lines = ended.stdout.lines().count();
    assert!(lines < 15, "{}", ended.stdout);
    let crash = place.run(["sweep", "scenario.kdl", "--crash", "--shard", "1/9"]);
    crash.says(&["durability    L0", "part 1/9 of"]);
}

/// The first Ctrl-C lets the running schedules end. The lines about progress say when it is at work.
#[test]
fn an_interrupted_sweep_keeps_what_it_has_found() {
    let place = place_with(TWO);
    let words = ["--pairs", "--json", "part.json", "--out", "found"];
    let words = SWEEP.iter().copied().chain(["1"]).chain(words);
    let mut child = place
        .cutpoint(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = progress.next().unwrap().unwrap();
    assert!(first.ends_with(" in [1/2] scenario.kdl"), "{first}");
    assert!(
        first.contains("/s, ") && first.contains("kinds of failure"),
        "{first}"
    );
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let rest: Vec<String> = progress.map(Result::unwrap).collect();
    assert!(
        rest.iter().any(|line| line.starts_with("stopping")),
        "{rest:?}"
    );
    // It had found failures before it was stopped.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let json: Value = serde_json::from_str(&place.read("part.json")).unwrap();
    assert_eq!(json["interrupted"], true);
    let scenario = &json["scenarios"][0];
    let count = |name: &str| scenario[name].as_u64().unwrap();
    assert!(count("ran") < count("planned"), "{scenario}");
    let found = scenario["failures"].as_array().unwrap().len();
    assert!(
        found > 0 && place.names("found").len() == found,
        "{scenario}"
    );
    place
        .run(["report", "merge", "part.json"])
        .code(2)
        .says(&["part.json was interrupted"]);
}
