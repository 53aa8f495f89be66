//! The fuzzer finds failures, shrinks them, and knows them again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// As in the command line: most of a schedule's work is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The most lines of a scenario that a person would have written, with its name.
const LINES: usize = 12;

fn fuzz(found: &Path, runs: &str, defect: &str) -> Output {
    fuzz_more(found, runs, defect, &[])
}

fn fuzz_more(found: &Path, runs: &str, defect: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutpoint"))
        .args([
            "fuzz", "--seed", "3", "--jobs", "1", "--runs", runs, "--defect", defect,
        ])
        .arg("--out")
        .arg(found)
        .args(more)
        .current_dir(common::root())
        .output()
        .unwrap()
}

/// Within so many runs the defect shows as a breach of the rule, by a small scenario that breaks it again
/// when it is read from its file.
fn finds(defect: &str, runs: &str, rule: &str) {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let output = fuzz(&found, runs, defect);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{defect}: {printed}");
    let files: Vec<_> = std::fs::read_dir(&found)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let by_rule = files.iter().find(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.contains(&rule.to_lowercase())
    });
    let file = by_rule.unwrap_or_else(|| panic!("{defect} does not show by {rule}: {printed}"));
    let source = std::fs::read_to_string(file).unwrap();
    let planned = common::parse("found.kdl", &source).remove(0);
    assert!(source.lines().count() <= LINES, "{source}");
    assert!(!planned.scenario.steps.is_empty(), "{source}");
    for noise in ["limit", "chunks=", "\"question ", "generated"] {
        assert!(!source.contains(noise), "{noise} says nothing:\n{source}");
    }
    let again = String::from_utf8(fuzz(&found, "1", defect).stdout).unwrap();
    let line = again
        .lines()
        .find(|line| line.starts_with(&file.display().to_string()));
    let line = line.unwrap_or_else(|| panic!("{} did not run first: {again}", file.display()));
    assert!(
        line.contains("still breaks") && line.contains(rule),
        "{line}"
    );
}

#[test]
fn two_aborts_of_one_turn() {
    finds("abort-twice", "300", "TURN-1");
}

#[test]
fn a_marker_that_is_written_too_late() {
    finds("marker-after-event", "300", "MARK-1");
}

#[test]
fn an_output_that_is_forgotten() {
    finds("forget-output", "300", "CALL-1");
}

/// The alarms that long searches raised on the correct agent, as they were stored. Each was a race that a
/// rule had not stated.
#[test]
fn former_false_alarms_hold() {
    let dir = tempfile::tempdir().unwrap();
    let stored = files_in(&common::root().join("tests/found"));
    for (file, source) in &stored {
        std::fs::write(dir.path().join(file.file_name().unwrap()), source).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_cutpoint"))
        .args(["fuzz", "--runs", "1", "--jobs", "1", "--out"])
        .arg(dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(
        printed.matches(": holds now\n").count(),
        stored.len(),
        "{printed}"
    );
    assert!(!stored.is_empty());
}

/// The scenarios of docs/fuzz.md, each with the defect that the line for its replay names.
fn documented() -> Vec<(String, String)> {
    let docs = std::fs::read_to_string(common::root().join("docs/fuzz.md")).unwrap();
    let (_, section) = docs.split_once("## Five failures").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```kdl\n").skip(1);
    let example = |block: &str| {
        let (source, replay) = block.split_once("```\n").unwrap();
        let (_, defect) = replay.split_once("--defect ").unwrap();
        let defect = defect.split('`').next().unwrap();
        (source.to_owned(), defect.to_owned())
    };
    blocks.map(example).collect()
}

#[test]
fn the_documented_failures_are_as_small_as_they_come() {
    let examples = documented();
    assert_eq!(examples.len(), 5);
    for (source, defect) in examples {
        let dir = tempfile::tempdir().unwrap();
        let (base, found) = (dir.path().join("base.kdl"), dir.path().join("found"));
        std::fs::write(&base, &source).unwrap();
        let output = fuzz_more(
            &found,
            "1",
            &defect,
            &["--scenario", base.to_str().unwrap()],
        );
        assert_eq!(output.status.code(), Some(1), "{defect} does not show");
        let stored: Vec<String> = files_in(&found).into_values().collect();
        assert_eq!(stored, [source], "{defect}");
    }
}

#[test]
fn the_same_seed_gives_the_same_runs() {
    let dir = tempfile::tempdir().unwrap();
    let printed = || {
        let output = fuzz(&dir.path().join("none"), "40", "no-sync");
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default().to_owned();
        // All but the time it took.
        let (_, traces) = last.split_once("/s), ").unwrap();
        traces.to_owned()
    };
    assert_eq!(printed(), printed());
}

/// The files of a directory with their contents.
fn files_in(found: &Path) -> BTreeMap<PathBuf, String> {
    let entries = std::fs::read_dir(found).unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    entries.map(file).collect()
}

#[test]
fn an_edited_failure_stays() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    fuzz(&found, "60", "forget-output");
    let before = files_in(&found);
    let (file, failing) = before.iter().next().unwrap();
    // It still fails, and so is known: nothing new is stored, whatever else is in the file.
    std::fs::write(file, format!("// mine\n{failing}")).unwrap();
    fuzz(&found, "60", "forget-output");
    let kept = files_in(&found);
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(kept[file].starts_with("// mine"));
    // It holds now, and so the failure is found once more; the edited file stays.
    let holds = "scenario \"mine\" {\n    model { reply { text \"Hi\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
    std::fs::write(file, holds).unwrap();
    let output = fuzz(&found, "60", "forget-output");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("holds now"), "{printed}");
    let after = files_in(&found);
    assert_eq!(after[file], holds);
    assert!(after.len() > before.len(), "{printed}");
}

