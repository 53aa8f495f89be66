//! The reports on a run, each in its format: the console's, the files that the user asked for, and
//! annotations where a CI system reads them.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use cutpoint_report::{
    Annotations, Console, Context, FileFormat, Header, Reporter, Summary, github,
};
use cutpoint_trace::case::CaseResult;
use indicatif::{ProgressBar, ProgressStyle};

use crate::files::{self, Draft};
use crate::report_files::ReportFiles;
use crate::{Failure, console};

/// All reports of a run, with a progress bar on a terminal.
pub struct Reports {
    reports: Vec<OpenReport>,
    summary: Summary,
    progress: ProgressBar,
}

struct OpenReport {
    name: String,
    reporter: Box<dyn Reporter>,
    /// The file that the report is written to, until it is whole.
    draft: Option<Draft>,
    /// Why the report is given up. The others are finished all the same.
    failed: Option<io::Error>,
}

impl OpenReport {
    fn stream(name: &str, reporter: impl Reporter + 'static) -> Self {
        Self {
            name: name.to_owned(),
            reporter: Box::new(reporter),
            draft: None,
            failed: None,
        }
    }

    /// A report in a file of its own, which takes its place when it is whole.
    fn file(
        format: &FileFormat,
        path: &Path,
        header: &Header,
        context: Context,
    ) -> Result<Self, Failure> {
        let open = || {
            let draft = Draft::create(path)?;
            let to = Box::new(BufWriter::new(draft.handle()?));
            let reporter = (format.open)(to, header, context)?;
            Ok(Self {
                name: path.display().to_string(),
                reporter,
                draft: Some(draft),
                failed: None,
            })
        };
        open().map_err(|error| files::failure(path, &error))
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Reporter) -> io::Result<()>) {
        if self.failed.is_some() {
            return;
        }
        match write(self.reporter.as_mut()) {
            // The reader of our output has seen enough; the exit code still has the result.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
    }

    /// Puts a whole report into its place. Returns what went wrong with it.
    fn keep(self) -> Option<String> {
        drop(self.reporter);
        let kept = match (self.failed, self.draft) {
            (Some(error), _) => Err(error),
            (None, Some(draft)) => draft.keep(),
            (None, None) => Ok(()),
        };
        kept.err().map(|error| format!("{}: {error}", self.name))
    }
}

/// What the reports need to know of a run's rules.
pub fn context(strict: bool) -> Context {
    Context {
        strict,
        sentence: |id| cutpoint_check::rule(id).map(cutpoint_check::Invariant::sentence),
    }
}

impl Reports {
    /// Opens every report, so that a file that cannot be written is reported before anything runs.
    /// `cases` is how many cases this part of the run has.
    pub fn open(
        header: &Header,
        files: &ReportFiles,
        verbose: bool,
        cases: usize,
    ) -> Result<Self, Failure> {
        let context = context(header.strict);
        let progress = progress(cases);
        let stdout = StdoutAboveBar {
            stdout: anstream::stdout(),
            progress: progress.clone(),
        };
        let console = Console::new(stdout, context)
            .width(console::report_width())
            .verbose(verbose);
        let mut reports = vec![OpenReport::stream("stdout", console)];
        for (format, path) in files.iter() {
            reports.push(OpenReport::file(format, path, header, context)?);
        }
        if github::in_actions() {
            let annotations = Annotations::new(io::stdout(), context);
            reports.push(OpenReport::stream("annotations", annotations));
        }
        Ok(Self {
            reports,
            summary: Summary::new(header.seed, header.strict),
            progress,
        })
    }

    /// Takes a case that has ended.
    pub fn case(&mut self, case: &CaseResult) {
        self.summary.add(case);
        for report in &mut self.reports {
            report.write(|reporter| reporter.case(case));
        }
        self.progress.inc(1);
    }

    /// Ends all reports. A report that could not be written is a failure, but the others are finished.
    pub fn finish(mut self, took: Duration) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.summary.duration_ms = took.as_secs_f64() * 1000.0;
        let mut failed = Vec::new();
        for mut report in self.reports {
            report.write(|reporter| reporter.finish(&self.summary));
            failed.extend(report.keep());
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::trouble(failed.join("\n")))
        }
    }
}

/// A bar on stderr where that is a terminal, nothing elsewhere.
fn progress(cases: usize) -> ProgressBar {
    let bar = ProgressBar::new(cases as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cases, {elapsed} ({eta} left)");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Standard output above the progress bar.
struct StdoutAboveBar {
    stdout: anstream::Stdout,
    progress: ProgressBar,
}

impl Write for StdoutAboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = &mut self.stdout;
        self.progress.suspend(|| stdout.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}
