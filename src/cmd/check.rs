//! `cutpoint check`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cutpoint_check::file::RULES;
use cutpoint_report::layout::{Layout, Style, StyledLine};
use cutpoint_report::text;
use cutpoint_trace::verdict::Level;
use serde_json::json;

use crate::console::{self, complain, say};
use crate::exit_code::ExitCode;
use crate::inputs::{self, Input, Kind};
use crate::inspect::{CheckOptions, FileReport, Finding, UnreadReason, inspect};
use crate::interrupt::stop_on_signal;
use crate::{Failure, Outcome};

/// How many judged files may wait for one in front of them.
const AHEAD: usize = 256;
/// How often somebody looks whether the user has stopped it.
const LOOK: Duration = Duration::from_millis(20);
/// How long files at hand are waited for behind that.
const GRACE: Duration = Duration::from_millis(400);

/// Arguments of `cutpoint check`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint check ~/.codex/sessions                 every rollout of yours
  cutpoint check rollout.jsonl --strict            warnings count, too
  cutpoint check recordings traces/case.jsonl      recordings and traces
  ssh host cat rollout.jsonl | cutpoint check -    from standard input

Ctrl-C tells what was found so far, and ends with 4.

What a file is, its content tells. A rollout is judged by the rules that a file alone can break, a
recording by what makes it valid, a trace by the whole rule book. See docs/check.md.")]
pub struct Arguments {
    /// Files, or directories of them; `-` is standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Take every file for this, whatever it looks like.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Breaches of SHOULD rules and other warnings count as well.
    #[arg(long)]
    strict: bool,
    /// Warn of keys and tokens in rollouts, too; in recordings that is always done.
    #[arg(long)]
    secrets: bool,
    /// Print JSON lines: one object per finding, then a summary.
    #[arg(long)]
    json: bool,
    /// Print the last line alone.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// How many findings of a file are shown; the others are counted.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// How many threads work; as many as there are processors unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
}

/// Checks files.
pub fn run(arguments: &Arguments) -> Outcome {
    let stop = stop_on_signal()?;
    let inputs: Arc<[Input]> = inputs::find(&arguments.paths, &stop)?.into();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.map_or(processors, |jobs| jobs as usize);
    let begun = Instant::now();
    let mut total = Total::default();
    let pool = WorkerPool::start(arguments, jobs, &inputs, &stop);
    // Files are told in their order, whichever is ready first.
    let mut waiting: BTreeMap<usize, FileReport> = BTreeMap::new();
    let mut due = 0;
    while let Some((at, report)) = pool.next() {
        waiting.insert(at, report);
        while let Some(report) = waiting.remove(&due) {
            tell(arguments, &inputs[due].name(), &report)?;
            total.add(&report);
            due += 1;
        }
    }
    for at in due..pool.begun().min(inputs.len()) {
        match waiting.remove(&at) {
            Some(report) => {
                tell(arguments, &inputs[at].name(), &report)?;
                total.add(&report);
            }
            None => complain!("{}: {NOT_TO_ITS_END}", inputs[at].name()),
        }
    }
    total.interrupted |= stop.load(Ordering::Relaxed) && total.files < inputs.len() as u64;
    pool.finish();
    summary(arguments, &total, begun.elapsed())?;
    Ok(total.code(arguments.strict))
}

/// What is told of a file that was being read when the user stopped it.
const NOT_TO_ITS_END: &str = "not read to its end";

