//! The reports that the user asked for, as one.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;
use std::time::Duration;

use cutpoint_report::json_lines::Header;
use cutpoint_report::{Annotations, Console, Context, FileFormat, Reporter, Summary, github};
use cutpoint_trace::case::CaseResult;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::files::{self, Draft};
use crate::report_files::ReportFiles;

/// What goes where.
pub struct Wanted<'a> {
    /// Reports in files.
    pub files: &'a ReportFiles,
    /// Whether the console tells each case step by step.
    pub verbose: bool,
    /// What run it is.
    pub header: Header,
    /// How many cases there will be: of a part of a run, its own.
    pub cases: usize,
}

/// All reports of a run, with a progress bar where somebody watches.
pub struct Reports {
    reporters: Vec<Named>,
    summary: Summary,
    progress: ProgressBar,
}

struct Named {
    name: String,
    reporter: Box<dyn Reporter>,
    /// The file that the report is written to, until it is whole.
    draft: Option<Draft>,
    /// Why nothing is told to it any more. The other reports are finished all the same.
    failed: Option<io::Error>,
}

impl Named {
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
        context: Context<'static>,
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

    fn tell(&mut self, tell: &mut dyn FnMut(&mut dyn Reporter) -> io::Result<()>) {
        if self.failed.is_some() {
            return;
        }
        match tell(self.reporter.as_mut()) {
            // Whoever reads our output has seen enough; the exit code still tells the result.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
    }

    /// Puts a whole report into its place; gives what went wrong with it until then.
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

/// The sentence of a rule.
pub fn sentence(id: &str) -> Option<&'static str> {
    cutpoint_check::rule(id).map(cutpoint_check::Invariant::sentence)
}

impl Reports {
    /// Opens every report; what can't be opened is told before anything is run.
    pub fn open(wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let context = Context {
            strict: wanted.header.strict,
            sentence: &sentence,
        };
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let progress = progress(wanted.cases);
        let console = Console::new(
            Above {
                stdout,
                progress: progress.clone(),
            },
            colour,
            context,
        )
        .verbose(wanted.verbose);
        let mut reporters = vec![Named::stream("stdout", console)];
        for (format, path) in wanted.files.iter() {
            reporters.push(Named::file(format, path, &wanted.header, context)?);
        }
        if github::wanted() {
            let annotations = Annotations::new(io::stdout(), context);
            reporters.push(Named::stream("annotations", annotations));
        }
        let summary = Summary::new(wanted.header.seed, wanted.header.strict);
        Ok(Self {
            reporters,
            summary,
            progress,
        })
    }

    /// Takes a case that has ended.
    pub fn case(&mut self, case: &CaseResult) {
        self.summary.add(case);
        for named in &mut self.reporters {
            named.tell(&mut |reporter| reporter.case(case));
        }
        self.progress.inc(1);
    }

    /// Ends all reports. One that could not be written is a failure, but never at another's cost.
    pub fn finish(mut self, took: Duration) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.summary.duration_ms = took.as_secs_f64() * 1000.0;
        let mut failed = Vec::new();
        for mut named in self.reporters {
            named.tell(&mut |reporter| reporter.finish(&self.summary));
            failed.extend(named.keep());
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
struct Above {
    stdout: Stdout,
    progress: ProgressBar,
}

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.suspend(|| self.stdout.lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.lock().flush()
    }
}
