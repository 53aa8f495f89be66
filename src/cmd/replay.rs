//! `cutpoint replay`

mod external;
mod recording;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::external::ExternalToken;
use cutpoint_explore::{Token, TokenError, digest, fingerprint};
use cutpoint_trace::case::CaseResult;

use super::run::read_scenarios;
use crate::agent_spec::AgentSpec;
use crate::exit_code::ExitCode;
use crate::out::say;
use crate::{Failure, Outcome, files};
use cutpoint::explorer::{self, LabExecutor, Purpose};

/// Arguments of `cutpoint replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A recording is replayed by the turns that its requests tell of; items that differ from the
recorded ones are shown, and give exit code 1. Ids, times and instructions don't count."
)]
pub struct Arguments {
    /// The token that `cutpoint sweep` printed, or a recording: its folder, or one .sse file.
    #[arg(value_name = "TOKEN|RECORDING")]
    what: Wanted,
    /// Scenario files, or directories of them, among which the token's is looked for.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Switch on a planted defect; may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// The agent that was swept, or is to replay the recording, if it is not the reference agent in the
    /// lab.
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentSpec>,
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

/// A token of a sweep of either kind.
#[derive(Debug, Clone)]
enum AnyToken {
    Lab(Token),
    External(ExternalToken),
}

/// What is to be replayed.
#[derive(Debug, Clone)]
enum Wanted {
    Token(AnyToken),
    Recording(PathBuf),
}

impl FromStr for Wanted {
    type Err = TokenError;

    /// A token says so by its first letters. What is no path either is told as a token with a mistake.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_path = text.contains(['/', '.']) || Path::new(text).exists();
        if is_path && !text.starts_with("cp") {
            return Ok(Self::Recording(PathBuf::from(text)));
        }
        match text.parse() {
            // A folder may have such a name.
            Err(TokenError::Form(_)) if is_path => Ok(Self::Recording(PathBuf::from(text))),
            token => token.map(Self::Token),
        }
    }
}

impl FromStr for AnyToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.starts_with("cpx") {
            text.parse().map(Self::External)
        } else {
            text.parse().map(Self::Lab)
        }
    }
}

/// Runs one schedule or one recorded session again.
pub fn run(arguments: &Arguments) -> Outcome {
    let token = match &arguments.what {
        Wanted::Token(token) => token,
        Wanted::Recording(path) => return recording::run(arguments, path),
    };
    match (token, &arguments.agent) {
        (AnyToken::External(token), _) => external::run(arguments, token),
        (AnyToken::Lab(token), None) => in_lab(arguments, token),
        (AnyToken::Lab(_), Some(_)) => Err(Failure::usage(
            "the token is of the reference agent in the lab; leave --agent out",
        )),
    }
}

fn in_lab(arguments: &Arguments, token: &Token) -> Outcome {
    let planned = find(arguments, token.scenario)?;
    let scenario = token.schedule.applied_to(&planned.scenario);
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
    store(arguments, &case)?;
    say!("\n{} runs, one trace ({digest:016x})", arguments.times)?;
    Ok(if failed {
        ExitCode::Breach
    } else {
        ExitCode::Conforms
    })
}

/// Stores the trace, if that is wanted.
fn store(arguments: &Arguments, case: &CaseResult) -> Result<(), Failure> {
    let Some(file) = &arguments.trace else {
        return Ok(());
    };
    let mut bytes = Vec::new();
    let written = case.trace.write(&mut bytes);
    let written = written.and_then(|()| files::write_atomic(file, &bytes));
    written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))
}

fn find(arguments: &Arguments, wanted: u64) -> Result<Planned, Failure> {
    let mut planned = read_scenarios(&arguments.paths)?.into_iter();
    planned.find(|one| fingerprint(&one.scenario) == wanted).ok_or_else(|| {
        Failure::usage(format!(
            "none of the scenarios is the token's ({wanted:016x}): it was changed since, or stands elsewhere"
        ))
    })
}
