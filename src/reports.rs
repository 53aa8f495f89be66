//! The reports that the user asked for, as one.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutpoint_check::outcome::Case;
use cutpoint_report::{Annotations, Console, Context, JsonLines, Junit, Reporter, Summary, github};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::files::{self, Draft};

/// What goes where.
pub struct Wanted<'a> {
    /// A JUnit report.
    pub junit: Option<&'a Path>,
    /// Results as JSON lines.
    pub json: Option<&'a Path>,
    /// Whether breaches of SHOULD rules are failures.
    pub strict: bool,
    /// The seed of the run.
    pub seed: u64,
    /// How many cases there will be.
    pub cases: usize,
}

/// All reports of a run, with a progress bar where somebody watches.
pub struct Reports {
    reporters: Vec<Named>,
    summary: Summary,
    progress: ProgressBar,
    json: Option<(Draft, PathBuf)>,
}

struct Named {
    name: String,
    reporter: Box<dyn Reporter>,
    /// Why nothing is told to it any more. The other reports are finished all the same.
    failed: Option<io::Error>,
}

impl Named {
    fn new(name: impl Into<String>, reporter: impl Reporter + 'static) -> Self {
        Self {
            name: name.into(),
            reporter: Box::new(reporter),
            failed: None,
        }
    }
}

/// A JUnit report that takes its place when it is whole.
struct JunitFile {
    report: Junit<'static>,
    draft: Option<Draft>,
}

impl Reporter for JunitFile {
    fn case(&mut self, case: &Case) -> io::Result<()> {
        self.report.case(case)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let text = self.report.render(summary)?;
        let Some(mut draft) = self.draft.take() else {
            return Ok(());
        };
        draft.write_all(text.as_bytes())?;
        draft.keep()
    }
}

fn sentence(id: &str) -> Option<&'static str> {
    cutpoint_check::rule(id).map(cutpoint_check::Invariant::sentence)
}

impl Reports {
    /// Opens every report; what can't be opened is told before anything is run.
    pub fn open(wanted: &Wanted<'_>) -> Result<Self, Failure> {
        let context = Context {
            strict: wanted.strict,
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
        );
        let mut reporters = vec![Named::new("stdout", console)];
        if let Some(path) = wanted.junit {
            let draft = Draft::create(path).map_err(|error| files::failure(path, &error))?;
            let report = JunitFile {
                report: Junit::new(path, context),
                draft: Some(draft),
            };
            reporters.push(Named::new(path.display().to_string(), report));
        }
        let mut json = None;
        if let Some(path) = wanted.json {
            let failed = |error: io::Error| files::failure(path, &error);
            let draft = Draft::create(path).map_err(failed)?;
            let file = draft.handle().map_err(failed)?;
            let lines = JsonLines::new(BufWriter::new(file), wanted.seed, wanted.strict);
            reporters.push(Named::new(
                path.display().to_string(),
                lines.map_err(failed)?,
            ));
            json = Some((draft, path.to_owned()));
        }
        if github::wanted() {
            reporters.push(Named::new(
                "annotations",
                Annotations::new(io::stdout(), context),
            ));
        }
        let summary = Summary::new(wanted.seed, wanted.strict);
        Ok(Self {
            reporters,
            summary,
            progress,
            json,
        })
    }

    /// Takes a case that has ended.
    pub fn case(&mut self, case: &Case) {
        self.summary.add(case);
        self.tell(|reporter| reporter.case(case));
        self.progress.inc(1);
    }

    /// Ends all reports. One that could not be written is a failure, but never at another's cost.
    pub fn finish(mut self, took: Duration) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.summary.duration_ms = took.as_secs_f64() * 1000.0;
        let summary = self.summary.clone();
        self.tell(|reporter| reporter.finish(&summary));
        let mut failed: Vec<String> = Vec::new();
        let mut json_is_whole = true;
        for Named {
            name, failed: why, ..
        } in &self.reporters
        {
            if let Some(error) = why {
                failed.push(format!("{name}: {error}"));
                json_is_whole &= self
                    .json
                    .as_ref()
                    .is_none_or(|(_, path)| *name != path.display().to_string());
            }
        }
        if let Some((draft, path)) = self.json.take_if(|_| json_is_whole)
            && let Err(error) = draft.keep()
        {
            failed.push(format!("{}: {error}", path.display()));
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::trouble(failed.join("\n")))
        }
    }

    fn tell(&mut self, mut tell: impl FnMut(&mut dyn Reporter) -> io::Result<()>) {
        for Named {
            reporter, failed, ..
        } in &mut self.reporters
        {
            if failed.is_some() {
                continue;
            }
            match tell(reporter.as_mut()) {
                // Whoever reads our output has seen enough; the exit code still tells the result.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => *failed = Some(error),
                Ok(()) => {}
            }
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