/// The threads that judge files.
struct WorkerPool {
    reports: mpsc::Receiver<(usize, FileReport)>,
    /// How many files were begun, or would have been if there were more.
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    fn start(
        arguments: &Arguments,
        jobs: usize,
        inputs: &Arc<[Input]>,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        let (send, reports) = mpsc::sync_channel(AHEAD);
        let next = Arc::new(AtomicUsize::new(0));
        let (kind, limit, secrets) = (arguments.kind, arguments.limit, arguments.secrets);
        let judge = |_| {
            let (send, next, inputs, stop) =
                (send.clone(), next.clone(), inputs.clone(), stop.clone());
            std::thread::spawn(move || {
                let options = CheckOptions {
                    kind,
                    limit,
                    secrets,
                    stop: &stop,
                };
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(at) else { return };
                    // Nobody listens any more if a line could not be printed.
                    if send.send((at, inspect(input, options))).is_err() {
                        return;
                    }
                }
            })
        };
        let threads = (0..jobs.min(inputs.len())).map(judge).collect();
        Self {
            reports,
            next,
            stop: stop.clone(),
            threads,
        }
    }

    /// The next file that was judged, in any order. Once stopped, what is at hand is waited for no longer
    /// than [`GRACE`]: a file may be large, and standard input silent.
    fn next(&self) -> Option<(usize, FileReport)> {
        let mut ends = None;
        loop {
            match self.reports.recv_timeout(LOOK) {
                Ok(report) => return Some(report),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                    let ends = ends.get_or_insert_with(|| Instant::now() + GRACE);
                    if Instant::now() >= *ends {
                        return None;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn begun(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    /// A thread that panicked ends the program as one; those that were left alone end with it.
    fn finish(self) {
        for thread in self.threads {
            if !self.stop.load(Ordering::Relaxed)
                && let Err(panic) = thread.join()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// What all files come to.
#[derive(Debug, Default)]
struct Total {
    files: u64,
    lines: u64,
    bytes: u64,
    /// Findings of each level, MUST and SHOULD.
    counts: [u64; 2],
    with_findings: u64,
    /// Files that could not be read, and files that are compressed.
    unreadable: u64,
    compressed: u64,
    /// How often each rule of a file was put to the test, over all rollouts.
    exercised: [u64; RULES.len()],
    rollouts: u64,
    interrupted: bool,
}

impl Total {
    fn add(&mut self, report: &FileReport) {
        self.files += 1;
        self.lines += report.lines;
        self.bytes += report.bytes;
        let sum = self.counts.iter_mut().zip(report.counts);
        sum.for_each(|(count, more)| *count += more);
        self.with_findings += u64::from(report.counts != [0, 0]);
        if let Some(tally) = &report.rollout {
            self.rollouts += 1;
            let sum = self.exercised.iter_mut().zip(tally.exercised);
            sum.for_each(|(count, more)| *count += more);
        }
        match &report.unread {
            Some(UnreadReason::Trouble(_)) => self.unreadable += 1,
            Some(UnreadReason::Compressed(_)) => self.compressed += 1,
            Some(UnreadReason::Stopped) => self.interrupted = true,
            None => {}
        }
    }

    fn code(&self, strict: bool) -> ExitCode {
        let [must, should] = self.counts;
        if self.interrupted || self.unreadable > 0 {
            ExitCode::Trouble
        } else if must > 0 || strict && should > 0 {
            ExitCode::Breach
        } else {
            ExitCode::Conforms
        }
    }
}

fn tell(arguments: &Arguments, name: &str, report: &FileReport) -> Result<(), Failure> {
    match &report.unread {
        Some(UnreadReason::Trouble(why)) => complain!("{name}: {why}"),
        Some(UnreadReason::Compressed(with)) => {
            complain!("{name}: not read: it is compressed ({with}); decompress it first");
        }
        Some(UnreadReason::Stopped) => complain!("{name}: {NOT_TO_ITS_END}"),
        None => {}
    }
    if arguments.quiet {
        return Ok(());
    }
    let mut layout = console::layout();
    for finding in &report.findings {
        if arguments.json {
            let mut value = json!({"format": FORMAT, "version": VERSION, "type": "finding"});
            if let (Some(value), Ok(serde_json::Value::Object(fields))) =
                (value.as_object_mut(), serde_json::to_value(finding))
            {
                value.extend(fields);
            }
            layout.line(StyledLine::default().then(Style::Plain, value.to_string()));
        } else {
            show(&mut layout, finding);
        }
    }
    let shown = report.findings.len() as u64;
    let more = report.counts.iter().sum::<u64>() - shown;
    if more > 0 && !arguments.json {
        let all = more + shown;
        layout.text(&format!("{name}: {more} more; --limit {all} shows all"));
    }
    console::print(&layout)
}

/// The name and the version of what `--json` prints.
const FORMAT: &str = "cutpoint-check";
const VERSION: u32 = 1;

fn show(layout: &mut Layout, finding: &Finding) {
    let mut place = finding.file.clone();
    for number in [finding.line, finding.column].into_iter().flatten() {
        place += &format!(":{number}");
    }
    let (style, level) = match finding.level {
        Level::Must => (Style::Failure, ""),
        Level::Should => (Style::Warning, " (warning)"),
    };
    let start = StyledLine::default()
        .then(Style::Emphasis, place)
        .then(Style::Plain, ": ")
        .then(style, format!("{}{level}", finding.rule))
        .then(Style::Plain, ": ");
    let byte = finding.byte.map(|byte| format!(" [byte {byte}]"));
    let text = format!("{}{}", finding.message, byte.unwrap_or_default());
    layout.paragraph(start, 4, Style::Plain, &text);
}

fn summary(arguments: &Arguments, total: &Total, took: Duration) -> Result<(), Failure> {
    let seconds = took.as_secs_f64().max(1e-9);
    let rate = total.bytes as f64 / 1e6 / seconds;
    let [must, should] = total.counts;
    let idle: Vec<&str> = RULES
        .iter()
        .zip(total.exercised)
        .filter(|(_, count)| *count == 0)
        .map(|(rule, _)| rule.id)
        .collect();
    if arguments.json {
        let exercised: BTreeMap<&str, u64> = RULES
            .iter()
            .map(|rule| rule.id)
            .zip(total.exercised)
            .collect();
        let summary = json!({
            "format": FORMAT, "version": VERSION, "type": "summary",
            "files": total.files, "lines": total.lines, "bytes": total.bytes,
            "must": must, "should": should, "files_with_findings": total.with_findings,
            "unreadable": total.unreadable, "compressed": total.compressed,
            "interrupted": total.interrupted, "exercised": exercised, "seconds": seconds,
        });
        return say!("{summary}");
    }
    if total.rollouts > 0 && !idle.is_empty() && !arguments.quiet {
        let mut layout = console::layout();
        let start = StyledLine::default().then(Style::Plain, "not exercised: ");
        layout.paragraph(start, 4, Style::Plain, &idle.join(", "));
        console::print(&layout)?;
    }
    let mut more = String::new();
    if should > 0 {
        more += &format!(", {} of them warnings", should);
    }
    for (count, what) in [
        (total.unreadable, "unreadable"),
        (total.compressed, "compressed and not read"),
    ] {
        if count > 0 {
            more += &format!("; {count} {what}");
        }
    }
    if total.interrupted {
        more += "; interrupted";
    }
    say!(
        "{}, {}, {} in {}{more} ({rate:.0} MB/s)",
        count(total.files, "file"),
        count(total.lines, "line"),
        count(must + should, "finding"),
        count(total.with_findings, "file"),
    )
}

/// A number of things that may be more than fit into memory.
fn count(number: u64, noun: &str) -> String {
    text::count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}
