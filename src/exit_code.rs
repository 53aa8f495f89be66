//! The exit codes that scripts and CI rely on.

use std::process;

use cutpoint_trace::case::CaseStatus;

/// What a command's end means. Documented in `docs/ci.md`; a code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCode {
    /// The agent conforms, or the command did what it was asked to.
    Conforms = 0,
    /// A rule was broken, an expectation not met, or (`fmt --check`) a file differs.
    Breach = 1,
    /// The command line or a file is not as it must be.
    Usage = 2,
    /// An agent could not be run, or not to the end.
    AgentFailed = 3,
    /// The run was interrupted, or the harness itself got into trouble: nothing can be said.
    Trouble = 4,
}

impl ExitCode {
    /// What a case's status means for the whole command.
    pub fn of(status: CaseStatus) -> Self {
        match status {
            CaseStatus::Conforms | CaseStatus::Skipped => Self::Conforms,
            CaseStatus::Breach => Self::Breach,
            CaseStatus::ScenarioError => Self::Usage,
            CaseStatus::AgentFailed => Self::AgentFailed,
            CaseStatus::Trouble => Self::Trouble,
        }
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
