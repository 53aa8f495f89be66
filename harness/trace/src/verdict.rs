//! The verdict of a rule over a trace.

use serde::{Deserialize, Serialize};

pub use crate::breach::{Breach, Clause, Fact, Facts, Fault, UNSPECIFIED};

/// How severe a breach of a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// A breach is a failure.
    Must,
    /// A breach is reported, and is a failure only where the user asks for strictness.
    Should,
}

/// The verdict of a rule over a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Verdict {
    /// It was kept.
    Pass {
        /// How often the trace exercised it; never 0.
        exercised: usize,
    },
    /// It was broken.
    Fail {
        /// How often the trace exercised it.
        exercised: usize,
        /// Each breach.
        breaches: Vec<Breach>,
    },
    /// Nothing in the trace exercised it.
    NotExercised,
    /// The agent lacks what the rule is about.
    NotApplicable {
        /// What it lacks.
        why: String,
    },
    /// Nothing can be said, because of trouble in the harness.
    Unknown {
        /// The trouble.
        why: String,
    },
}

/// A rule's verdict over one trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleVerdict {
    /// The rule's id.
    pub rule: String,
    /// Its level.
    pub level: Level,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The reason, if the scenario sets the rule aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<String>,
}
