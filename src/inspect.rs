//! Judging one file by itself: a rollout, a recording or a trace.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_check::file::{Checker, Tally};
use cutpoint_check::judge;
use cutpoint_recording::{LoadLimits, Recording, find_secrets, is_credential};
use cutpoint_trace::verdict::{Level, Verdict};
use cutpoint_trace::{ReadError, Trace};
use serde::Serialize;

use crate::inputs::{self, Content, Input, Kind};
use crate::line_reader::{InputLine, each_line};

/// The longest line that is read, in bytes.
pub const LINE_LIMIT_BYTES: usize = 64 << 20;

/// Something that is wrong with a file.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line, counted from 1; absent where it is the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The byte within the line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The byte within the file, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// The rule, or what it is that is no valid one of its kind.
    pub rule: String,
    /// The clause of the rule that was broken, by its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How much it weighs.
    pub level: Level,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// What is to be said of one file.
#[derive(Debug, Default)]
pub struct FileReport {
    /// What is wrong, as far as it is kept.
    pub findings: Vec<Finding>,
    /// How many findings of each level there are, MUST and SHOULD.
    pub counts: [u64; 2],
    /// How many lines were looked at.
    pub lines: u64,
    /// How many bytes were looked at.
    pub bytes: u64,
    /// How often each rule of a file was put to the test, where it is a rollout.
    pub rollout: Option<Tally>,
    /// Why it was not read, or not to its end, and whether that is trouble.
    pub unread: Option<UnreadReason>,
}

/// Why a file was not read, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum UnreadReason {
    /// It could not be.
    Trouble(String),
    /// It is compressed, by this program.
    Compressed(&'static str),
    /// The user stopped it.
    Stopped,
}

/// How files are judged.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions<'a> {
    /// What they are taken for, whatever they look like.
    pub kind: Option<Kind>,
    /// How many findings of a file are kept; the others are counted.
    pub limit: usize,
    /// Whether to look for keys and tokens in rollouts.
    pub secrets: bool,
    /// Set when no more is to be read.
    pub stop: &'a AtomicBool,
}

/// WorkerPool one file.
pub fn inspect(input: &Input, options: CheckOptions<'_>) -> FileReport {
    let name = input.name();
    let mut report = FileReport::default();
    let outcome = match (input, options.kind) {
        (Input::Lost(_, why), _) => Err(io::Error::other(why.clone())),
        (Input::Recording(path), None)
        | (Input::Recording(path) | Input::File(path), Some(Kind::Recording)) => {
            recording(path, options, &mut report);
            Ok(())
        }
        (Input::File(path) | Input::Recording(path), _) => {
            text(Some(path), &name, options, &mut report)
        }
        (Input::Stdin, Some(Kind::Recording)) => {
            let why =
                "a recording can't be read from standard input: name its folder or its .sse file";
            Err(io::Error::other(why))
        }
        (Input::Stdin, _) => text(None, &name, options, &mut report),
    };
    if let Err(error) = outcome {
        report.unread = Some(UnreadReason::Trouble(error.to_string()));
    }
    report
}

fn text(
    path: Option<&Path>,
    name: &str,
    options: CheckOptions<'_>,
    report: &mut FileReport,
) -> io::Result<()> {
    let opened = inputs::open(path)?;
    let kind = match (options.kind, opened.kind) {
        (_, Content::Compressed(with)) => {
            report.unread = Some(UnreadReason::Compressed(with));
            return Ok(());
        }
        (Some(Kind::Trace), _) | (None, Content::Trace) => Kind::Trace,
        _ => Kind::Rollout,
    };
    let mut counted = CountingReader {
        from: opened.content,
        bytes: 0,
        stop: options.stop,
    };
    let outcome = match kind {
        Kind::Trace => trace(&mut counted, name, options, report),
        _ => rollout(&mut counted, name, options, report),
    };
    report.bytes = counted.bytes;
    if outcome.is_err() && options.stop.load(Ordering::Relaxed) {
        report.unread = Some(UnreadReason::Stopped);
        return Ok(());
    }
    outcome
}

