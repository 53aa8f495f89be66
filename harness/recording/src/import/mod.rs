//! Recordings made from rollouts: what a file says about a session, made ready to be replayed.
//!
//! The model's items between two inputs become one answer, streamed as the API would have streamed it.
//! Every stream of an import says `: cutpoint synthesized=true`. Calls are replaced by calls of a shell
//! that print what was recorded (see `outcome.rs`); what a call was stands beside it as `was=`.

mod build_recording;
mod call_outcome;
mod rollout_reader;
mod rollout_session;

use cutpoint_protocol::Item;

use crate::problem::Problem;
use crate::recording::Recording;
use crate::redact::Redactor;

pub use call_outcome::portable;

pub(crate) use call_outcome::{CallOutcome, command, renamed, shell_call};
pub(crate) use rollout_session::prompt_text;

/// What an import came to.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The recording.
    pub recording: Recording,
    /// The items that a replay gives, in the form of [`portable`].
    pub items: Vec<Item>,
    /// What could not be read, or not be taken as it was.
    pub problems: Vec<Problem>,
    /// How many lines were read.
    pub lines: usize,
}

/// Makes a recording from a session's rollouts, given as their names and bytes, in their order. Of the
/// last one only so many lines are read. All that the import keeps has been through the redactor.
///
/// # Errors
/// If a line rewrites the history, or no line reports a request.
pub fn import(
    name: &str,
    rollouts: &[(String, Vec<u8>)],
    until_line: Option<usize>,
    redactor: &mut Redactor,
) -> Result<Imported, Problem> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for (at, (file, bytes)) in rollouts.iter().enumerate() {
        let until = until_line.filter(|_| at + 1 == rollouts.len());
        let (lines, found) =
            rollout_reader::read(file, bytes, until.unwrap_or(usize::MAX), redactor);
        all.extend(lines);
        problems.extend(found);
    }
    let files: Vec<&str> = rollouts.iter().map(|(file, _)| base_name(file)).collect();
    let mut session = rollout_session::read(&all)?;
    if session.exchanges.is_empty() {
        let file = rollouts.first().map_or("", |(file, _)| file);
        let message = "no line tells of a request to a model: there is nothing to replay";
        return Err(Problem::error(file, 0, message));
    }
    let source = format!(
        "Imported from {}; the streams are synthesized.",
        files.join(", ")
    );
    let source = redactor.text(&source).unwrap_or(source);
    let built = build_recording::build(name, &source, &session);
    problems.append(&mut session.problems);
    problems.extend(built.problems);
    Ok(Imported {
        recording: built.recording,
        items: built.items,
        problems,
        lines: all.len(),
    })
}

/// A file's name without its folders, which are private.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}
