//! Results as JSON lines, for machines: a header, one line per case, a summary.
//!
//! The form is versioned. Lines are written as cases end, so what a crash leaves behind has no
//! summary, and is whole up to its last line otherwise.

use std::io::{self, BufRead, Write};

use cutpoint_trace::AgentInfo;
use cutpoint_trace::case::{CaseResult, CaseStatus, UnmetExpectation};
use cutpoint_trace::verdict::RuleVerdict;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::summary::Summary;
use crate::{FileFormat, Reporter};

/// The name that stands in the header of every file of results.
pub const FORMAT_NAME: &str = "cutpoint-results";
/// The version of the format that this build writes, and the only one it reads.
pub const VERSION: u32 = 2;
/// The longest line that is read, in bytes.
pub const LINE_LIMIT_BYTES: u64 = 64 << 20;

/// `--json FILE`.
pub(crate) const FILE_FORMAT: FileFormat = FileFormat {
    option: "json",
    help: "Write the results as JSON lines to this file",
    open: |to, header, _| Ok(Box::new(JsonLines::new(to, header)?)),
};

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always [`FORMAT_NAME`].
    pub format: String,
    /// The format's version.
    pub version: u32,
    /// The version of cutpoint, and so of the rules.
    pub cutpoint: String,
    /// The seed of everything random in the run.
    pub seed: u64,
    /// Whether a breach of a SHOULD rule is a failure.
    pub strict: bool,
    /// How many cases the whole run has.
    pub cases: usize,
    /// A text that is the same in all parts of a run, and in those of no other one.
    pub plan: String,
    /// Which part of the run this is, such as `2/5`.
    pub shard: String,
}

impl Header {
    /// The header of a run that has no cases yet, and is no part of a larger one.
    pub fn new(seed: u64, strict: bool) -> Self {
        Self {
            format: FORMAT_NAME.to_owned(),
            version: VERSION,
            cutpoint: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            strict,
            cases: 0,
            plan: String::new(),
            shard: "1/1".to_owned(),
        }
    }
}

/// Every other line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResultLine {
    /// A case.
    Case(Box<CaseLine>),
    /// The run; the last line.
    Summary(Summary),
}

/// A case without its trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseLine {
    /// Its number in the whole run, counted from 1.
    pub number: usize,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's file, as the user named it.
    pub file: String,
    /// The line on which the scenario starts.
    pub line: usize,
    /// What a user would have seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The agent.
    pub agent: AgentInfo,
    /// The seed of everything random in the case.
    pub seed: u64,
    /// How it went, under the strictness that the header names.
    pub status: CaseStatus,
    /// Why the case was skipped, could not be run, or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// What each rule says, in the order of the rule book.
    pub verdicts: Vec<RuleVerdict>,
    /// The ids of rules that the scenario waives although they were not broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unneeded_waivers: Vec<String>,
    /// Expectations that were not met.
    pub unmet: Vec<UnmetExpectation>,
    /// The command that runs this case again.
    pub replay: String,
    /// Where the trace was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_path: Option<String>,
}

impl CaseLine {
    /// The line of a case.
    pub fn new(case: &CaseResult, strict: bool) -> Self {
        Self {
            number: case.number,
            scenario: case.scenario.clone(),
            file: case.file.clone(),
            line: case.line,
            about: case.about.clone(),
            agent: case.agent.clone(),
            seed: case.trace.header.seed,
            status: case.status(strict),
            note: case.note.clone(),
            // JSON has no word for what is no number.
            duration_ms: if case.duration_ms.is_finite() {
                case.duration_ms
            } else {
                0.0
            },
            verdicts: case.verdicts.clone(),
            unneeded_waivers: case
                .unneeded_waivers()
                .map(|verdict| verdict.rule.clone())
                .collect(),
            unmet: case.unmet.clone(),
            replay: case.replay.clone(),
            trace_path: case.trace_path.clone(),
        }
    }
}

/// Writes results as JSON lines.
pub struct JsonLines<W> {
    to: W,
    strict: bool,
}

impl<W: Write> JsonLines<W> {
    /// Starts a file of results with its header.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn new(mut to: W, header: &Header) -> io::Result<Self> {
        write_line(&mut to, header)?;
        Ok(Self {
            to,
            strict: header.strict,
        })
    }
}

impl<W: Write> Reporter for JsonLines<W> {
    fn case(&mut self, case: &CaseResult) -> io::Result<()> {
        let line = ResultLine::Case(Box::new(CaseLine::new(case, self.strict)));
        write_line(&mut self.to, &line)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        write_line(&mut self.to, &ResultLine::Summary(summary.clone()))
    }
}

fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    // One write, so that a crash tears no line that the system has taken whole.
    to.write_all(&line)?;
    to.flush()
}

/// A file of results.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The first line.
    pub header: Header,
    /// The cases.
    pub cases: Vec<CaseLine>,
    /// The last line; absent if the run did not come to its end.
    pub summary: Option<Summary>,
}

