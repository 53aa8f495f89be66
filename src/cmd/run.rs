//! `cutpoint run`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutpoint_agent::Defect;
use cutpoint_check::outcome::Case;
use cutpoint_engine::driver::Driver;
use cutpoint_engine::process::{self, Belongs};
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::agent_spec::AgentSpec;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupts;
use crate::reports::{Reports, Wanted};
use crate::{Failure, Outcome, files, runtime};

/// How long processes of the run may take to go when they are killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Arguments of `cutpoint run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint run                                     every scenario, on the reference agent
  cutpoint run scenarios/tools --agent codex       one area, on the newest Codex installed here
  cutpoint run --defect marker-after-event         see what a breach looks like
  cutpoint run --junit report.xml --trace traces   in CI")]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// The agent to drive; may be given several times (see `cutpoint agents`).
    #[arg(long = "agent", value_name = "AGENT", default_value = "reference")]
    agents: Vec<AgentSpec>,
    /// Switch on a planted defect of the reference agent; may be given several times.
    #[arg(long = "defect", value_name = "NAME")]
    defects: Vec<Defect>,
    /// Only scenarios whose name or file contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Store each case's trace in this directory.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Write a JUnit report to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as JSON lines to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many cases run at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// Upper bound of each single wait; a scenario's own `limit` goes before it.
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_LIMIT.as_secs())]
    limit: u64,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

/// Runs scenarios.
pub fn run(arguments: &Arguments) -> Outcome {
    let planned = plan(arguments)?;
    if !arguments.defects.is_empty() && !arguments.agents.iter().all(AgentSpec::takes_defects) {
        return Err(Failure::usage(
            "--defect goes with --agent reference or reference-stdio",
        ));
    }
    runtime()?.block_on(run_all(arguments, planned))
}

/// Reads every file before anything is run; a mistake in any of them ends the command.
fn plan(arguments: &Arguments) -> Result<Vec<Planned>, Failure> {
    let mut planned = read_scenarios(&arguments.paths)?;
    if let Some(only) = &arguments.only {
        planned.retain(|one| one.scenario.name.contains(only) || one.file.contains(only));
        if planned.is_empty() {
            return Err(Failure::usage(format!(
                "no scenario's name or file contains {only:?}"
            )));
        }
    }
    Ok(planned)
}

