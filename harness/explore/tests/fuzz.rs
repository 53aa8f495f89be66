//! Which failures of a fuzzed agent are told apart, and that verdicts do not change what is drawn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cutpoint_explore::{
    Budget, Executor, Finding, Fuzz, FuzzOutcome, RunResult, Violation, fingerprint,
};
use cutpoint_scenario::ast::Scenario;

/// An agent that violates one rule whenever it is interrupted, and a second one if it is steered, too.
struct Fragile;

fn no_marker(message: &str) -> Violation {
    Violation::new("MARK-1", "no-marker", message)
}

fn forgotten() -> Violation {
    Violation::new("REQ-5", "input-lost", "it was forgotten")
}

impl Executor for Fragile {
    fn run(&self, scenario: &Scenario) -> RunResult {
        let text = scenario.to_string();
        let mut result = RunResult {
            digest: fingerprint(scenario),
            points: vec!["a", "b"],
            ..RunResult::default()
        };
        if text.contains("interrupt at") {
            let message = format!("turn {} has no marker", text.len());
            result.violations.push(no_marker(&message));
            if text.contains("steer") {
                result.violations.push(forgotten());
            }
        }
        result
    }
}

fn run(executor: &dyn Executor, runs: u64, workers: usize, known: Vec<Finding>) -> FuzzOutcome {
    let fuzz = Fuzz {
        seed: 5,
        budget: Budget::Runs(runs),
        workers,
        scenario: Some(plain()),
        known,
    };
    fuzz.run(executor, &AtomicBool::new(false), &|_| {})
}

fn plain() -> Scenario {
    let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
    cutpoint_scenario::parse("s.kdl", text)
        .unwrap()
        .scenarios
        .remove(0)
}

fn known(violations: Vec<Violation>) -> Finding {
    Finding {
        violations,
        scenario: plain(),
        runs: 0,
    }
}

fn rules(finding: &Finding) -> Vec<&str> {
    let violations = finding.violations.iter();
    violations.map(|it| it.rule.as_str()).collect()
}

#[test]
fn a_failure_that_violates_more_than_a_known_one_is_its_own() {
    let found = run(&Fragile, 400, 2, Vec::new());
    let mut groups: Vec<_> = found.findings.iter().map(rules).collect();
    groups.sort();
    // The messages make no difference, and the second rule does.
    assert_eq!(groups, [vec!["MARK-1"], vec!["MARK-1", "REQ-5"]]);
    assert!(found.findings.iter().all(|finding| finding.runs > 0));
}

#[test]
fn a_known_failure_is_counted_and_comes_first() {
    let known = known(vec![no_marker("turn 7 has no marker")]);
    let found = run(&Fragile, 400, 2, vec![known.clone()]);
    let [first, second] = &found.findings[..] else {
        panic!("{:?}", found.findings)
    };
    assert_eq!(
        (&first.violations, &first.scenario),
        (&known.violations, &known.scenario)
    );
    assert!(first.runs > 0);
    assert_eq!(rules(second), ["MARK-1", "REQ-5"]);
}

/// The same agent, judged by its rules or by none, and what it was run on.
struct Judged {
    by_rules: bool,
    ran: Mutex<Vec<u64>>,
}

impl Executor for Judged {
    fn run(&self, scenario: &Scenario) -> RunResult {
        let mut result = Fragile.run(scenario);
        self.ran.lock().unwrap().push(result.digest);
        if !self.by_rules {
            result.violations.clear();
        }
        result
    }
}

/// The same seed gives the same runs whatever their verdicts: so a search shows what a change of a rule
/// changes.
#[test]
fn what_is_drawn_does_not_depend_on_verdicts() {
    let ran = |by_rules: bool| {
        let executor = Judged {
            by_rules,
            ran: Mutex::default(),
        };
        // All failures are known, so that none is shrunk, which takes runs of its own.
        let marker = || no_marker("turn 7 has no marker");
        let all_known = vec![known(vec![marker()]), known(vec![marker(), forgotten()])];
        let found = run(&executor, 200, 1, all_known);
        let failed: usize = found.findings.iter().map(|finding| finding.runs).sum();
        (executor.ran.into_inner().unwrap(), found.traces, failed)
    };
    let (strict, lenient) = (ran(true), ran(false));
    assert_eq!((strict.2 > 0, lenient.2), (true, 0));
    assert_eq!((strict.0, strict.1), (lenient.0, lenient.1));
}