/// Why a file of results could not be read. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the results: {0}")]
    Io(#[from] io::Error),
    /// There is no header.
    #[error("these are no results: the first line is not a {FORMAT_NAME} header ({0})")]
    NoHeader(String),
    /// Another version of the format.
    #[error("these results have format version {found}; this build reads version {VERSION}")]
    Version {
        /// The version in the header.
        found: u64,
    },
    /// A line that is neither a case nor a summary.
    #[error("line {line}: {message}")]
    Line {
        /// Which one.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl Results {
    /// Reads results, for instance those of several machines to be put together.
    ///
    /// # Errors
    /// If they cannot be read, are no results, have another version, or have a line that is neither
    /// a case nor the summary at the end.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReadError> {
        let first = read_line(&mut from, 1)?;
        let no_header = |error: serde_json::Error| ReadError::NoHeader(error.to_string());
        let value: Value = serde_json::from_str(&first).map_err(no_header)?;
        if value["format"] != FORMAT_NAME {
            let message = format!("`format` is {}", value["format"]);
            return Err(ReadError::NoHeader(message));
        }
        match value["version"].as_u64() {
            Some(found) if found == u64::from(VERSION) => {}
            Some(found) => return Err(ReadError::Version { found }),
            None => return Err(ReadError::NoHeader("it has no version".to_owned())),
        }
        let mut results = Self {
            header: serde_json::from_value(value).map_err(no_header)?,
            cases: Vec::new(),
            summary: None,
        };
        for number in 2.. {
            let text = read_line(&mut from, number)?;
            if text.is_empty() {
                break;
            }
            let at = |message: String| ReadError::Line {
                line: number,
                message,
            };
            if results.summary.is_some() {
                return Err(at("nothing may follow the summary".to_owned()));
            }
            match serde_json::from_str(&text).map_err(|error| at(error.to_string()))? {
                ResultLine::Case(case) => results.cases.push(*case),
                ResultLine::Summary(summary) => results.summary = Some(summary),
            }
        }
        Ok(results)
    }
}

impl Results {
    /// Writes results as they are read.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(self, mut to: impl Write) -> io::Result<()> {
        write_line(&mut to, &self.header)?;
        for case in self.cases {
            write_line(&mut to, &ResultLine::Case(Box::new(case)))?;
        }
        match self.summary {
            Some(summary) => write_line(&mut to, &ResultLine::Summary(summary)),
            None => Ok(()),
        }
    }
}

/// Why results can't be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They are of different runs.
    #[error(
        "{one} and {other} are parts of different runs: version, seed, --strict, agents, defects or scenarios differ"
    )]
    Different {
        /// The first file.
        one: String,
        /// The other one.
        other: String,
    },
    /// One has no end.
    #[error("{0} was interrupted: it has no summary; run that part again")]
    Interrupted(String),
    /// A case that no part has, or more than one.
    #[error(
        "case {number} of {cases} is in {parts} of the parts; run them again, to their end and with one build"
    )]
    Count {
        /// Its number.
        number: usize,
        /// How many there are.
        cases: usize,
        /// In how many parts it is.
        parts: &'static str,
    },
}

/// Merges the results of all parts of a run, each with the name of its file. The duration of the
/// whole is the sum over its parts.
///
/// # Errors
/// If they are not parts of one run, or do not make up all of it.
pub fn merge(parts: Vec<(String, Results)>) -> Result<Results, MergeError> {
    let mut merged: Option<(String, Results)> = None;
    for (name, part) in parts {
        let Some(summary) = &part.summary else {
            return Err(MergeError::Interrupted(name));
        };
        let took_ms = summary.duration_ms;
        let Some((one, whole)) = &mut merged else {
            let mut first = part;
            first.header.shard = "1/1".to_owned();
            merged = Some((name, first));
            continue;
        };
        let shard = whole.header.shard.clone();
        if (Header {
            shard,
            ..part.header
        }) != whole.header
        {
            let one = one.clone();
            return Err(MergeError::Different { one, other: name });
        }
        whole.cases.extend(part.cases);
        if let Some(summary) = &mut whole.summary {
            summary.duration_ms += took_ms;
        }
    }
    let Some((_, mut whole)) = merged else {
        return Err(MergeError::Interrupted("what was given".to_owned()));
    };
    whole.cases.sort_by_key(|case| case.number);
    let mut summary = Summary::new(whole.header.seed, whole.header.strict);
    for (case, number) in whole.cases.iter().zip(1..) {
        if case.number != number {
            return Err(not_once(whole.header.cases, number, case.number));
        }
        summary.count(case.status, &case.verdicts, case.duration_ms);
    }
    if whole.cases.len() != whole.header.cases {
        let number = whole.cases.len() + 1;
        return Err(not_once(whole.header.cases, number, usize::MAX));
    }
    summary.duration_ms = whole.summary.map_or(0.0, |summed| summed.duration_ms);
    whole.summary = Some(summary);
    Ok(whole)
}

/// The case of that number should come next, and `found` does.
fn not_once(cases: usize, number: usize, found: usize) -> MergeError {
    let (number, parts) = if found < number {
        (found, "more than one")
    } else {
        (number, "none")
    };
    MergeError::Count {
        number,
        cases,
        parts,
    }
}

/// The next line with its end; empty at the end of the file.
fn read_line(from: &mut impl BufRead, number: usize) -> Result<String, ReadError> {
    let mut line = String::new();
    let read = io::Read::take(&mut *from, LINE_LIMIT_BYTES).read_line(&mut line)?;
    if read as u64 == LINE_LIMIT_BYTES {
        return Err(ReadError::Line {
            line: number,
            message: format!("longer than {LINE_LIMIT_BYTES} bytes"),
        });
    }
    Ok(line)
}