/// The scenarios among and below the paths. Every mistake in them is told.
pub(super) fn read_scenarios(paths: &[PathBuf]) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    let mut failed = 0;
    for file in files::scenario_files(paths)? {
        let name = file.display().to_string();
        match cutpoint_scenario::parse_bytes(&name, &files::read_bounded(&file)?) {
            Ok(parsed) => planned.extend(parsed.scenarios.into_iter().map(|scenario| Planned {
                scenario,
                file: name.clone(),
            })),
            Err(diagnostics) => {
                anstream::eprintln!("{}", diagnostics.render(true));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        return Err(Failure::usage(format!(
            "{failed} scenario files are not as they must be"
        )));
    }
    Ok(planned)
}

async fn run_all(arguments: &Arguments, planned: Vec<Planned>) -> Outcome {
    let start = Instant::now();
    let mut interrupts = Interrupts::new()?;
    let mark = uuid::Uuid::new_v4().to_string();
    let belongs = Belongs::Run(mark.clone());
    let _last_resort = LastResort(belongs.clone());
    let mut reports = Reports::open(&Wanted {
        junit: arguments.junit.as_deref(),
        json: arguments.json.as_deref(),
        strict: arguments.strict,
        seed: arguments.seed,
        cases: planned.len() * arguments.agents.len(),
    })?;
    let mut code = ExitCode::Conforms;
    let work = async {
        for agent in &arguments.agents {
            let driver = agent.driver(&arguments.defects, &mark).await?;
            let mut done = |case: &Case| {
                code = code.max(ExitCode::of(case.status(arguments.strict)));
                reports.case(case)
            };
            run_agent(arguments, &planned, agent, driver, &mut done).await?;
        }
        Ok(())
    };
    let ended: Result<(), Failure> = tokio::select! {
        ended = work => ended,
        () = interrupts.next() => Err(Failure::trouble("interrupted; the cases that had ended are reported")),
    };
    // A second signal ends the program without waiting; what it started is killed all the same.
    tokio::select! {
        _ = process::kill_all(&belongs, KILL_LIMIT) => {}
        () = interrupts.next() => process::kill_now(&belongs),
    }
    reports.finish(start.elapsed())?;
    ended.map(|()| code)
}

/// Kills whatever the run has started when the run is left in any other way than its end.
struct LastResort(Belongs);

impl Drop for LastResort {
    fn drop(&mut self) {
        process::kill_now(&self.0);
    }
}

async fn run_agent(
    arguments: &Arguments,
    planned: &[Planned],
    agent: &AgentSpec,
    driver: Arc<dyn Driver>,
    done: &mut dyn FnMut(&Case) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let trouble = |error: &dyn std::fmt::Display| Failure::trouble(error.to_string());
    let dir = tempfile::Builder::new()
        .prefix("cutpoint-")
        .tempdir()
        .map_err(|error| trouble(&error))?;
    let server = ReplayServer::start(ServerConfig::default())
        .await
        .map_err(|error| trouble(&error))?;
    let config = RunConfig {
        limit: Duration::from_secs(arguments.limit),
        seed: arguments.seed,
        recordings: arguments.recordings.clone(),
        dir: dir.path().to_owned(),
    };
    let runner = Arc::new(Runner::new(Arc::new(server), driver.clone(), config));
    let places = Arc::new(Semaphore::new(arguments.jobs as usize));
    let mut running = JoinSet::new();
    for (number, one) in planned.iter().enumerate() {
        let (runner, places, one) = (runner.clone(), places.clone(), one.clone());
        running.spawn(async move {
            let _place = places.acquire().await;
            (number, runner.run(&one).await)
        });
    }
    // Cases are told in the order of their files, however they end.
    let mut waiting = std::collections::BTreeMap::new();
    let mut next = 0;
    while let Some(joined) = running.join_next().await {
        let (number, mut case) = joined.map_err(|error| trouble(&error))?;
        case.replay = replay(arguments, agent, &planned[number]);
        if let Some(directory) = &arguments.trace {
            store_trace(directory, number, &mut case)?;
        }
        waiting.insert(number, case);
        while let Some(case) = waiting.remove(&next) {
            done(&case)?;
            next += 1;
        }
    }
    driver.close().await;
    Ok(())
}

/// Stores a case's trace under a name that tells scenario and agent, and is free in this run.
fn store_trace(directory: &Path, number: usize, case: &mut Case) -> Result<(), Failure> {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .collect()
    };
    let agent = format!(
        "{}-{}-{}",
        case.agent.name, case.agent.version, case.agent.driver
    );
    let name = format!(
        "{:03}-{}-{}.jsonl",
        number + 1,
        plain(&case.scenario),
        plain(&agent)
    );
    let path = directory.join(name);
    let failed = |error: std::io::Error| Failure::trouble(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut bytes = Vec::new();
    case.trace.write(&mut bytes).map_err(failed)?;
    files::write_atomic(&path, &bytes).map_err(failed)?;
    case.trace_path = Some(path.display().to_string());
    Ok(())
}

/// The command that runs one case again.
fn replay(arguments: &Arguments, agent: &AgentSpec, planned: &Planned) -> String {
    let mut words = vec!["cutpoint run".to_owned(), quoted(&planned.file)];
    words.push(format!("--only {}", quoted(&planned.scenario.name)));
    if *agent != AgentSpec::Reference {
        words.push(format!("--agent {}", quoted(&agent.to_string())));
    }
    words.extend(
        arguments
            .defects
            .iter()
            .map(|defect| format!("--defect {}", defect.name())),
    );
    if arguments.seed != 0 {
        words.push(format!("--seed {}", arguments.seed));
    }
    if arguments.recordings != Path::new("recordings") {
        words.push(format!(
            "--recordings {}",
            quoted(&arguments.recordings.display().to_string())
        ));
    }
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
