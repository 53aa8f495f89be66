//! `cutpoint run`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutpoint_agent::Defect;
use cutpoint_check::rules;
use cutpoint_engine::driver::{Driver, START_LIMIT};
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::case::RequestTally;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_explore::{Shard, digest_of_text, fingerprint};
use cutpoint_report::Header;
use cutpoint_scenario::Diagnostics;
use cutpoint_scenario::ast::ScenarioFile;
use cutpoint_trace::case::CaseResult;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::agent_spec::{self, AgentSpec};
use crate::console::complain;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupts;
use crate::report_files::ReportFiles;
use crate::reports::Reports;
use crate::run_dir::RunDir;
use crate::shard::shard;
use crate::{Failure, Outcome, files, runtime};

/// No wait is longer than a day.
const LIMIT_MAX_SECONDS: u64 = 24 * 60 * 60;

/// Arguments of `cutpoint run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint run                                     every scenario, on the reference agent
  cutpoint run scenarios/tools --agent codex       one area, on the newest Codex installed here
  cutpoint run --defect marker-after-event         see what a breach looks like
  cutpoint run --junit report.xml --trace traces   in CI
  cutpoint run --shard 2/5 --json part-2.jsonl     a part; `cutpoint report merge` joins them")]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// The agent to drive; may be given several times (see `cutpoint agents`).
    #[arg(long = "agent", value_name = "AGENT", default_value = "reference")]
    agents: Vec<AgentSpec>,
    /// Switch on a planted defect of the reference agent (see `cutpoint defects`); may be given several
    /// times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Show each case as a person at the keyboard saw it, with the scenario's steps between.
    #[arg(short, long)]
    verbose: bool,
    /// Only scenarios whose name or file contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run the k-th of n parts of the cases only, counted from 1; `auto` takes both from the variables
    /// of the CI engine (docs/ci.md). `cutpoint report merge` puts the parts together.
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Store each case's trace in this directory.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    reports: ReportFiles,
    /// How many cases run at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// Upper bound of each single wait; a scenario's own `limit` goes before it [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    limit: Option<u64>,
    /// Upper bound of each step of an agent's start [default: --limit if given, else 30]
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    start_limit: Option<u64>,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=LIMIT_MAX_SECONDS)
}

impl Arguments {
    fn limit(&self) -> Duration {
        self.limit.map_or(WAIT_LIMIT, Duration::from_secs)
    }

    fn start_limit(&self) -> Duration {
        self.start_limit
            .or(self.limit)
            .map_or(START_LIMIT, Duration::from_secs)
    }
}

