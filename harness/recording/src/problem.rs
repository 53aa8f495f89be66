//! What is wrong with a recording, and where.

use std::fmt;

/// How much a problem weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; a recording that has it can be replayed.
    Warning,
    /// The recording is not what it claims to be.
    Error,
}

/// One problem of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user named the recording; the bare file name of one that was never stored.
    pub file: String,
    /// The line, counted from 1; 0 where the problem is the file as a whole.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub message: String,
    /// How much it weighs.
    pub severity: Severity,
}

impl Problem {
    pub(crate) fn error(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            message: message.into(),
            severity: Severity::Error,
        }
    }

    pub(crate) fn warning(
        file: impl Into<String>,
        line: usize,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, line, message)
        }
    }

    /// Whether the recording is wrong, not only odd.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, ": {severity}: {}", self.message)
    }
}

/// Why a recording could not be loaded: everything that was found, at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors {
    /// The problems, in the order of the files.
    pub problems: Vec<Problem>,
}

impl From<Problem> for LoadErrors {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}
