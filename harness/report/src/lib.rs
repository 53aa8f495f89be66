//! Reports on the results of cases, for people and for machines.
//!
//! One file per format, each behind [`Reporter`]: lines on a console, JUnit, JSON lines, GitHub's
//! annotations. Nothing here decides anything: a verdict is made in `cutpoint-check`, and a report
//! only shows it.
//!
//! [`layout`] and [`text`] are what everything printed for people is made of, here and in the command
//! line.
//!
//! Floor 2 of the workspace: pure rendering into a writer, no async.

mod case_details;
mod describe_observation;
mod transcript;

pub mod console;
pub mod github;
pub mod json_lines;
pub mod junit;
pub mod layout;
pub mod summary;
pub mod text;

use std::io::{self, Write};

use cutpoint_trace::case::CaseResult;

pub use console::Console;
pub use describe_observation::{describe_entry, describe_observation};
pub use github::Annotations;
pub use json_lines::{Header, JsonLines};
pub use junit::Junit;
pub use summary::{RuleCount, Summary};

/// A format of reports.
pub trait Reporter {
    /// Takes a case that has ended.
    ///
    /// # Errors
    /// If the report cannot be written.
    fn case(&mut self, case: &CaseResult) -> io::Result<()>;

    /// Takes the whole run, after its last case.
    ///
    /// # Errors
    /// If the report cannot be written.
    fn finish(&mut self, summary: &Summary) -> io::Result<()>;
}

/// What a report needs besides the cases.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Whether a breach of a SHOULD rule is a failure.
    pub strict: bool,
    /// Looks up a rule's sentence by the rule's id.
    pub sentence: fn(&str) -> Option<&'static str>,
}

/// A report that goes to a file of the user's choice.
pub struct FileFormat {
    /// The option of `cutpoint run` that asks for it, without the dashes.
    pub option: &'static str,
    /// The option's help.
    pub help: &'static str,
    /// Starts a report.
    pub open: OpenReport,
}

/// Starts a report on a writer. It fails if the first bytes cannot be written.
pub type OpenReport = fn(Box<dyn Write>, &Header, Context) -> io::Result<Box<dyn Reporter>>;

/// Every format that is written to a file, in the order of the help.
pub const FILE_FORMATS: &[FileFormat] = &[junit::FILE_FORMAT, json_lines::FILE_FORMAT];
