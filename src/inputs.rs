//! Rollouts, recordings and traces that the user names: where they are, and which of them each is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_trace::FORMAT;
use walkdir::WalkDir;

use crate::Failure;

/// How much of a file is looked at to tell what it is, in bytes.
const LOOK_BYTES: usize = 64 << 10;
/// The file that makes a folder a recording.
const MANIFEST: &str = "recording.json";

/// What a file or a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A session's rollout: JSON lines.
    Rollout,
    /// A recording: a folder, or one .sse file.
    Recording,
    /// A trace, as `cutpoint run --trace` stores it.
    Trace,
}

/// One thing to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// A recording's folder, or its one stream.
    Recording(PathBuf),
    /// What could not be looked at, with the reason.
    Lost(PathBuf, String),
}

impl Input {
    /// What a path stands for by itself, without looking below it.
    pub fn named(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        if path.is_dir() || path.extension() == Some(OsStr::new("sse")) && path.is_file() {
            return Ok(Self::Recording(path.to_owned()));
        }
        if path.file_name() == Some(OsStr::new(MANIFEST)) && path.is_file() {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            return Ok(Self::Recording(folder.unwrap_or(Path::new(".")).to_owned()));
        }
        match fs::metadata(path) {
            Ok(_) => Ok(Self::File(path.to_owned())),
            Err(error) => Err(Failure::usage(format!("{}: {error}", path.display()))),
        }
    }

    /// As the user knows it.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) | Self::Recording(path) | Self::Lost(path, _) => {
                path.display().to_string()
            }
        }
    }
}

/// Everything among and below the paths that can be read, in a fixed order, each once; what was found
/// so far, when told to stop.
pub fn find(paths: &[PathBuf], stop: &AtomicBool) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.is_dir() && !is_recording(path) {
            below(path, &mut inputs, stop);
        } else {
            inputs.push(Input::named(path)?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    inputs.retain(|input| seen.insert(input.name()));
    if inputs.is_empty() && !stop.load(Ordering::Relaxed) {
        let names: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Failure::usage(format!(
            "there is no rollout, recording or trace in {}: none of .jsonl, .sse and {MANIFEST}",
            names.join(", ")
        )));
    }
    Ok(inputs)
}

fn below(folder: &Path, inputs: &mut Vec<Input>, stop: &AtomicBool) {
    let mut walk = WalkDir::new(folder).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_owned();
                let why = error
                    .io_error()
                    .map_or_else(|| error.to_string(), io::Error::to_string);
                inputs.push(Input::Lost(path, why));
                continue;
            }
        };
        let path = entry.path();
        if entry.file_type().is_dir() {
            if is_recording(path) {
                inputs.push(Input::Recording(path.to_owned()));
                walk.skip_current_dir();
            }
        } else if is_of_interest(path) {
            // A link counts as what it leads to; one that leads nowhere is told.
            match fs::metadata(path) {
                Ok(found) if !found.is_file() => {}
                Ok(_) if path.extension() == Some(OsStr::new("sse")) => {
                    inputs.push(Input::Recording(path.to_owned()));
                }
                Ok(_) => inputs.push(Input::File(path.to_owned())),
                Err(error) => inputs.push(Input::Lost(path.to_owned(), error.to_string())),
            }
        }
    }
}

/// Whether a folder is a recording: by its manifest, or by streams with numbers.
pub fn is_recording(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file() || folder.join("01.response.sse").is_file()
}

/// Whether a file below a folder is looked at. Compressed ones are, so that they can be told.
fn is_of_interest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".jsonl", ".jsonl.zst", ".jsonl.gz", ".sse"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// An open file, what it is by its first bytes, and how long it is where that is known.
pub struct Opened {
    /// The content, from its beginning.
    pub content: Box<dyn BufRead>,
    /// What it is.
    pub kind: Content,
}

/// What a file's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Lines, of a rollout as far as can be told.
    Rollout,
    /// A trace's header.
    Trace,
    /// Compressed, by this program.
    Compressed(&'static str),
}

/// Opens a file or standard input.
pub fn open(path: Option<&Path>) -> io::Result<Opened> {
    let source: Box<dyn Read> = match path {
        Some(path) => Box::new(File::open(path)?),
        None => Box::new(io::stdin()),
    };
    let mut content = Box::new(BufReader::with_capacity(LOOK_BYTES, source));
    let kind = look(content.fill_buf()?);
    Ok(Opened { content, kind })
}

/// What a file is, by its first bytes.
pub fn look(first: &[u8]) -> Content {
    if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Content::Compressed("zstd");
    }
    if first.starts_with(&[0x1f, 0x8b]) {
        return Content::Compressed("gzip");
    }
    let line = first
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let header = format!("\"format\":\"{FORMAT}\"");
    if memchr::memmem::find(line, header.as_bytes()).is_some_and(|at| at < 16) {
        return Content::Trace;
    }
    Content::Rollout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        assert_eq!(look(b""), Content::Rollout);
        assert_eq!(look(b"{\"timestamp\":\"t\""), Content::Rollout);
        assert_eq!(
            look(b"{\"format\":\"cutpoint-trace\",\"version\":1}\n{"),
            Content::Trace
        );
        let quoted =
            b"{\"timestamp\":\"t\",\"type\":\"x\",\"payload\":{\"format\":\"cutpoint-trace\"}}";
        assert_eq!(look(quoted), Content::Rollout);
        assert_eq!(
            look(&[0x28, 0xb5, 0x2f, 0xfd, 0]),
            Content::Compressed("zstd")
        );
        assert_eq!(look(&[0x1f, 0x8b]), Content::Compressed("gzip"));
    }
}