/// Runs scenarios.
pub fn run(arguments: &Arguments) -> Outcome {
    let planned = plan(arguments)?;
    agent_spec::check_defects(&arguments.defects, &arguments.agents)?;
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
        match parse(&name, &files::read_bounded(&file)?) {
            Ok(parsed) => planned.extend(parsed.scenarios.into_iter().map(|scenario| Planned {
                scenario,
                file: name.clone(),
            })),
            Err(diagnostics) => {
                complain!("{}", diagnostics.render(true));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        let files = if failed == 1 {
            "1 scenario file has"
        } else {
            &format!("{failed} scenario files have")
        };
        return Err(Failure::usage(format!("{files} mistakes; nothing was run")));
    }
    Ok(planned)
}

/// Parses a scenario file, whose waivers must be of rules that exist.
fn parse(name: &str, bytes: &[u8]) -> Result<ScenarioFile, Diagnostics> {
    let parsed = cutpoint_scenario::parse_bytes(name, bytes)?;
    let known: Vec<&str> = rules().iter().map(|rule| rule.id()).collect();
    let source = String::from_utf8_lossy(bytes);
    cutpoint_scenario::check_waivers(name, &source, &parsed, &known)?;
    Ok(parsed)
}

async fn run_all(arguments: &Arguments, planned: Vec<Planned>) -> Outcome {
    let mut interrupts = Interrupts::new()?;
    if let Some(directory) = &arguments.trace {
        let made = std::fs::create_dir_all(directory);
        made.map_err(|error| files::failure(directory, &error))?;
    }
    let shares = shares(arguments, &planned);
    let mut told = Told::new(arguments, &planned, &shares)?;
    let run_dir = RunDir::new()?;
    let work = async {
        let mut first = 0;
        for (agent, share) in arguments.agents.iter().zip(&shares) {
            let context = run_dir.context(arguments.start_limit(), &arguments.defects);
            let driver = agent.driver(&context).await?;
            let one = OneAgent {
                arguments,
                agent,
                driver,
                first,
            };
            one.run(share, run_dir.dir(), &mut told).await?;
            first += share.len();
        }
        Ok(())
    };
    let ended: Result<(), Failure> = tokio::select! {
        ended = work => ended,
        () = interrupts.next() => Err(Failure::trouble("interrupted; the cases that had ended are reported")),
    };
    // A second signal ends the program without waiting; what it started is killed all the same.
    tokio::select! {
        () = run_dir.clear() => {}
        () = interrupts.next() => run_dir.kill_now(),
    }
    run_dir.remove();
    let (code, finished) = told.finish();
    match (ended, finished) {
        (Ok(()), Ok(())) => Ok(code),
        (Err(failure), Ok(())) | (Ok(()), Err(failure)) => Err(failure),
        (Err(first), Err(second)) => Err(Failure {
            code: first.code.max(second.code),
            message: format!("{}\n{}", first.message, second.message),
        }),
    }
}

/// A case that falls to this part of the run.
struct Mine {
    /// Its number in the whole run, counted from 1.
    number: usize,
    planned: Planned,
}

/// What falls to this part, by agent: a case goes by its scenario's name and its agent, so that
/// nothing moves when another one changes, and wherever the files lie.
fn shares(arguments: &Arguments, planned: &[Planned]) -> Vec<Vec<Mine>> {
    let share = |(nth, agent): (usize, &AgentSpec)| {
        let first = nth * planned.len();
        let mine = |one: &Planned| {
            let case = format_args!("{agent}:{}", one.scenario.name);
            arguments.shard.takes(case)
        };
        let mine = planned.iter().enumerate().filter(|(_, one)| mine(one));
        mine.map(|(at, one)| Mine {
            number: first + at + 1,
            planned: one.clone(),
        })
        .collect()
    };
    arguments.agents.iter().enumerate().map(share).collect()
}

/// A text that is the same in each part of a run, and in no part of another one.
fn plan_in_words(arguments: &Arguments, planned: &[Planned]) -> String {
    let agents = arguments.agents.iter().map(|agent| format!("{agent}\n"));
    let defects = arguments.defects.iter().map(|defect| format!("{defect}\n"));
    let scenario = |one: &Planned| format!("{} {:016x}\n", one.file, fingerprint(&one.scenario));
    let scenarios = planned.iter().map(scenario);
    agents.chain(defects).chain(scenarios).collect()
}

/// What is told of the cases that have ended: always in the order of their files.
struct Told {
    reports: Reports,
    start: Instant,
    strict: bool,
    code: ExitCode,
    next: usize,
    /// Cases that ended before one ahead of them.
    waiting: BTreeMap<usize, CaseResult>,
    /// What became of the requests of cases that replay a recording.
    tally: RequestTally,
}

impl Told {
    fn new(
        arguments: &Arguments,
        planned: &[Planned],
        shares: &[Vec<Mine>],
    ) -> Result<Self, Failure> {
        let mut header = Header::new(arguments.seed, arguments.strict);
        header.cases = planned.len() * arguments.agents.len();
        header.plan = format!(
            "{:016x}",
            digest_of_text(&plan_in_words(arguments, planned))
        );
        header.shard = arguments.shard.to_string();
        let cases = shares.iter().map(Vec::len).sum();
        let reports = Reports::open(&header, &arguments.reports, arguments.verbose, cases)?;
        Ok(Self {
            reports,
            start: Instant::now(),
            strict: arguments.strict,
            code: ExitCode::Conforms,
            next: 0,
            waiting: BTreeMap::new(),
            tally: RequestTally::default(),
        })
    }

    fn add(&mut self, number: usize, case: CaseResult) {
        self.waiting.insert(number, case);
        while let Some(case) = self.waiting.remove(&self.next) {
            self.tell(&case);
            self.next += 1;
        }
    }

    fn tell(&mut self, case: &CaseResult) {
        self.code = self.code.max(ExitCode::of(case.status(self.strict)));
        self.reports.case(case);
    }

    /// Ends the reports, with the cases that waited for one that never ended.
    fn finish(mut self) -> (ExitCode, Result<(), Failure>) {
        for case in std::mem::take(&mut self.waiting).into_values() {
            self.tell(&case);
        }
        if self.tally != RequestTally::default() {
            complain!("requests of recordings: {}", self.tally);
        }
        (self.code, self.reports.finish(self.start.elapsed()))
    }
}

/// The run of all scenarios on one agent.
struct OneAgent<'a> {
    arguments: &'a Arguments,
    agent: &'a AgentSpec,
    driver: Arc<dyn Driver>,
    /// How many cases of this part come before its first one.
    first: usize,
}

impl OneAgent<'_> {
    async fn run(&self, share: &[Mine], dir: &Path, told: &mut Told) -> Result<(), Failure> {
        let trouble = |error: &dyn std::fmt::Display| Failure::trouble(error.to_string());
        let server = ReplayServer::start(ServerConfig::default())
            .await
            .map_err(|error| trouble(&error))?;
        let config = RunConfig {
            limit: self.arguments.limit(),
            seed: self.arguments.seed,
            recordings: self.arguments.recordings.clone(),
            dir: Some(dir.join(format!("agent-{}", self.first))),
            rules_only: false,
            judge: cutpoint_check::judge,
        };
        let runner = Arc::new(Runner::new(Arc::new(server), self.driver.clone(), config));
        let places = Arc::new(Semaphore::new(self.arguments.jobs as usize));
        let mut running = JoinSet::new();
        for (at, mine) in share.iter().enumerate() {
            let (runner, places, one) = (runner.clone(), places.clone(), mine.planned.clone());
            running.spawn(async move {
                let _place = places.acquire().await;
                (at, runner.run(&one).await)
            });
        }
        while let Some(joined) = running.join_next().await {
            let (at, mut case) = joined.map_err(|error| trouble(&error))?;
            case.number = share[at].number;
            case.replay = replay(self.arguments, self.agent, &share[at].planned);
            let stored = match &self.arguments.trace {
                Some(directory) => store_trace(directory, &mut case),
                None => Ok(()),
            };
            told.add(self.first + at, case);
            stored?;
        }
        self.driver.close().await;
        told.tally += runner.tally();
        Ok(())
    }
}

/// Stores a case's trace under a name that tells scenario and agent, and is free in this run.
fn store_trace(directory: &Path, case: &mut CaseResult) -> Result<(), Failure> {
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
        case.number,
        plain(&case.scenario),
        plain(&agent)
    );
    let path = directory.join(name);
    let failed = |error: std::io::Error| Failure::trouble(format!("{}: {error}", path.display()));
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
    if *agent != AgentSpec::default() {
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
    if let Some(limit) = arguments.limit {
        words.push(format!("--limit {limit}"));
    }
    if let Some(limit) = arguments.start_limit {
        words.push(format!("--start-limit {limit}"));
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
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
