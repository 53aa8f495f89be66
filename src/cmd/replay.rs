//! `cutpoint replay`

mod process;
mod recording;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{Place, ScheduledAct, Token, TokenError, fingerprint, trace_digest};
use cutpoint_trace::case::CaseResult;

use super::run::read_scenarios;
use crate::agent_spec::AgentSpec;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, files};
use cutpoint::executor::lab::{LabExecutor, Purpose};
use cutpoint::executor::of_verdict;

/// Arguments of `cutpoint replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A recording is replayed by the turns that its requests show. Items that differ from the recorded
ones are shown, and give exit code 1; ids, times and instructions make no difference."
)]
pub struct Arguments {
    /// The token that `cutpoint sweep` printed, or a recording: its folder, or one .sse file.
    #[arg(value_name = "TOKEN|RECORDING")]
    what: Replayed,
    /// Scenario files, or directories of them, one of which is the token's.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Switch on a planted defect; may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// The agent that was swept or replays the recording, unless it is the reference agent in the lab.
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentSpec>,
    /// How often it is run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Store the trace in this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The directory of the recordings that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

/// What is to be replayed.
#[derive(Debug, Clone)]
enum Replayed {
    Schedule(Token),
    Recording(PathBuf),
}

impl FromStr for Replayed {
    type Err = TokenError;

    /// A token is known by its first letters. A text that is not a path either is reported as a token
    /// with a mistake.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_path = text.contains(['/', '.']) || Path::new(text).exists();
        if is_path && !text.starts_with("cp") {
            return Ok(Self::Recording(PathBuf::from(text)));
        }
        match text.parse() {
            // A folder may have such a name.
            Err(TokenError::Form(_)) if is_path => Ok(Self::Recording(PathBuf::from(text))),
            token => token.map(Self::Schedule),
        }
    }
}

/// Runs one schedule or one recorded session again.
pub fn run(arguments: &Arguments) -> Outcome {
    let token = match &arguments.what {
        Replayed::Schedule(token) => token,
        Replayed::Recording(path) => return recording::run(arguments, path),
    };
    let planned = find(arguments, token.scenario)?;
    match &arguments.agent {
        Some(agent) => process::run(arguments, agent, token, &planned),
        None => in_lab(arguments, token, &planned),
    }
}

fn in_lab(arguments: &Arguments, token: &Token, planned: &Planned) -> Outcome {
    let at_gate = |act: &ScheduledAct| matches!(act.at, Place::Gate { .. });
    if token.schedule.acts.iter().any(at_gate) {
        return Err(Failure::usage(
            "the token is of an agent in another process; name it with --agent",
        ));
    }
    let scenario = token.schedule.applied_to(&planned.scenario).scenario;
    let executor = LabExecutor {
        defects: arguments.defects.clone(),
        file: planned.file.clone(),
        recordings: arguments.recordings.clone(),
        seed: token.seed,
        strict: true,
        plans: PlanCache::default(),
        purpose: Purpose::Traces,
    };
    say!("{scenario}\n")?;
    let mut first = None;
    for _ in 0..arguments.times {
        let (case, _) = executor
            .case(&scenario)
            .map_err(|error| Failure::trouble(error.to_string()))?;
        let digest = trace_digest(&case.trace.entries);
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
        for violation in of_verdict(verdict) {
            say!("\n{} {}", violation.rule, violation.message)?;
        }
    }
    store(arguments, &case)?;
    say!("\n{} runs, one trace ({digest:016x})", arguments.times)?;
    Ok(if failed {
        ExitCode::Breach
    } else {
        ExitCode::Conforms
    })
}

/// Stores the trace, if the user asked for it.
fn store(arguments: &Arguments, case: &CaseResult) -> Result<(), Failure> {
    let Some(file) = &arguments.trace else {
        return Ok(());
    };
    let mut bytes = Vec::new();
    let written = case.trace.write(&mut bytes);
    let written = written.and_then(|()| files::write_atomic(file, &bytes));
    written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))
}

/// The scenario with that fingerprint.
fn find(arguments: &Arguments, wanted: u64) -> Result<Planned, Failure> {
    let mut planned = read_scenarios(&arguments.paths)?.into_iter();
    planned.find(|one| fingerprint(&one.scenario) == wanted).ok_or_else(|| {
        Failure::usage(format!(
            "none of the scenarios is the token's ({wanted:016x}): it was changed since, or is in another file"
        ))
    })
}