/// After a search the directory has one file for each failure, and none for the runs that it was shrunk
/// from.
#[test]
fn unshrunk_failures_are_removed_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let output = fuzz(&found, "200", "abort-twice");
    let printed = String::from_utf8(output.stdout).unwrap();
    let stored = |line: &str| Some(PathBuf::from(line.split_once("stored: ")?.1));
    let printed: BTreeSet<_> = printed.lines().filter_map(stored).collect();
    assert!(!printed.is_empty());
    assert_eq!(
        files_in(&found).into_keys().collect::<BTreeSet<_>>(),
        printed
    );
}

/// With `--every`, each run that failed is stored as it was run, and is judged again with the others.
#[test]
fn every_run_that_fails_is_stored_with_every() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let output = fuzz_more(&found, "200", "forget-output", &["--every"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let failed = |line: &str| {
        let runs = line.trim().strip_prefix("found by ")?;
        runs.split_once(" runs")?.0.parse::<usize>().ok()
    };
    let failed: Vec<usize> = printed.lines().filter_map(failed).collect();
    let all = failed.iter().sum::<usize>();
    assert!(all > failed.len(), "each kind failed but once: {printed}");
    let every = files_in(&found.join("every"));
    assert_eq!(every.len(), all, "{printed}");
    let again = String::from_utf8(fuzz(&found, "1", "forget-output").stdout).unwrap();
    for file in every.keys() {
        let line = format!("{}: still breaks ", file.display());
        assert!(again.contains(&line), "{line}: {again}");
    }
}

#[test]
fn a_killed_search_loses_none_of_its_findings() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let mut search = Command::new(env!("CARGO_BIN_EXE_cutpoint"))
        .args(["fuzz", "--seed", "3", "--jobs", "1", "--time", "10m"])
        .args(["--defect", "abort-twice", "--out"])
        .arg(&found)
        .current_dir(common::root())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let progress = BufReader::new(search.stderr.take().unwrap());
    let shows_one = |line: &String| !line.contains(" 0 kinds of failure");
    let line = progress.lines().map(Result::unwrap).find(shows_one);
    search.kill().unwrap();
    search.wait().unwrap();
    assert!(line.is_some(), "it ended by itself");
    let again = String::from_utf8(fuzz(&found, "1", "abort-twice").stdout).unwrap();
    assert!(again.contains("still breaks TURN-1"), "{again}");
}

#[test]
fn a_broken_file_is_reported_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    std::fs::create_dir(&found).unwrap();
    let file = found.join("call-1-moved.kdl");
    std::fs::write(&file, "scenario \"x\" {\n    usr \"hi\"\n}\n").unwrap();
    let output = fuzz(&found, "60", "forget-output");
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(
        printed.contains("call-1-moved.kdl") && printed.contains("usr"),
        "{printed}"
    );
    assert_eq!(files_in(&found).len(), 1, "nothing was stored");
    // A file is not taken for the directory.
    let output = fuzz(&file, "60", "forget-output");
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("is not a directory"), "{printed}");
}
