//! What runs a schedule.

use std::collections::BTreeMap;

use cutpoint_scenario::ast::Scenario;
use serde::{Deserialize, Serialize};

/// A rule that a run broke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Broken {
    /// The rule's id.
    pub rule: String,
    /// What happened.
    pub message: String,
}

/// A write to a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Write {
    /// How many bytes it has brought.
    pub bytes: usize,
    /// How long the line is that it ended with, as far as that is known.
    pub last_line_bytes: usize,
}

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// A number that is the same for runs in which the same happened.
    pub digest: u64,
    /// The rules that were broken.
    pub broken: Vec<Broken>,
    /// How often each rule was put to the test.
    pub exercised: BTreeMap<String, usize>,
    /// The points that the agent passed, in order.
    pub passed: Vec<&'static str>,
    /// The writes to rollouts, one for each time that `store.written` was passed. What went to
    /// another rollout than the conversation's, such as a sub-agent's, counts as nothing.
    pub writes: Vec<Write>,
    /// Of each time that `store.synced` was passed, whether it was the conversation's rollout.
    pub syncs: Vec<bool>,
    /// How many of the steps were done that are done by themselves: what the first one changes may
    /// keep the agent from a later one's point.
    pub sent: usize,
    /// Why the run says nothing of the agent, if it does not.
    pub trouble: Option<String>,
}

/// Runs schedules. The same scenario must show the same each time.
pub trait Executor: Sync {
    /// Runs one to its end.
    fn run(&self, scenario: &Scenario) -> Observed;
}
