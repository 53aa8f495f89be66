//! Instruction counts of hot paths, which do not depend on how busy the machine is.
//!
//! A benchmark starts itself again under `valgrind --tool=callgrind`, which counts the instructions of
//! one function, and compares the total with the one in `benches/instructions.json`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Makes a benchmark run its hot path once; given by [`guard`] only.
pub(crate) const RUN_FLAG: &str = "--run-hot-path";
/// What callgrind counts: this function and all that it calls.
const COUNTED: &str = "cutpoint_bench::instructions::counted*";
/// How far a count may be from the one in the tree, in percent.
const TOLERANCE_PERCENT: f64 = 5.0;
const UPDATE: &str = "cargo bench --workspace --bench '*' -- --instructions --update";

type Counts = BTreeMap<String, u64>;

/// A path through the code whose instructions are counted.
#[derive(Debug, Clone, Copy)]
pub struct HotPath {
    /// Its name in `benches/instructions.json`.
    pub name: &'static str,
    /// Prepares a fixed input and gives the work that is counted.
    pub prepare: fn() -> Box<dyn FnOnce()>,
}

/// How a count compares with the one in the tree.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Within,
    More,
    Less,
}

#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("valgrind is not installed")]
    NoValgrind,
    #[error("valgrind: {0}")]
    Io(#[from] std::io::Error),
    #[error("valgrind gave no count:\n{0}")]
    NoCount(String),
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {error}", path.display())]
    Json {
        path: PathBuf,
        error: serde_json::Error,
    },
}

/// Runs a hot path as valgrind watches it.
pub(crate) fn run(path: &HotPath) {
    let work = (path.prepare)();
    counted(work);
}

#[inline(never)]
fn counted(work: Box<dyn FnOnce()>) {
    work();
}

/// Counts a hot path's instructions, and compares the count with the one in the tree or writes it there.
pub(crate) fn guard(path: &HotPath, update: bool) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/instructions.json");
    let result = if update {
        write(path, &file)
    } else {
        compare(path, &file)
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ CountError::NoValgrind) => {
            println!("{}: skipped, {error}", path.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}: {error}", path.name);
            ExitCode::FAILURE
        }
    }
}

fn write(path: &HotPath, file: &Path) -> Result<bool, CountError> {
    let found = count()?;
    let mut counts = read(file)?;
    counts.insert(path.name.to_owned(), found);
    let json = serde_json::to_string_pretty(&counts).unwrap_or_default() + "\n";
    std::fs::write(file, json).map_err(|error| CountError::File {
        path: file.to_owned(),
        error,
    })?;
    println!("{}: {found} instructions, written", path.name);
    Ok(true)
}

fn compare(path: &HotPath, file: &Path) -> Result<bool, CountError> {
    let counts = read(file)?;
    let Some(&known) = counts.get(path.name) else {
        println!("{}: no count in {}; {UPDATE}", path.name, file.display());
        return Ok(false);
    };
    let found = count()?;
    let change = percent(found, known);
    print!("{}: {found} instructions, {change:+.2} %", path.name);
    match judge(change) {
        Change::Within => println!(),
        Change::Less => println!(", less than before: keep it with {UPDATE}"),
        Change::More => {
            println!(": MISSED, at most {TOLERANCE_PERCENT:+} %; if it is meant to be so: {UPDATE}")
        }
    }
    Ok(judge(change) != Change::More)
}

fn read(file: &Path) -> Result<Counts, CountError> {
    let path = file.to_owned();
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Counts::default()),
        read => read.map_err(|error| CountError::File {
            path: path.clone(),
            error,
        })?,
    };
    serde_json::from_str(&text).map_err(|error| CountError::Json { path, error })
}

/// Starts this benchmark again under callgrind.
fn count() -> Result<u64, CountError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([
            "--collect-atstart=no",
            &format!("--toggle-collect={COUNTED}"),
        ])
        .arg(std::env::current_exe()?)
        .arg(RUN_FLAG)
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => CountError::NoValgrind,
            _ => CountError::Io(error),
        })?;
    let text = String::from_utf8_lossy(&output.stderr);
    match collected(&text) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(CountError::NoCount(text.into_owned())),
    }
}

/// The count in what callgrind prints at its end: `==123== Collected : 4567`.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    let count: u64 = line.rsplit(' ').next()?.parse().ok()?;
    (count > 0).then_some(count)
}

fn percent(found: u64, known: u64) -> f64 {
    // The difference first: it is exact, so that the limit itself is within the limit.
    100.0 * (found as f64 - known as f64) / known as f64
}

fn judge(change_percent: f64) -> Change {
    if change_percent > TOLERANCE_PERCENT {
        Change::More
    } else if change_percent < -TOLERANCE_PERCENT {
        Change::Less
    } else {
        Change::Within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_the_limit() {
        let judged = |found| judge(percent(found, 1000));
        assert_eq!(judged(1050), Change::Within);
        assert_eq!(judged(1051), Change::More);
        assert_eq!(judged(950), Change::Within);
        assert_eq!(judged(949), Change::Less);
    }

    #[test]
    fn the_count_is_read_from_what_callgrind_prints() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(text), Some(123_456));
        // The counted function was not found, or the run died before its end.
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected("==7== Events : Ir\n"), None);
    }
}
