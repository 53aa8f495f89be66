//! `cutpoint fuzz`

mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{
    Budget, Executor, FailureKey, Finding, Fuzz, FuzzEvent, FuzzOutcome, Shard, Violation,
};

use store::{FailureStore, store};

use super::run::read_scenarios;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::interrupt::stop_on_signal;
use crate::progress::{Progress, Until};
use crate::shard::shard;
use crate::{Failure, Outcome, sweep_report};
use cutpoint::executor::lab::{LabExecutor, Purpose};

/// Arguments of `cutpoint fuzz`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint fuzz --time 10m                                   search for ten minutes
  cutpoint fuzz --runs 20000 --seed 7 --jobs 1               the same runs each time
  cutpoint fuzz --scenario scenarios/tools/tool-running.kdl  schedules of one scenario only
  cutpoint fuzz --time 5s --defect abort-twice               see it find something")]
pub struct Arguments {
    /// How long to search, like 90s, 10m or 8h; a minute if there is no --runs either.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "runs")]
    time: Option<Duration>,
    /// How many runs to make.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Search as the k-th of n machines, counted from 1, each with a seed of its own;
    /// `auto` takes both from the variables of the CI engine (docs/ci.md).
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Draw schedules of the scenarios of this file. Without it, scenarios are drawn as well.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// The directory in which failures are stored as scenario files. Those in it run first.
    #[arg(long, value_name = "DIR", default_value = "found")]
    out: PathBuf,
    /// Store each run that fails as it was run, too, below `every` in the directory for failures, so that
    /// a whole search can be judged again when the agent or a rule has changed.
    #[arg(long)]
    every: bool,
    /// Switch on a planted defect (see `cutpoint defects`); may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// How many threads run schedules; as many as there are processors unless given. What is drawn
    /// depends on their number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// The directory of the recordings that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
}

fn time(text: &str) -> Result<Duration, String> {
    let read = || {
        let (number, unit_s) = [("s", 1), ("m", 60), ("h", 3600)]
            .into_iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
        let seconds = number.parse::<u64>().ok()?.checked_mul(unit_s)?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    };
    read().ok_or_else(|| format!("`{text}` is not a time; a time looks like 90s, 10m or 8h"))
}

/// Fuzzes.
pub fn run(arguments: &Arguments) -> Outcome {
    let bases = match &arguments.scenario {
        Some(file) => {
            let planned = read_scenarios(std::slice::from_ref(file))?;
            planned.into_iter().map(Some).collect()
        }
        None => vec![None],
    };
    let stop = stop_on_signal()?;
    let mut all = Totals::default();
    let mut known = all.replay_found(arguments)?;
    let failed_before = known.len();
    for base in &bases {
        if all.interrupted {
            break;
        }
        all.fuzz(
            arguments,
            base.as_ref(),
            bases.len() as u32,
            &stop,
            &mut known,
        )?;
    }
    let part = if arguments.shard.is_part() {
        format!(", part {}", arguments.shard)
    } else {
        String::new()
    };
    if let Some((count, why)) = &all.errors {
        say!("\n{count} runs showed nothing about the agent; the first one: {why}")?;
    }
    say!(
        "\n{} runs in {:.1} s ({:.0}/s), {} distinct traces, {} kinds of failure (seed {}{part}, {} threads)",
        all.runs,
        all.elapsed.as_secs_f64(),
        all.runs as f64 / all.elapsed.as_secs_f64().max(0.001),
        all.traces,
        all.findings,
        arguments.seed,
        threads(arguments)
    )?;
    Ok(if all.findings + failed_before > 0 {
        ExitCode::Breach
    } else if all.interrupted || all.file_errors > 0 || all.errors.is_some() {
        ExitCode::Trouble
    } else {
        ExitCode::Conforms
    })
}

fn threads(arguments: &Arguments) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    arguments.jobs.map_or(processors, |jobs| jobs as usize)
}

fn executor(arguments: &Arguments, file: &str) -> LabExecutor {
    LabExecutor {
        defects: arguments.defects.clone(),
        file: file.to_owned(),
        recordings: arguments.recordings.clone(),
        seed: arguments.seed,
        strict: arguments.strict,
        plans: PlanCache::default(),
        purpose: Purpose::Traces,
    }
}

/// The ids of the rules that were violated, in order.
fn rules(violations: &[Violation]) -> Vec<String> {
    let key = FailureKey::of(violations);
    key.rules().into_iter().map(str::to_owned).collect()
}

/// What the command has shown.
#[derive(Default)]
struct Totals {
    runs: u64,
    traces: usize,
    findings: usize,
    /// Files of earlier failures that showed nothing about the agent.
    file_errors: usize,
    /// Runs that showed nothing about the agent, and why the first one did not.
    errors: Option<(usize, String)>,
    elapsed: Duration,
    interrupted: bool,
}

