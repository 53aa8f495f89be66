//! The result of one case: one scenario on one agent.

use serde::{Deserialize, Serialize};

use crate::verdict::{Level, RuleVerdict, Verdict};
use crate::{AgentInfo, Trace};

/// An expectation of a scenario that was not met, or a wait that ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmetExpectation {
    /// The expectation as it is written.
    pub text: String,
    /// Its line in the scenario's file; 0 without a file.
    pub line: usize,
    /// What was found instead.
    pub found: String,
    /// The trace entries that show it.
    pub evidence: Vec<u64>,
}

/// How a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseStatus {
    /// Every rule that was put to the test was kept, every expectation met.
    Conforms,
    /// The agent cannot do what the scenario needs.
    Skipped,
    /// A rule was broken or an expectation not met.
    Breach,
    /// The scenario itself cannot be run as it is written.
    ScenarioError,
    /// The agent could not be run to the end.
    AgentFailed,
    /// The harness got into trouble.
    Trouble,
}

/// The result of one case.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// Its number in the whole run, counted from 1, whichever part of that is run; 0 outside of runs.
    pub number: usize,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's file, as the user named it.
    pub file: String,
    /// The line on which the scenario starts.
    pub line: usize,
    /// What a user would have seen.
    pub about: Option<String>,
    /// The agent.
    pub agent: AgentInfo,
    /// What each rule says, in the order of the rule book.
    pub verdicts: Vec<RuleVerdict>,
    /// Expectations that were not met.
    pub unmet: Vec<UnmetExpectation>,
    /// Why the case was skipped, could not be run, or is unknown.
    pub note: Option<String>,
    /// How it went, without regard to strictness.
    pub status: CaseStatus,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// The command that runs this case again.
    pub replay: String,
    /// Where the trace was stored.
    pub trace_path: Option<String>,
    /// What was observed.
    pub trace: Trace,
}

impl CaseResult {
    /// How the case went, where a breach of a SHOULD rule counts as one if `strict`.
    pub fn status(&self, strict: bool) -> CaseStatus {
        match self.status {
            CaseStatus::Conforms if self.breaches(strict).next().is_some() => CaseStatus::Breach,
            status => status,
        }
    }

    /// The verdicts that are breaches: not waived, and a MUST unless `strict`.
    pub fn breaches(&self, strict: bool) -> impl Iterator<Item = &RuleVerdict> {
        self.verdicts.iter().filter(move |verdict| {
            verdict.waived.is_none()
                && (strict || verdict.level == Level::Must)
                && matches!(verdict.verdict, Verdict::Fail { .. })
        })
    }

    /// The verdicts of rules that the scenario waives although they were not broken in this case.
    pub fn unneeded_waivers(&self) -> impl Iterator<Item = &RuleVerdict> {
        self.verdicts.iter().filter(|verdict| {
            verdict.waived.is_some()
                && !matches!(
                    verdict.verdict,
                    Verdict::Fail { .. } | Verdict::Unknown { .. }
                )
        })
    }
}
