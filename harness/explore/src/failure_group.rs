//! Failure groups: which failures are the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::executor::{RunResult, Violation};
use crate::results::Digests;
use crate::token::Token;

/// A clause of a rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clause {
    /// The rule's id.
    pub rule: String,
    /// Which clause of it.
    pub kind: String,
}

impl From<&Violation> for Clause {
    fn from(violation: &Violation) -> Self {
        Self {
            rule: violation.rule.clone(),
            kind: violation.kind.clone(),
        }
    }
}

/// What makes two failures the same: they broke the same clauses of the same rules. What the
/// messages say, and how often each clause was broken, makes no difference.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureKey(BTreeSet<Clause>);

impl FailureKey {
    /// The key of a run with these violations.
    pub fn of(violations: &[Violation]) -> Self {
        Self(violations.iter().map(Clause::from).collect())
    }

    /// The clauses, in order.
    pub fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.0.iter()
    }

    /// The ids of the rules, in order.
    pub fn rules(&self) -> BTreeSet<&str> {
        self.0.iter().map(|clause| clause.rule.as_str()).collect()
    }

    /// Whether all clauses of the other one are among these.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0)
    }
}

/// The first violation of each clause, in the order in which they came.
pub fn first_of_each_clause(mut violations: Vec<Violation>) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    violations.retain(|violation| seen.insert(Clause::from(violation)));
    violations
}

/// How often a failure came back when its schedule was run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// In how many further runs the same clauses were broken.
    pub failed: usize,
    /// How many further runs there were.
    pub runs: usize,
}

impl Repeats {
    pub(crate) const fn add(&mut self, other: Self) {
        self.failed += other.failed;
        self.runs += other.runs;
    }
}

/// The schedules of a scenario that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureGroup {
    /// What the smallest schedule violated, one violation for each clause.
    pub violations: Vec<Violation>,
    /// How many schedules failed so.
    pub schedules: usize,
    /// How many distinct traces they gave.
    pub traces: usize,
    /// The number of the smallest one among all schedules of the plan; 0 is the scenario as it is.
    pub number: usize,
    /// The token that replays it.
    pub token: Token,
    /// How often it came back, if runs are only samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
    /// The digests of the traces.
    pub digests: Digests,
}

impl FailureGroup {
    /// What makes other failures the same as these.
    pub fn key(&self) -> FailureKey {
        FailureKey::of(&self.violations)
    }

    /// Takes a further run of the group's smallest schedule. A run that shows nothing about the agent
    /// does not count.
    pub(crate) fn repeat(&mut self, result: &RunResult) {
        if result.error.is_some() {
            return;
        }
        let again = FailureKey::of(&result.violations).contains(&self.key());
        self.repeats.get_or_insert_default().add(Repeats {
            failed: usize::from(again),
            runs: 1,
        });
    }

    /// Adds a group of the same failure from another part of the schedules.
    pub(crate) fn join(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.digests.join(other.digests);
        self.traces = self.digests.len();
        if let Some(repeats) = other.repeats {
            self.repeats.get_or_insert_default().add(repeats);
        }
        if other.number < self.number {
            self.number = other.number;
            self.token = other.token;
            self.violations = other.violations;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::RunError;
    use crate::schedule::Schedule;

    fn violation(rule: &str, kind: &str, message: &str) -> Violation {
        Violation::new(rule, kind, message)
    }

    #[test]
    fn messages_make_no_difference_and_clauses_do() {
        let key = |message: &str, more: Option<Violation>| {
            let first = violation("CALL-1", "no-output", message);
            let all: Vec<Violation> = [first.clone(), first].into_iter().chain(more).collect();
            assert_eq!(first_of_each_clause(all.clone()).len(), 1 + all.len() - 2);
            FailureKey::of(&all)
        };
        let one = key("request 3 has no output of call_1", None);
        assert_eq!(one, key("the output of call_2 is missing", None));
        assert_eq!(one.clauses().count(), 1);
        let other_kind = violation("CALL-1", "wrong-kind", "request 3 has no output of call_1");
        let both = key("request 3 has no output of call_1", Some(other_kind));
        assert_ne!(one, both);
        assert!(both.contains(&one) && !one.contains(&both));
    }

    #[test]
    fn a_further_run_counts_if_it_shows_something_about_the_agent() {
        let violations = vec![violation(
            "TURN-7",
            "aborted-twice",
            "turn 7 was aborted twice",
        )];
        let mut group = FailureGroup {
            violations: violations.clone(),
            schedules: 1,
            traces: 1,
            number: 3,
            token: Token {
                scenario: 0,
                seed: 0,
                schedule: Schedule::default(),
            },
            repeats: None,
            digests: Digests::default(),
        };
        let other = violation("MARK-1", "none", "there is no marker");
        group.repeat(&RunResult {
            violations: [violations, vec![other]].concat(),
            ..RunResult::default()
        });
        group.repeat(&RunResult::default());
        group.repeat(&RunResult {
            error: Some(RunError::Harness("no room on the disk".to_owned())),
            ..RunResult::default()
        });
        assert_eq!(group.repeats, Some(Repeats { failed: 1, runs: 2 }));
    }
}
