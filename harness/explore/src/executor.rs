//! Executors: what runs a schedule, and what a run has shown.

use std::collections::BTreeMap;

use cutpoint_scenario::ast::{CutPoint, Scenario};
use serde::{Deserialize, Serialize};

/// A rule that a run violated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Violation {
    /// The rule's id.
    pub rule: String,
    /// Which clause of the rule was broken. It stays the same when the message is reworded.
    pub kind: String,
    /// What happened, in a sentence.
    pub message: String,
}

impl Violation {
    /// A violation of a clause of a rule.
    pub fn new(
        rule: impl Into<String>,
        kind: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            rule: rule.into(),
            kind: kind.into(),
            message: message.into(),
        }
    }
}

/// A write to a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolloutWrite {
    /// How many bytes were written.
    pub bytes: usize,
    /// The length of the line that the write ended, if it is known.
    pub last_line_bytes: usize,
}

/// A cut point that the server or the client saw during a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePassed {
    /// The cut point.
    pub at: CutPoint,
    /// How many of the scenario's steps come before an act there.
    pub after_steps: usize,
}

/// Why a run shows nothing about the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The harness could not run it, or a rule could not be judged.
    #[error("{0}")]
    Harness(String),
    /// The agent lacks something that the scenario needs.
    #[error("{0}")]
    Unsupported(String),
    /// It was stopped before its end.
    #[error("it was stopped")]
    Stopped,
}

/// What a run has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunResult {
    /// A number that is the same for runs with the same trace.
    pub digest: u64,
    /// The rules that were violated.
    pub violations: Vec<Violation>,
    /// How often each rule was exercised.
    pub exercised: BTreeMap<String, usize>,
    /// The numbers of the steps that acted at a cut point, counted from 1. What one act changes may
    /// keep the agent from a later one's cut point.
    pub acted: Vec<usize>,
    /// The labels of the agent's named points that it passed, in order, if they can be seen.
    pub points: Vec<&'static str>,
    /// The cut points that the server and the client saw, if acts are done there.
    pub gates: Vec<GatePassed>,
    /// The writes to rollouts, one for each time that `store.written` was passed. A write to another
    /// rollout than the conversation's, such as a sub-agent's, counts as empty.
    pub writes: Vec<RolloutWrite>,
    /// For each time that `store.synced` was passed, whether it was the conversation's rollout.
    pub syncs: Vec<bool>,
    /// How the agent ended, if it did so on its own.
    pub agent_exit: Option<String>,
    /// Why the run shows nothing about the agent, if it does not.
    pub error: Option<RunError>,
}

/// Whether the same schedule gives the same trace each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Determinism {
    /// It does, on any machine.
    Exact,
    /// It may not: the run is one sample.
    Sampled {
        /// How often the first schedule of each failure is run again, to tell a race from a rule.
        repeat: usize,
    },
}

/// Runs schedules of one scenario file on an agent.
pub trait Executor: Sync {
    /// Whether the same schedule gives the same trace each time.
    fn determinism(&self) -> Determinism {
        Determinism::Exact
    }

    /// Runs a scenario to its end.
    fn run(&self, scenario: &Scenario) -> RunResult;
}