/// Counts the bytes that pass, until told to stop: a line may be as long as the file.
struct CountingReader<'a, R> {
    from: R,
    bytes: u64,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let read = self.from.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn rollout(
    from: &mut impl Read,
    name: &str,
    options: CheckOptions<'_>,
    report: &mut FileReport,
) -> io::Result<()> {
    let mut checker = Checker::default();
    let mut number = 0;
    let read = each_line(from, LINE_LIMIT_BYTES, |line, byte| {
        number += 1;
        if let (true, InputLine::Whole(text) | InputLine::Tail(text)) = (options.secrets, &line) {
            credentials(name, text, (number, byte), options, report);
        }
        match line {
            InputLine::Whole(line) => checker.line(line, byte),
            InputLine::Tail(line) => checker.tail(line, byte),
            InputLine::TooLong(bytes) => {
                let why = format!(
                    "the line has {bytes} bytes, more than the {LINE_LIMIT_BYTES} that are read of one; it \
                     was passed over"
                );
                checker.skipped(byte, &why);
            }
        }
        report.take(name, options, checker.findings());
        let stopped = options.stop.load(Ordering::Relaxed);
        if stopped {
            report.unread = Some(UnreadReason::Stopped);
        }
        !stopped
    });
    let (findings, tally) = checker.finish();
    if read.is_ok() && report.unread.is_none() {
        report.take(name, options, findings);
    }
    report.lines = tally.lines;
    report.rollout = Some(tally);
    // A marker's absence is told when the turn is over, and so behind what came later.
    report
        .findings
        .sort_by_key(|finding| (finding.line, finding.column));
    read
}

fn trace(
    from: &mut impl Read,
    name: &str,
    options: CheckOptions<'_>,
    report: &mut FileReport,
) -> io::Result<()> {
    let (trace, unreadable) = match Trace::read(io::BufReader::new(from)) {
        Ok(read) => read,
        Err(ReadError::Io(error)) => return Err(error),
        Err(error) => {
            report.add(
                options,
                Finding::whole(name, "TRACE", Level::Must, Some(1), error.to_string()),
            );
            return Ok(());
        }
    };
    report.lines = (trace.entries.len() + unreadable.len()) as u64 + 1;
    if !unreadable.is_empty() {
        for line in unreadable {
            let message = format!("the line is no entry of a trace: {}", line.message);
            let finding = Finding {
                column: Some(line.column),
                byte: Some(line.byte),
                ..Finding::whole(name, "TRACE", Level::Must, Some(line.line), message)
            };
            report.add(options, finding);
        }
        let why = "the rules were not asked: what is missing from a trace could be what they miss";
        report.add(
            options,
            Finding::whole(name, "TRACE", Level::Should, None, why.to_owned()),
        );
        return Ok(());
    }
    // The header is the first line.
    let line_of = |seq: u64| trace.entries.iter().position(|entry| entry.seq == seq);
    for verdict in judge(&trace)
        .into_iter()
        .filter(|verdict| verdict.waived.is_none())
    {
        match verdict.verdict {
            Verdict::Fail { breaches, .. } => {
                for breach in breaches {
                    let line = breach.evidence.last().and_then(|seq| line_of(*seq));
                    let line = line.map(|at| at as u64 + 2);
                    let message = breach.text().into_owned();
                    let whole = Finding::whole(name, &verdict.rule, verdict.level, line, message);
                    let kind = Some(breach.kind.into_owned());
                    report.add(options, Finding { kind, ..whole });
                }
            }
            Verdict::Unknown { why } => {
                let message = format!("{} can't be judged: {why}", verdict.rule);
                report.unread.get_or_insert(UnreadReason::Trouble(message));
            }
            Verdict::Pass { .. } | Verdict::NotExercised | Verdict::NotApplicable { .. } => {}
        }
    }
    Ok(())
}

fn recording(path: &Path, options: CheckOptions<'_>, report: &mut FileReport) {
    let problems = match Recording::load(path) {
        Ok(recording) => recording.validate(),
        Err(errors) => errors.problems,
    };
    let mut line_starts = LineStarts::default();
    for problem in problems {
        let level = match problem.is_error() {
            true => Level::Must,
            false => Level::Should,
        };
        let line = (problem.line > 0).then_some(problem.line as u64);
        let byte = line.and_then(|line| line_starts.byte(&problem.file, line));
        let finding = Finding {
            byte,
            ..Finding::whole(&problem.file, "RECORDING", level, line, problem.message)
        };
        report.add(options, finding);
    }
    for file in files_of(path) {
        if options.stop.load(Ordering::Relaxed) {
            report.unread = Some(UnreadReason::Stopped);
            return;
        }
        // What is larger was refused above, and is not read here either.
        let limit = LoadLimits::default().file_bytes;
        let is_small = fs::metadata(&file).is_ok_and(|file| file.len() <= limit);
        let Some(bytes) = is_small.then(|| fs::read(&file).ok()).flatten() else {
            continue;
        };
        report.bytes += bytes.len() as u64;
        report.lines += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        secrets(&file.display().to_string(), &bytes, options, report);
    }
}

