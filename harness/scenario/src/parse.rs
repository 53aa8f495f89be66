//! From a source text to scenarios.

use crate::ast::ScenarioFile;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::kdl::{self, Node};
use crate::{reader, spelling};

/// The largest scenario file: far more than a person writes, and far less than a file given by
/// mistake can have.
pub const SOURCE_LIMIT_BYTES: usize = 1024 * 1024;

/// Parses a scenario file; the file's name only serves the diagnostics.
///
/// # Errors
///
/// All mistakes of the file, or, when its syntax is broken, all mistakes of the syntax.
pub fn parse(file_name: &str, source: &str) -> Result<ScenarioFile, Diagnostics> {
    let mut nodes = nodes(file_name, source)?;
    spelling::rename_old_steps(&mut nodes);
    let (file, problems) = reader::read_file(source, &nodes);
    if !problems.is_empty() {
        return Err(Diagnostics::new(file_name, source, problems));
    }
    if file.scenarios.is_empty() {
        return Err(no_scenario(file_name, source));
    }
    Ok(file)
}

/// Parses a scenario file as it was read from disk.
///
/// # Errors
///
/// As for `parse`; also if the bytes are not text.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<ScenarioFile, Diagnostics> {
    if bytes.len() > SOURCE_LIMIT_BYTES {
        return Err(too_large(file_name, bytes.len()));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Diagnostics::new(
            file_name,
            "",
            vec![
                Diagnostic::new(
                    "binary-file",
                    at..at + 1,
                    format!("this is not a text file: byte {at} is NUL"),
                    "",
                )
                .help("scenarios are KDL text in UTF-8; is this the right file?"),
            ],
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(source) => parse(file_name, source),
        Err(error) => {
            let at = error.valid_up_to();
            // The replacement character stands where the bad bytes are, so that the caret does.
            let shown = String::from_utf8_lossy(bytes);
            Err(Diagnostics::new(
                file_name,
                &shown,
                vec![
                    Diagnostic::new(
                        "not-utf8",
                        at..at + '\u{fffd}'.len_utf8(),
                        format!("this file is not valid UTF-8: byte {at} begins no character"),
                        "not UTF-8",
                    )
                    .help("save the file in UTF-8"),
                ],
            ))
        }
    }
}

/// The nodes of a text, once size and syntax are in order.
pub(crate) fn nodes(file_name: &str, source: &str) -> Result<Vec<Node>, Diagnostics> {
    if source.len() > SOURCE_LIMIT_BYTES {
        return Err(too_large(file_name, source.len()));
    }
    kdl::parse(source).map_err(|problems| Diagnostics::new(file_name, source, problems))
}

fn too_large(file_name: &str, length: usize) -> Diagnostics {
    Diagnostics::new(
        file_name,
        "",
        vec![
            Diagnostic::new(
                "too-large",
                0..0,
                format!(
                    "this file has {length} bytes, a scenario file at most {SOURCE_LIMIT_BYTES}"
                ),
                "",
            )
            .help("is this the right file? long streams belong in a recording"),
        ],
    )
}

fn no_scenario(file_name: &str, source: &str) -> Diagnostics {
    let shown = if source.trim().is_empty() { "" } else { source };
    Diagnostics::new(
        file_name,
        shown,
        vec![
            Diagnostic::new("no-scenario", 0..0, "no scenario in this file", "")
                .help("a scenario begins with `scenario \"name\" {`"),
        ],
    )
}
