//! The fuzzer finds what is broken, makes it small, and knows it again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

/// The most steps that a scenario has which a person would have written.
const STEPS: usize = 12;

fn fuzz(found: &Path, runs: &str, defect: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutpoint"))
        .args([
            "fuzz", "--seed", "3", "--jobs", "1", "--runs", runs, "--defect", defect,
        ])
        .arg("--out")
        .arg(found)
        .current_dir(common::root())
        .output()
        .unwrap()
}

/// Within so many runs the defect shows as a breach of the rule, by a small scenario that breaks it
/// again when it is read from its file.
fn finds(defect: &str, runs: &str, rule: &str) {
    let dir = tempfile::tempdir().unwrap();
    let found = dir.path().join("found");
    let output = fuzz(&found, runs, defect);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{defect}: {told}");
    let files: Vec<_> = std::fs::read_dir(&found)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let by_rule = files.iter().find(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.contains(&rule.to_lowercase())
    });
    let file = by_rule.unwrap_or_else(|| panic!("{defect} does not show by {rule}: {told}"));
    let source = std::fs::read_to_string(file).unwrap();
    let planned = common::parse("found.kdl", &source).remove(0);
    assert!(planned.scenario.steps.len() <= STEPS, "{source}");
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

#[test]
fn the_same_seed_gives_the_same_runs() {
    let dir = tempfile::tempdir().unwrap();
    let told = || {
        let output = fuzz(&dir.path().join("none"), "40", "no-sync");
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default().to_owned();
        // All but the time it took.
        let (_, traces) = last.split_once("/s), ").unwrap();
        traces.to_owned()
    };
    assert_eq!(told(), told());
}