/// Where the lines of a recording's files start.
#[derive(Default)]
struct LineStarts {
    file: String,
    starts: Vec<u64>,
}

impl LineStarts {
    /// The byte at which a line starts; problems come one file behind the other.
    fn byte(&mut self, file: &str, line: u64) -> Option<u64> {
        if self.file != file {
            file.clone_into(&mut self.file);
            self.starts = line_starts(&fs::read(file).ok()?, file.ends_with(".sse"));
        }
        let index = usize::try_from(line.checked_sub(1)?).ok()?;
        self.starts.get(index).copied()
    }
}

/// The byte at which each line starts. A stream's lines may also end with a carriage return alone.
fn line_starts(bytes: &[u8], stream: bool) -> Vec<u64> {
    let mut starts = vec![0];
    let breaks = memchr::memchr2_iter(b'\n', b'\r', bytes);
    let ends = breaks.filter(|at| {
        bytes[*at] == b'\n' || (stream && bytes.get(at + 1).is_some_and(|next| *next != b'\n'))
    });
    starts.extend(ends.map(|at| at as u64 + 1));
    starts
}

/// Warns of secrets that were left in a recording's file. What they say is not repeated.
fn secrets(name: &str, bytes: &[u8], options: CheckOptions<'_>, report: &mut FileReport) {
    let (mut line, mut line_start, mut from, mut start) = (1, 0, 0, 0);
    // What is no text stands between pieces of it, and moves no place.
    for piece in bytes.utf8_chunks() {
        for (kind, range) in find_secrets(piece.valid()) {
            let at = start + range.start;
            for offset in memchr::memchr_iter(b'\n', &bytes[from..at]) {
                line += 1;
                line_start = from + offset + 1;
            }
            from = at;
            let message = format!(
                "a secret was left in the recording: {kind}; record it again with redaction, or replace it"
            );
            let place = (line, (at - line_start) as u64, at as u64);
            report.add(options, Finding::secret(name, place, message));
        }
        start += piece.valid().len() + piece.invalid().len();
    }
}

/// Warns of what opens doors in a line of a rollout, which starts at this byte. Names and addresses are
/// no news there.
fn credentials(
    name: &str,
    text: &[u8],
    (line, start): (u64, u64),
    options: CheckOptions<'_>,
    report: &mut FileReport,
) {
    // LineStarts are told in lines of text alone; another line is a finding of its own.
    let found = std::str::from_utf8(text).map(find_secrets);
    for (kind, range) in found.into_iter().flatten() {
        if is_credential(kind) {
            let message = format!(
                "a secret stands in the rollout: {kind}; give away a `cutpoint import` of it in its place"
            );
            let column = range.start as u64;
            let place = (line, column, start + column);
            report.add(options, Finding::secret(name, place, message));
        }
    }
}

fn files_of(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

impl Finding {
    /// One at this line, byte of the line (from 0) and byte of the file.
    fn secret(file: &str, (line, column, byte): (u64, u64, u64), message: String) -> Self {
        Self {
            column: Some(column + 1),
            byte: Some(byte),
            ..Self::whole(file, "SECRET", Level::Should, Some(line), message)
        }
    }

    fn whole(file: &str, rule: &str, level: Level, line: Option<u64>, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line,
            column: None,
            byte: None,
            rule: rule.to_owned(),
            kind: None,
            level,
            message,
        }
    }
}

impl FileReport {
    fn take(
        &mut self,
        name: &str,
        options: CheckOptions<'_>,
        found: Vec<cutpoint_check::file::Finding>,
    ) {
        for found in found {
            self.add(
                options,
                Finding {
                    file: name.to_owned(),
                    line: Some(found.line),
                    column: Some(found.column),
                    byte: Some(found.byte),
                    rule: found.rule.to_owned(),
                    kind: Some(found.kind.to_owned()),
                    level: found.level,
                    message: found.message,
                },
            );
        }
    }

    fn add(&mut self, options: CheckOptions<'_>, finding: Finding) {
        self.counts[usize::from(finding.level == Level::Should)] += 1;
        if self.findings.len() < options.limit {
            self.findings.push(finding);
        }
    }
}
