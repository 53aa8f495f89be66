//! `cutpoint replay`

use std::path::PathBuf;

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plans::Plans;
use cutpoint_explore::{Token, digest, fingerprint};

use super::run::read_scenarios;
use crate::exit_code::ExitCode;
use crate::explorer::{self, LabExecutor, Purpose};
use crate::out::say;
use crate::{Failure, Outcome, files};

/// Arguments of `cutpoint replay`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The token that `cutpoint sweep` printed.
    token: Token,
    /// Scenario files, or directories of them, among which the token's is looked for.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Switch on a planted defect; may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// How often it is run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Store the trace in this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

/// Runs one schedule again.
pub fn run(arguments: &Arguments) -> Outcome {
    let token = &arguments.token;
    let planned = find(arguments)?;
    let scenario = token.schedule.applied_to(&planned.scenario);
    let executor = LabExecutor {
        defects: arguments.defects.clone(),
        file: planned.file.clone(),
        recordings: arguments.recordings.clone(),
        seed: token.seed,
        strict: true,
        plans: Plans::default(),
        purpose: Purpose::Traces,
    };
    say!("{scenario}\n")?;
    let mut first = None;
    for _ in 0..arguments.times {
        let (case, _) = executor
            .case(&scenario)
            .map_err(|error| Failure::trouble(error.to_string()))?;
        let digest = digest(&case.trace.entries);
        if first.as_ref().is_some_and(|(known, _)| *known != digest) {
            return Err(Failure::trouble(
                "two runs differ: the lab is not repeatable here",
            ));
        }
        first.get_or_insert((digest, case));
    }
    let Some((digest, case)) = first else {
        return Ok(ExitCode::Conforms);
    };
    for entry in &case.trace.entries {
        say!("{}", cutpoint_report::describe_entry(entry))?;
    }
    let mut failed = false;
    for verdict in case.breaches(true) {
        failed = true;
        for broken in explorer::breaches(verdict) {
            say!("\n{} {}", broken.rule, broken.message)?;
        }
    }
    if let Some(file) = &arguments.trace {
        let mut bytes = Vec::new();
        let written = case.trace.write(&mut bytes);
        let written = written.and_then(|()| files::write_atomic(file, &bytes));
        written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    }
    say!("\n{} runs, one trace ({digest:016x})", arguments.times)?;
    Ok(if failed {
        ExitCode::Breach
    } else {
        ExitCode::Conforms
    })
}

fn find(arguments: &Arguments) -> Result<Planned, Failure> {
    let wanted = arguments.token.scenario;
    let mut planned = read_scenarios(&arguments.paths)?.into_iter();
    planned.find(|one| fingerprint(&one.scenario) == wanted).ok_or_else(|| {
        Failure::usage(format!(
            "none of the scenarios is the token's ({wanted:016x}): it was changed since, or stands elsewhere"
        ))
    })
}
