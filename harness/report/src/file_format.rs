//! The formats that are written to a file, and the one list of them.

use std::io::{self, Write};

use crate::json_lines::{self, Header};
use crate::{Context, Reporter, junit};

/// A report that goes to a file of the user's choice.
pub struct FileFormat {
    /// The option of `cutpoint run` that asks for it, without the dashes.
    pub option: &'static str,
    /// The option's help.
    pub help: &'static str,
    /// Starts a report.
    pub open: OpenReport,
}

/// Starts a report on a writer.
///
/// # Errors
/// If the first bytes cannot be written.
pub type OpenReport =
    fn(Box<dyn Write>, &Header, Context<'static>) -> io::Result<Box<dyn Reporter>>;

/// Every format, in the order of the help.
pub const FILE_FORMATS: &[FileFormat] = &[junit::FILE_FORMAT, json_lines::FILE_FORMAT];
