//! A shrunk scenario reads as if a person had written it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Executor, RunResult, Violation};
use crate::shrink::shrink;

/// An agent that violates a rule whenever the scenario's text has all of these.
struct FailsWith(&'static [&'static str]);

impl Executor for FailsWith {
    fn run(&self, scenario: &Scenario) -> RunResult {
        let text = scenario.to_string();
        let all = self.0.iter().all(|needle| text.contains(needle));
        let violation = all.then(|| Violation::new("CALL-1", "no-output", "no output"));
        RunResult {
            violations: violation.into_iter().collect(),
            ..RunResult::default()
        }
    }
}

fn scenario(body: &str) -> Scenario {
    let text = format!("scenario \"s\" {{\n{body}\n}}\n");
    let mut file = cutpoint_scenario::parse("s.kdl", &text).unwrap();
    file.scenarios.remove(0)
}

/// What is left of the body if every scenario with these words fails.
#[track_caller]
fn leaves(needles: &'static [&'static str], body: &str, expected: &str) {
    let small = shrink(&FailsWith(needles), &scenario(body), &|violations| {
        !violations.is_empty()
    });
    assert_eq!(small, scenario(expected), "left is:\n{small}");
}

const DRAWN: &str = r#"
    needs approvals
    limit "1000s"
    model {
        reply { reasoning "Let me see." chunks=4; shell call_1 "echo hi"; }
        reply { custom call_2 run_script "sleep 0.2; echo late" chunks=3; drop; }
    }
    user "question 1"
    await turn-ended
    user "question 2"
    replace "do this instead (2)" at="point tool.spawn 2" yields=3
    approve call_2 at="point approval.asked" yields=1
    await turn-ended
"#;

#[test]
fn only_what_matters_is_left_in_plain_words() {
    leaves(
        &["shell call_", "user", "replace"],
        DRAWN,
        r#"
    model {
        reply { shell call_1 "sleep 60" }
    }
    user "go ahead"
    replace "do this instead" at=started
"#,
    );
}

#[test]
fn a_reply_that_has_lost_its_parts_says_something() {
    leaves(
        &["reply {", "user"],
        DRAWN,
        r#"
    model {
        reply { text "Hi" }
    }
    user "go ahead"
"#,
    );
}

#[test]
fn what_matters_stays_as_it_was() {
    leaves(
        &[
            "custom ",
            "chunks=3",
            "limit",
            "point tool.spawn",
            "yields=2",
        ],
        DRAWN,
        r#"
    limit "1000s"
    model {
        reply { custom call_1 run_script "sleep 0.2; echo late" chunks=3; }
    }
    user "go ahead"
    replace "do this instead" at="point tool.spawn" yields=2
"#,
    );
}

#[test]
fn a_number_stays_where_it_keeps_two_texts_apart() {
    leaves(
        &["reply", "it (1)", "it (2)"],
        r#"
    model { reply { text "Hi"; } }
    user "it (1)"
    user "it (2)"
"#,
        r#"
    model { reply { text "Hi"; } }
    user "it (1)"
    user "it (2)"
"#,
    );
}
