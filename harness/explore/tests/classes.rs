//! Which failures of a fuzzed agent are told apart, and what is drawn beside them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cutpoint_explore::{Broken, Budget, Executor, Finding, Fuzz, Fuzzed, Observed, fuzz};
use cutpoint_scenario::ast::Scenario;

/// An agent that breaks one rule whenever it is interrupted, and a second one if it is steered, too.
struct Fragile;

fn broken(rule: &str, message: &str) -> Broken {
    Broken {
        rule: rule.to_owned(),
        message: message.to_owned(),
    }
}

impl Executor for Fragile {
    fn run(&self, scenario: &Scenario) -> Observed {
        let text = scenario.to_string();
        let mut observed = Observed {
            digest: cutpoint_explore::fingerprint(scenario),
            passed: vec!["a", "b"],
            ..Observed::default()
        };
        if text.contains("interrupt at") {
            let message = format!("turn {} has no marker", text.len());
            observed.broken.push(broken("MARK-1", &message));
            if text.contains("steer") {
                observed.broken.push(broken("REQ-5", "it was forgotten"));
            }
        }
        observed
    }
}

fn fuzzed(known: Vec<Finding>) -> Fuzzed {
    let asked = Fuzz {
        seed: 5,
        budget: Budget::Runs(400),
        workers: 2,
        scenario: Some(plain()),
        known,
    };
    fuzz(&Fragile, &asked, &AtomicBool::new(false), &|_| {})
}

fn plain() -> Scenario {
    let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
    cutpoint_scenario::parse("s.kdl", text)
        .unwrap()
        .scenarios
        .remove(0)
}

fn rules(finding: &Finding) -> Vec<&str> {
    finding.broken.iter().map(|it| it.rule.as_str()).collect()
}

#[test]
fn a_failure_that_breaks_more_than_a_known_one_is_its_own() {
    let found = fuzzed(Vec::new());
    let mut classes: Vec<_> = found.findings.iter().map(rules).collect();
    classes.sort();
    // The numbers in the messages make no difference, and the second rule does.
    assert_eq!(classes, [vec!["MARK-1"], vec!["MARK-1", "REQ-5"]]);
    assert!(found.findings.iter().all(|finding| finding.runs > 0));
}

#[test]
fn what_is_known_is_counted_and_comes_first() {
    let known = Finding {
        broken: vec![broken("MARK-1", "turn 7 has no marker")],
        scenario: plain(),
        runs: 0,
    };
    let found = fuzzed(vec![known.clone()]);
    let [first, second] = &found.findings[..] else {
        panic!("{:?}", found.findings)
    };
    assert_eq!(
        (&first.broken, &first.scenario),
        (&known.broken, &known.scenario)
    );
    assert!(first.runs > 0);
    assert_eq!(rules(second), ["MARK-1", "REQ-5"]);
}

/// The same agent, by rules that it breaks or by none, and what it was run on.
struct Judged {
    by_rules: bool,
    ran: Mutex<Vec<u64>>,
}

impl Executor for Judged {
    fn run(&self, scenario: &Scenario) -> Observed {
        let mut observed = Fragile.run(scenario);
        self.ran.lock().unwrap().push(observed.digest);
        if !self.by_rules {
            observed.broken.clear();
        }
        observed
    }
}

/// The same seed makes the same runs whatever the rules say of them: so it shows what a change of a rule makes
/// of a search.
#[test]
fn what_is_drawn_does_not_hang_on_what_is_broken() {
    let ran = |by_rules: bool| {
        let executor = Judged {
            by_rules,
            ran: Mutex::default(),
        };
        // All is known, so that nothing is made smaller, which takes runs of its own.
        let known = |broken| Finding {
            broken,
            scenario: plain(),
            runs: 0,
        };
        let marker = broken("MARK-1", "turn 7 has no marker");
        let forgotten = broken("REQ-5", "it was forgotten");
        let known = vec![known(vec![marker.clone()]), known(vec![marker, forgotten])];
        let asked = Fuzz {
            seed: 5,
            budget: Budget::Runs(200),
            workers: 1,
            scenario: Some(plain()),
            known,
        };
        let found = fuzz(&executor, &asked, &AtomicBool::new(false), &|_| {});
        let failed: usize = found.findings.iter().map(|finding| finding.runs).sum();
        (executor.ran.into_inner().unwrap(), found.traces, failed)
    };
    let (strict, lenient) = (ran(true), ran(false));
    assert_eq!((strict.2 > 0, lenient.2), (true, 0));
    assert_eq!((strict.0, strict.1), (lenient.0, lenient.1));
}
