//! What is left of a scenario is what somebody would have written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Broken, Executor, Observed};
use crate::shrink::shrink;

/// An agent that breaks a rule whenever the scenario's text has all of these.
struct BreaksBy(&'static [&'static str]);

impl Executor for BreaksBy {
    fn run(&self, scenario: &Scenario) -> Observed {
        let text = scenario.to_string();
        let all = self.0.iter().all(|needle| text.contains(needle));
        let broken = all.then(|| Broken {
            rule: "CALL-1".to_owned(),
            message: "no output".to_owned(),
        });
        Observed {
            broken: broken.into_iter().collect(),
            ..Observed::default()
        }
    }
}

fn scenario(body: &str) -> Scenario {
    let text = format!("scenario \"s\" {{\n{body}\n}}\n");
    let mut file = cutpoint_scenario::parse("s.kdl", &text).unwrap();
    file.scenarios.remove(0)
}

/// What is left of the body if the rule is broken by all that has these in it.
#[track_caller]
fn leaves(needles: &'static [&'static str], body: &str, expected: &str) {
    let small = shrink(&BreaksBy(needles), &scenario(body), &|broken| {
        !broken.is_empty()
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
fn what_does_not_matter_is_gone_and_the_rest_is_plain() {
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
