//! A whole run in numbers.

use std::collections::BTreeMap;

use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::{Level, RuleVerdict, Verdict};
use serde::{Deserialize, Serialize};

/// A whole run in numbers, gathered case by case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The seed of everything random in the run.
    pub seed: u64,
    /// Whether a breach of a SHOULD rule is a failure.
    pub strict: bool,
    /// How many cases there were.
    pub cases: usize,
    /// How many cases ended with each status; a status that no case ended with is absent.
    pub by_status: BTreeMap<CaseStatus, usize>,
    /// What was seen of each rule, in the order of the rule book.
    pub rules: Vec<RuleCount>,
    /// How long the run took, in milliseconds. The sum over the cases, unless it is set to something
    /// better: cases may have run side by side.
    pub duration_ms: f64,
}

/// What a run saw of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// The rule's id.
    pub rule: String,
    /// Its level.
    pub level: Level,
    /// How often it was exercised.
    pub exercised: usize,
    /// In how many cases it was exercised.
    pub cases: usize,
    /// How many breaches there were, without waived ones.
    pub breaches: usize,
    /// How many breaches were waived.
    pub waived: usize,
    /// In how many cases it could have been exercised, and was not.
    pub not_exercised: usize,
    /// In how many cases the agent lacked what the rule is about.
    pub not_applicable: usize,
    /// In how many cases its verdict is unknown.
    pub unknown: usize,
}

impl Summary {
    /// A run that has no cases yet.
    pub fn new(seed: u64, strict: bool) -> Self {
        Self {
            seed,
            strict,
            cases: 0,
            by_status: BTreeMap::new(),
            rules: Vec::new(),
            duration_ms: 0.0,
        }
    }

    /// Counts a case.
    pub fn add(&mut self, case: &CaseResult) {
        self.count(case.status(self.strict), &case.verdicts, case.duration_ms);
    }

    /// Counts a case of which only the result is known.
    pub fn count(&mut self, status: CaseStatus, verdicts: &[RuleVerdict], duration_ms: f64) {
        self.cases += 1;
        *self.by_status.entry(status).or_default() += 1;
        self.duration_ms += duration_ms;
        // Nearly always every case has the same rules in the same order.
        for (at, verdict) in verdicts.iter().enumerate() {
            let same = |count: &RuleCount| count.rule == verdict.rule;
            let known = if self.rules.get(at).is_some_and(same) {
                Some(at)
            } else {
                self.rules.iter().position(same)
            };
            let at = known.unwrap_or_else(|| {
                self.rules.push(RuleCount::new(verdict));
                self.rules.len() - 1
            });
            self.rules[at].add(verdict);
        }
    }

    /// The worst status that a case ended with; `None` without cases.
    pub fn worst(&self) -> Option<CaseStatus> {
        self.by_status.keys().next_back().copied()
    }
}

impl RuleCount {
    fn new(verdict: &RuleVerdict) -> Self {
        Self {
            rule: verdict.rule.clone(),
            level: verdict.level,
            exercised: 0,
            cases: 0,
            breaches: 0,
            waived: 0,
            not_exercised: 0,
            not_applicable: 0,
            unknown: 0,
        }
    }

    fn add(&mut self, verdict: &RuleVerdict) {
        match &verdict.verdict {
            Verdict::Pass { exercised } => {
                self.exercised += exercised;
                self.cases += 1;
            }
            Verdict::Fail {
                exercised,
                breaches,
            } => {
                self.exercised += exercised;
                self.cases += 1;
                if verdict.waived.is_some() {
                    self.waived += breaches.len();
                } else {
                    self.breaches += breaches.len();
                }
            }
            Verdict::NotExercised => self.not_exercised += 1,
            Verdict::NotApplicable { .. } => self.not_applicable += 1,
            Verdict::Unknown { .. } => self.unknown += 1,
        }
    }
}
