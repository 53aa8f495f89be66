//! The reports that the user asked for, as one.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutpoint_check::outcome::Case;
use cutpoint_report::{Annotations, Console, Context, JsonLines, Junit, Reporter, Summary, github};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

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
    reporters: Vec<(String, Box<dyn Reporter>)>,
    summary: Summary,
    progress: ProgressBar,
    json: Option<Pending>,
}

/// A file that is written beside its place, and moved there when it is whole.
struct Pending {
    temporary: tempfile::NamedTempFile,
    place: PathBuf,
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
        let mut reporters: Vec<(String, Box<dyn Reporter>)> =
            vec![("stdout".to_owned(), Box::new(console))];
        if let Some(path) = wanted.junit {
            check_directory(path)?;
            reporters.push((
                path.display().to_string(),
                Box::new(Junit::new(path, context)),
            ));
        }
        let mut json = None;
        if let Some(path) = wanted.json {
            let failed = |error: io::Error| Failure::usage(format!("{}: {error}", path.display()));
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let temporary = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
                .map_err(failed)?;
            let file: File = temporary.reopen().map_err(failed)?;
            let lines = JsonLines::new(BufWriter::new(file), wanted.seed, wanted.strict);
            reporters.push((path.display().to_string(), Box::new(lines.map_err(failed)?)));
            json = Some(Pending {
                temporary,
                place: path.to_owned(),
            });
        }
        if github::wanted() {
            let annotations = Annotations::new(io::stdout(), context);
            reporters.push(("annotations".to_owned(), Box::new(annotations)));
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
    pub fn case(&mut self, case: &Case) -> Result<(), Failure> {
        self.summary.add(case);
        self.tell(|reporter| reporter.case(case))?;
        self.progress.inc(1);
        Ok(())
    }

    /// Ends all reports.
    pub fn finish(mut self, took: Duration) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        self.summary.duration_ms = took.as_secs_f64() * 1000.0;
        let summary = self.summary.clone();
        self.tell(|reporter| reporter.finish(&summary))?;
        drop(self.reporters);
        if let Some(Pending { temporary, place }) = self.json {
            let failed =
                |error: io::Error| Failure::trouble(format!("{}: {error}", place.display()));
            temporary.as_file().sync_all().map_err(failed)?;
            temporary
                .persist(&place)
                .map_err(|error| failed(error.error))?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        mut tell: impl FnMut(&mut dyn Reporter) -> io::Result<()>,
    ) -> Result<(), Failure> {
        for (name, reporter) in &mut self.reporters {
            match tell(reporter.as_mut()) {
                // Whoever reads our output has seen enough; the exit code still tells the result.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(Failure::trouble(format!("{name}: {error}"))),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn check_directory(path: &Path) -> Result<(), Failure> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match directory {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(format!(
            "{}: there is no such directory",
            directory.display()
        ))),
        _ => Ok(()),
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
