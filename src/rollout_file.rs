//! Reading a rollout's file; what is none is told apart, with what to do with it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use cutpoint_protocol::rollout::RolloutLine;
use serde_json::{Map, Value};

use crate::Failure;
use crate::cmd::run::quoted;
use crate::inputs::{self, Content};

/// Largest rollout that is read, in bytes.
const LIMIT_BYTES: u64 = 256 << 20;
/// How many lines are looked at to tell whose they are.
const LOOK_LINES: usize = 50;
/// What stands at the end of whatever else a file turned out to be.
const EXPECTED: &str =
    "expected a rollout, which is lines of JSON as Codex writes them below ~/.codex/sessions";

/// Reads a rollout of at most [`LIMIT_BYTES`].
pub fn read(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let name = path.display().to_string();
    let refused = |why: &str| Failure::usage(format!("{name}: {why}"));
    let failed = |error: io::Error| refused(&format!("cannot be read: {error}"));
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(refused(&folder(path)));
    }
    if !metadata.is_file() {
        return Err(refused(
            "is no regular file: store what it gives in one, and import that",
        ));
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(failed)?.take(LIMIT_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(refused(&format!(
            "is larger than the {} MiB that are imported at once: import its first lines, `head -n 100000`",
            LIMIT_BYTES >> 20
        )));
    }
    match other_than_a_rollout(path, &bytes) {
        Some(why) => Err(refused(&why)),
        None => Ok((name, bytes)),
    }
}

fn folder(path: &Path) -> String {
    if inputs::is_recording(path) {
        return format!("is a recording: {}", replay(path));
    }
    "is a directory: name the rollout's file, such as rollout-….jsonl in a folder of ~/.codex/sessions"
        .to_owned()
}

fn replay(recording: &Path) -> String {
    let shown = quoted(&recording.display().to_string());
    format!("run `cutpoint replay {shown}` to drive an agent through it; {EXPECTED}")
}

/// What a file is that holds no rollout, and what to do; `None` if it has a rollout's lines.
fn other_than_a_rollout(path: &Path, bytes: &[u8]) -> Option<String> {
    let shown = quoted(&path.display().to_string());
    match inputs::look(bytes) {
        Content::Compressed(with) => {
            return Some(format!(
                "is compressed: decompress it first, `{with} -dk {shown}`, and import what comes out"
            ));
        }
        Content::Trace => {
            return Some(format!(
                "is a trace of cutpoint: `cutpoint check {shown}` judges it; {EXPECTED}"
            ));
        }
        Content::Rollout => {}
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Some(format!("is empty; {EXPECTED}"));
    }
    let lines = || {
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter_map(|line| std::str::from_utf8(line).ok())
    };
    let objects: Vec<Map<String, Value>> = lines()
        .take(LOOK_LINES)
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let has = |object: &Map<String, Value>, names: &[&str]| {
        names.iter().all(|name| object.contains_key(*name))
    };
    if objects.iter().any(|it| has(it, &["sessionId", "uuid"])) {
        return Some(format!("is a transcript of Claude Code; {EXPECTED}"));
    }
    if lines().any(|line| RolloutLine::parse_any(line).is_ok()) {
        return None;
    }
    let folder = path.parent().filter(|above| *above != Path::new(""));
    let recording = replay(folder.unwrap_or(Path::new(".")));
    let document: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
    let part = [
        &["method", "path", "body"][..],
        &["status", "body"],
        &["format", "files"],
    ];
    Some(match document {
        Some(document) if part.iter().any(|names| has(&document, names)) => {
            format!("is one file of a recording: {recording}")
        }
        Some(_) => format!("is one JSON document; {EXPECTED}"),
        None if is_stream(bytes) => {
            format!("is a stream, one answer of a recording: {recording}")
        }
        None if bytes.contains(&0) || std::str::from_utf8(bytes).is_err() => {
            format!("is binary; {EXPECTED}")
        }
        None if !objects.is_empty() => {
            format!(
                "has lines of JSON in a form that is not known, of another agent maybe; {EXPECTED}"
            )
        }
        None => format!("is text without a line of JSON that could be a rollout's; {EXPECTED}"),
    })
}

fn is_stream(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b":"));
    first.is_some_and(|line| line.starts_with(b"event:") || line.starts_with(b"data:"))
}
