//! What came of the cases, for people and for machines.
//!
//! One file per format, each behind [`Reporter`]: lines on a console, JUnit, JSON lines, GitHub's
//! annotations. Nothing here decides anything: a verdict is made in `cutpoint-check`, and a report
//! only tells it.
//!
//! Floor 2 of the workspace: pure rendering into whatever can be written to, no async.

mod describe;
mod line;
mod story;
mod text;
mod transcript;

pub mod console;
pub mod github;
pub mod json_lines;
pub mod junit;
pub mod summary;

use std::io::{self, Write};

use cutpoint_trace::case::CaseResult;

pub use console::Console;
pub use describe::{describe_entry, describe_what};
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

/// Looks up a rule's sentence by the rule's id.
pub type Sentence = dyn Fn(&str) -> Option<&'static str> + Sync;

/// What a report needs besides the cases.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whether a breach of a SHOULD rule is a failure.
    pub strict: bool,
    /// The rule book's sentences.
    pub sentence: &'a Sentence,
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
pub type OpenReport =
    fn(Box<dyn Write>, &Header, Context<'static>) -> io::Result<Box<dyn Reporter>>;

/// Every format that is written to a file, in the order of the help.
pub const FILE_FORMATS: &[FileFormat] = &[junit::FILE_FORMAT, json_lines::FILE_FORMAT];
