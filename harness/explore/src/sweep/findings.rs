//! What the runs of a scenario's schedules have shown so far.

use std::collections::{BTreeMap, HashSet};

use crate::executor::{RunError, RunResult, Violation};
use crate::failure_group::{FailureGroup, FailureKey, first_of_each_clause};
use crate::plan::{CrashLevel, CrashTally};
use crate::results::{Digests, HarnessErrors, add_exercised};
use crate::schedule::Schedule;
use crate::token::Token;

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) ran: usize,
    pub(super) missed: usize,
    pub(super) exercised: BTreeMap<String, usize>,
    pub(super) levels: BTreeMap<CrashLevel, CrashTally>,
    pub(super) harness_errors: Option<HarnessErrors>,
    digests: HashSet<u64>,
    groups: BTreeMap<FailureKey, Group>,
}

/// Schedules that failed in the same way.
#[derive(Debug)]
struct Group {
    /// The number of the smallest one, and what it violated.
    number: usize,
    violations: Vec<Violation>,
    schedules: usize,
    digests: HashSet<u64>,
}

impl Findings {
    /// Takes the run of the schedule of that number.
    pub(super) fn take(
        &mut self,
        number: usize,
        level: Option<CrashLevel>,
        missed: bool,
        result: RunResult,
    ) {
        self.ran += 1;
        if let Some(error) = result.error {
            self.take_error(number, &error);
            return;
        }
        self.digests.insert(result.digest);
        self.missed += usize::from(missed);
        add_exercised(&mut self.exercised, &result.exercised);
        let failed = !result.violations.is_empty();
        if let Some(level) = level {
            let tally = self.levels.entry(level).or_default();
            tally.ran += 1;
            tally.failed += usize::from(failed);
        }
        if failed {
            self.take_failure(number, result.digest, result.violations);
        }
    }

    fn take_failure(&mut self, number: usize, digest: u64, violations: Vec<Violation>) {
        let key = FailureKey::of(&violations);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            number: usize::MAX,
            violations: Vec::new(),
            schedules: 0,
            digests: HashSet::new(),
        });
        group.schedules += 1;
        group.digests.insert(digest);
        // Several threads work, and the smallest schedule is not always the first one that ends.
        if number < group.number {
            group.number = number;
            group.violations = violations;
        }
    }

    fn take_error(&mut self, number: usize, error: &RunError) {
        let one = HarnessErrors {
            runs: 1,
            number,
            why: error.to_string(),
        };
        self.harness_errors = Some(match self.harness_errors.take() {
            Some(known) => known.join(one),
            None => one,
        });
    }

    /// How many failure groups there are.
    pub(super) fn failures(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn digests(&self) -> Digests {
        self.digests.iter().copied().collect()
    }

    /// The failure groups, that of the smallest schedule first. `schedule` makes a schedule from its
    /// number.
    pub(super) fn groups(
        &self,
        (scenario, seed): (u64, u64),
        schedule: impl Fn(usize) -> Schedule,
    ) -> Vec<FailureGroup> {
        let group = |group: &Group| {
            let mut violations = first_of_each_clause(group.violations.clone());
            violations.sort();
            FailureGroup {
                violations,
                schedules: group.schedules,
                traces: group.digests.len(),
                number: group.number,
                token: Token {
                    scenario,
                    seed,
                    schedule: schedule(group.number),
                },
                repeats: None,
                digests: group.digests.iter().copied().collect(),
            }
        };
        let mut groups: Vec<FailureGroup> = self.groups.values().map(group).collect();
        groups.sort_by_key(|group| group.number);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reported_harness_error_is_that_of_the_smallest_schedule() {
        let mut findings = Findings::default();
        for (number, why) in [(4, "four"), (2, "two"), (3, "three")] {
            let result = RunResult {
                error: Some(RunError::Harness(why.to_owned())),
                ..RunResult::default()
            };
            findings.take(number, None, false, result);
        }
        let errors = findings.harness_errors.unwrap();
        assert_eq!((errors.runs, errors.number), (3, 2));
        assert_eq!(errors.why, "two");
    }

    #[test]
    fn a_group_has_the_violations_of_its_smallest_schedule() {
        let mut findings = Findings::default();
        for number in [5, 3, 4] {
            let message = format!("turn {number} was aborted twice");
            let result = RunResult {
                digest: number as u64 % 2,
                violations: vec![Violation::new("TURN-7", "aborted-twice", message)],
                ..RunResult::default()
            };
            findings.take(number, None, false, result);
        }
        let groups = findings.groups((0, 0), |_| Schedule::default());
        let [group] = &groups[..] else {
            panic!("{groups:?}")
        };
        assert_eq!((group.number, group.schedules, group.traces), (3, 3, 2));
        assert_eq!(group.violations[0].message, "turn 3 was aborted twice");
    }
}
