//! `cutpoint mutate`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cutpoint::mutation::{self, MUTANT_LIMIT, MutationConfig, Score};
use cutpoint_agent::Defect;

use super::run::read_scenarios;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, console, files};

/// Arguments of `cutpoint mutate`.
#[derive(clap::Args)]
#[command(
    after_help = "Exits with 1 if a defect survives, if only other rules than its own catch it, or if the
correct agent fails a scenario."
)]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Only this planted defect; may be given several times (see `cutpoint defects`).
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Be done with a defect as soon as its own rule has caught it.
    #[arg(long)]
    quick: bool,
    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many threads work; as many as there are processors unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Upper bound of each single wait for an agent with a defect.
    #[arg(long, value_name = "SECONDS", default_value_t = MUTANT_LIMIT.as_secs())]
    limit: u64,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

/// Runs the defects.
pub fn run(arguments: &Arguments) -> Outcome {
    let start = Instant::now();
    let scenarios = read_scenarios(&arguments.paths)?;
    let given = arguments.jobs.map(|jobs| jobs as usize);
    let score = score(|dir, workers| MutationConfig {
        scenarios,
        defects: match arguments.defects.is_empty() {
            true => Defect::ALL.to_vec(),
            false => arguments.defects.clone(),
        },
        recordings: arguments.recordings.clone(),
        dir,
        workers: given.unwrap_or(workers),
        limit: Duration::from_secs(arguments.limit),
        until_caught: arguments.quick,
    })?;
    console::print(&mutation::table(&score, console::width()))?;
    say!("took {:.1} s", start.elapsed().as_secs_f64())?;
    if let Some(file) = &arguments.json {
        let text = format!("{:#}\n", mutation::json(&score));
        files::write_atomic(file, text.as_bytes())
            .map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    }
    Ok(if score.is_full() {
        ExitCode::Conforms
    } else {
        ExitCode::Breach
    })
}

/// Runs what is asked for in a directory that is gone afterwards, with a worker per processor.
pub(super) fn score(
    config: impl FnOnce(PathBuf, usize) -> MutationConfig,
) -> Result<Score, Failure> {
    let trouble = |error: std::io::Error| Failure::trouble(error.to_string());
    let dir = tempfile::Builder::new()
        .prefix("cutpoint-")
        .tempdir()
        .map_err(trouble)?;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    mutation::run(&config(dir.path().to_owned(), workers)).map_err(trouble)
}