impl Totals {
    /// Runs the failures of earlier searches. Returns those that still fail.
    fn replay_found(&mut self, arguments: &Arguments) -> Result<Vec<Finding>, Failure> {
        let stored = std::slice::from_ref(&arguments.out);
        if arguments.out.exists() && !arguments.out.is_dir() {
            let out = arguments.out.display();
            return Err(Failure::usage(format!(
                "{out} is not a directory; name the one for failures with --out"
            )));
        }
        // A directory without a scenario is where the first failure will be stored.
        let is_scenario = |path: &Path| path.extension().is_some_and(|end| end == "kdl");
        let mut files = walkdir::WalkDir::new(&arguments.out).into_iter();
        if !files.any(|entry| entry.is_ok_and(|entry| is_scenario(entry.path()))) {
            return Ok(Vec::new());
        }
        let mut known: Vec<Finding> = Vec::new();
        for planned in read_scenarios(stored)? {
            let result = executor(arguments, &planned.file).run(&planned.scenario);
            let rules = rules(&result.violations);
            match (&result.error, rules.is_empty()) {
                (Some(error), _) => {
                    self.file_errors += 1;
                    say!("{}: {error}", planned.file)?;
                }
                (None, true) => say!("{}: holds now", planned.file)?,
                (None, false) => {
                    say!("{}: still breaks {}", planned.file, rules.join(" and "))?;
                    let key = FailureKey::of(&result.violations);
                    let same = |it: &Finding| FailureKey::of(&it.violations) == key;
                    if !known.iter().any(same) {
                        known.push(Finding {
                            violations: result.violations,
                            scenario: planned.scenario,
                            runs: 0,
                        });
                    }
                }
            }
        }
        Ok(known)
    }

    /// Fuzzes one scenario, or drawn ones, for its share of the time or the runs.
    fn fuzz(
        &mut self,
        arguments: &Arguments,
        base: Option<&Planned>,
        shares: u32,
        stop: &Arc<AtomicBool>,
        known: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        let shares = shares.max(1);
        let limit = match (arguments.time, arguments.runs) {
            (Some(time), _) => Some(time / shares),
            (None, None) => Some(Duration::from_secs(60) / shares),
            (None, Some(_)) => None,
        };
        let search = Fuzz {
            seed: arguments.shard.seed(arguments.seed),
            budget: arguments.runs.map_or(Budget::Endless, |runs| {
                Budget::Runs(runs.div_ceil(u64::from(shares)))
            }),
            workers: threads(arguments),
            scenario: base.map(|planned| planned.scenario.clone()),
            known: known.clone(),
        };
        let file = base.map_or("fuzz.kdl", |planned| &planned.file);
        let until = match search.budget {
            Budget::Runs(runs) => Some(Until::Count(runs)),
            Budget::Endless => limit.map(Until::Time),
        };
        let (progress, end) = (Progress::new(file, until), AtomicBool::new(false));
        let store = FailureStore::new(&arguments.out, arguments.every);
        let on_event = |event: FuzzEvent<'_>| {
            let over = limit.is_some_and(|limit| progress.elapsed() >= limit);
            if over || stop.load(Ordering::Relaxed) {
                end.store(true, Ordering::Relaxed);
            }
            match event {
                FuzzEvent::Ran { runs, findings } => progress.update(runs, None, findings),
                other => store.take(other),
            }
        };
        let found = search.run(&executor(arguments, file), &end, &on_event);
        self.elapsed += progress.elapsed();
        drop(progress);
        self.interrupted = stop.load(Ordering::Relaxed);
        let files = self.take(arguments, &found, known)?;
        store.keep(&files)
    }

    fn take(
        &mut self,
        arguments: &Arguments,
        found: &FuzzOutcome,
        known: &mut Vec<Finding>,
    ) -> Result<Vec<PathBuf>, Failure> {
        self.runs += found.runs;
        self.traces += found.traces;
        if let Some((count, why)) = &found.errors {
            self.errors.get_or_insert((0, why.clone())).0 += count;
        }
        let (before, new) = found
            .findings
            .split_at(known.len().min(found.findings.len()));
        for finding in before.iter().filter(|finding| finding.runs > 0) {
            let (rules, runs) = (rules(&finding.violations).join(" and "), finding.runs);
            say!("{rules} broken as before, in {runs} runs")?;
        }
        let mut files = Vec::new();
        for finding in new {
            self.findings += 1;
            files.push(show(arguments, finding)?);
            known.push(finding.clone());
        }
        Ok(files)
    }
}

/// Stores a finding and shows it. Returns its file.
fn show(arguments: &Arguments, finding: &Finding) -> Result<PathBuf, Failure> {
    let (scenario, file, _) = store(&arguments.out, &finding.scenario, &finding.violations)?;
    say!("\n{scenario}")?;
    sweep_report::violations(&finding.violations)?;
    let defects: String = arguments
        .defects
        .iter()
        .map(|defect| format!(" --defect {defect}"))
        .collect();
    say!(
        "    found by {} runs, stored: {}",
        finding.runs,
        file.display()
    )?;
    say!(
        "    replay: cutpoint fuzz --runs 1 --seed {} --out {}{defects}",
        arguments.seed,
        arguments.out.display()
    )?;
    Ok(file)
}
