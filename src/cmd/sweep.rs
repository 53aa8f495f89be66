//! `cutpoint sweep`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cutpoint_agent::Defect;
use cutpoint_engine::quiescence::Quiescence;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::results::{
    GateCounts, Sampling, ScenarioResult, SweepResults, SweepSettings,
};
use cutpoint_explore::{
    Act, DELAY_WINDOW, Executor, FailureGroup, Plan, Shard, Sweep, SweepEvent, Target,
};
use cutpoint_scenario::ast::Capability;

use super::run::read_scenarios;
use crate::agent_spec::AgentSpec;
use crate::console::say;
use crate::interrupt::stop_on_signal;
use crate::process_agent::{AgentSettings, JOBS, ProcessAgent, with_agent};
use crate::progress::Progress;
use crate::shard::shard;
use crate::{Failure, Outcome, files, sweep_report};
use cutpoint::executor::lab::{LabExecutor, Purpose};

/// Arguments of `cutpoint sweep`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint sweep scenarios/tools/tool-running.kdl            every point of one scenario
  cutpoint sweep scenarios --acts interrupt --yields 1       a quick look at all of them
  cutpoint sweep scenarios --crash                           every crash, resumed
  cutpoint sweep scenarios/turns/plain-turn.kdl --delays 1   races between the agent's own tasks
  cutpoint sweep scenarios/turns --agent codex               the same of Codex, by gates at the server
  cutpoint sweep scenarios/turns --defect abort-twice --out found
                                                             write what fails as scenario files
  cutpoint sweep scenarios --shard 2/5 --json part-2.json    a part, see `cutpoint report`")]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// What the user does at each point.
    #[arg(long, value_name = "ACT", value_delimiter = ',', value_parser = act,
          default_values = ["interrupt", "steer", "replace"])]
    pub(super) acts: Vec<Act>,
    /// The most turns that the agent's other tasks have between a point and the act.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    yields: u32,
    /// Instead of acts: kill the agent right after every write to its rollout and every sync, and resume
    /// from all that was written, from what was synced, and from the last line torn at each byte;
    /// then kill it once more while it resumes.
    #[arg(long, conflicts_with_all = ["acts", "yields", "pairs", "delays"])]
    crash: bool,
    /// Sweep pairs of acts too: a second one at every point after the first one's.
    #[arg(long)]
    pairs: bool,
    /// With each single act: the most delays after it. In the first, a task of the agent is held at a
    /// named point for one to five turns of the others, or until nothing else can go on; in the second
    /// always until then.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2))]
    delays: u32,
    /// Measure the sweep: run every order in which the agent's tasks can pass the named points, with
    /// each act at any time, and report how many of the traces the sweep finds.
    #[arg(long, conflicts_with_all = ["crash", "pairs", "shard", "out", "json", "agent"])]
    exhaustive: bool,
    /// With `--exhaustive`: the most orders that are run for each act.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20_000,
        requires = "exhaustive"
    )]
    pub(super) orders: usize,
    /// Switch on a planted defect (see `cutpoint defects`); may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// Run the k-th of n parts only, counted from 1; `auto` takes both from the variables of the CI
    /// engine (docs/ci.md). `cutpoint report merge` merges the parts.
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Write each kind of failure as a scenario file into this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the results as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many threads run schedules; as many as there are processors unless given. With --agent: how
    /// many cases run at once, 16 unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The directory of the recordings that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
    #[command(flatten)]
    process: ProcessOptions,
}

/// Options for an agent in another process.
#[derive(clap::Args)]
struct ProcessOptions {
    /// Sweep this agent instead of the reference agent in the lab (see `cutpoint agents`).
    #[arg(long, value_name = "AGENT", conflicts_with = "crash")]
    agent: Option<AgentSpec>,
    /// How often the first schedule of each kind of failure is run again, to tell a race from a rule.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "agent",
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    repeat: u32,
    /// Cut inside the events of the first reply too: after every so many bytes.
    #[arg(long, value_name = "STRIDE", requires = "agent",
          value_parser = clap::value_parser!(u32).range(1..))]
    bytes: Option<u32>,
    /// The upper bound of each single wait, in seconds; a scenario's own `limit` overrides it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "agent",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
}

/// The acts that need no named points of the agent.
const GATE_ACTS: [Act; 6] = [
    Act::Interrupt,
    Act::Steer,
    Act::Replace,
    Act::Drop,
    Act::Shutdown,
    Act::Crash,
];

fn act(text: &str) -> Result<Act, String> {
    Act::named(text).ok_or_else(|| {
        let names = names(&Act::ALL);
        format!("there is no act `{text}`; the acts are {names}")
    })
}

fn names(acts: &[Act]) -> String {
    let names: Vec<&str> = acts.iter().map(|act| act.name()).collect();
    names.join(", ")
}

/// Sweeps scenarios.
pub fn run(arguments: &Arguments) -> Outcome {
    let planned = read_scenarios(&arguments.paths)?;
    match &arguments.process.agent {
        Some(agent) => sweep_process(arguments, agent, &planned),
        None if arguments.exhaustive => {
            super::exhaustive::run(arguments, &planned, &*stop_on_signal()?)
        }
        None => sweep_lab(arguments, &planned),
    }
}

fn sweep_lab(arguments: &Arguments, planned: &[Planned]) -> Outcome {
    let stop = stop_on_signal()?;
    let purpose = if arguments.crash {
        Purpose::Crashes
    } else {
        Purpose::Traces
    };
    let executor = |one: &Planned| lab_executor(arguments, one, purpose);
    let executors: Vec<LabExecutor> = planned.iter().map(executor).collect();
    let plan = lab_plan(arguments);
    let settings = SweepSettings {
        agent: format!("reference {}, in the lab", env!("CARGO_PKG_VERSION")),
        agent_argument: None,
        plan: lab_plan_in_words(&plan),
        durability: lab_durability(&plan).to_owned(),
        ..settings(arguments)
    };
    let mut results = SweepResults::new(settings, arguments.shard);
    let sweep = Sweep {
        plan,
        workers: lab_workers(arguments),
        ..sweep(arguments)
    };
    run_and_print(
        arguments,
        &sweep,
        &zip(planned, &executors),
        &stop,
        &mut results,
    )?;
    finish(arguments, &results)
}

fn sweep_process(arguments: &Arguments, agent: &AgentSpec, planned: &[Planned]) -> Outcome {
    if let Some(act) = arguments.acts.iter().find(|act| !GATE_ACTS.contains(act)) {
        return Err(Failure::usage(format!(
            "with --agent there is no act `{}`; the acts are {}",
            act.name(),
            names(&GATE_ACTS)
        )));
    }
    let agent_settings = AgentSettings {
        agent: agent.clone(),
        defects: arguments.defects.clone(),
        limit: Duration::from_secs(arguments.process.limit),
        seed: arguments.seed,
        recordings: arguments.recordings.clone(),
    };
    let results = with_agent(&agent_settings, |it| {
        sweep_agent(arguments, agent, it, planned)
    })?;
    finish(arguments, &results)
}

/// Sweeps an agent that can be driven now.
fn sweep_agent(
    arguments: &Arguments,
    spec: &AgentSpec,
    agent: &ProcessAgent,
    planned: &[Planned],
) -> Result<SweepResults, Failure> {
    let can = agent.driver.capabilities(&BTreeSet::new());
    let able = |act: &Act| needed(*act).is_none_or(|needed| can.contains(&needed));
    let (acts, lacking): (Vec<Act>, Vec<Act>) = arguments.acts.iter().copied().partition(able);
    let options = &arguments.process;
    let (repeat, stride) = (options.repeat as usize, options.bytes.map(|it| it as usize));
    let executor = |one: &Planned| agent.executor(&one.file, arguments.strict, repeat, stride);
    let executors: Vec<_> = planned.iter().map(executor).collect();
    let plan = Plan {
        acts,
        pairs: arguments.pairs,
        ..Plan::default()
    };
    let settings = SweepSettings {
        agent_argument: Some(spec.to_string()),
        plan: gate_plan_in_words(&plan, &lacking, options.bytes),
        durability:
            "level 0, by reading the rollout as each turn's end is reported (syncs are not \
                     seen)"
                .to_owned(),
        ..settings(arguments)
    };
    let mut results = SweepResults::new(settings, arguments.shard);
    let jobs = arguments.jobs.map_or(JOBS, |jobs| jobs as usize);
    let sweep = Sweep {
        plan,
        workers: jobs,
        ..sweep(arguments)
    };
    let start = Instant::now();
    let targets = zip(planned, &executors);
    run_and_print(arguments, &sweep, &targets, &agent.stop, &mut results)?;
    let info = agent.driver.info(&BTreeSet::new());
    results.settings.agent = format!("{} {} ({})", info.name, info.version, info.driver);
    let counts = agent.counts.so_far();
    let gates = agent.runner.quiet();
    results.sampling = Some(Sampling {
        runs: counts.runs,
        jobs,
        processes: counts.pids.len(),
        turns: counts.turns,
        interrupted_turns: counts.interrupted_turns,
        gates: GateCounts {
            quiet: gates.of(Quiescence::Quiet),
            silent: gates.of(Quiescence::Silent),
            busy: gates.of(Quiescence::Busy),
        },
        elapsed_s: start.elapsed().as_secs_f64(),
    });
    Ok(results)
}

/// What an agent must be able to do so that an act can be done to it.
fn needed(act: Act) -> Option<Capability> {
    match act {
        Act::Steer => Some(Capability::Steer),
        Act::Replace => Some(Capability::Replace),
        Act::Shutdown | Act::Crash => Some(Capability::Resume),
        _ => None,
    }
}

/// What all sweeps take from the arguments.
fn settings(arguments: &Arguments) -> SweepSettings {
    SweepSettings {
        cutpoint: env!("CARGO_PKG_VERSION").to_owned(),
        agent: String::new(),
        agent_argument: None,
        defects: arguments.defects.iter().map(ToString::to_string).collect(),
        seed: arguments.seed,
        strict: arguments.strict,
        plan: String::new(),
        durability: String::new(),
    }
}

fn sweep(arguments: &Arguments) -> Sweep {
    Sweep {
        shard: arguments.shard,
        seed: arguments.seed,
        rules: sweep_report::rule_book(),
        ..Sweep::default()
    }
}

/// Each scenario with its executor.
fn zip<'a, E: Executor>(planned: &'a [Planned], executors: &'a [E]) -> Vec<Target<'a>> {
    let target = |(one, executor): (&'a Planned, &'a E)| Target {
        file: &one.file,
        scenario: &one.scenario,
        executor,
    };
    planned.iter().zip(executors).map(target).collect()
}

/// The progress of the scenario that is being swept, and what could not be printed or stored.
type PrintState = (Option<(usize, Progress)>, Option<Failure>);

/// Sweeps the targets, and prints what each has shown as soon as it is done.
fn run_and_print(
    arguments: &Arguments,
    sweep: &Sweep,
    targets: &[Target<'_>],
    stop: &AtomicBool,
    results: &mut SweepResults,
) -> Result<(), Failure> {
    let state: Mutex<PrintState> = Mutex::default();
    let settings = &results.settings;
    let outcome = sweep.run(targets, stop, &|event| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, failure) = &mut *state;
        let printed = match event {
            SweepEvent::Progress(now) => {
                if progress
                    .as_ref()
                    .is_none_or(|(target, _)| *target < now.target)
                {
                    let file = targets[now.target].file;
                    let title = format!("[{}/{}] {file}", now.target + 1, targets.len());
                    *progress = Some((now.target, Progress::new(title, None)));
                }
                if let Some((target, progress)) = progress
                    && *target == now.target
                {
                    progress.update(now.ran as u64, Some(now.planned as u64), now.failures);
                }
                Ok(())
            }
            SweepEvent::Skipped { target, why } => {
                say!("{}: skipped: {why}", targets[target].file)
            }
            SweepEvent::Finished { target, result } => {
                // A bar is cleared before something else is printed.
                *progress = progress.take().filter(|(other, _)| *other != target);
                print(arguments, settings, &targets[target], result)
            }
        };
        if let Err(error) = printed {
            failure.get_or_insert(error);
        }
    });
    let (progress, failure) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(progress);
    if let Some(failure) = failure {
        return Err(failure);
    }
    results.interrupted = outcome.interrupted;
    results.skipped = outcome.skipped;
    results.scenarios = outcome.scenarios;
    Ok(())
}

fn print(
    arguments: &Arguments,
    settings: &SweepSettings,
    target: &Target<'_>,
    result: &ScenarioResult,
) -> Result<(), Failure> {
    let stored = |group: &FailureGroup, number: usize| match &arguments.out {
        Some(directory) => store_scenario(directory, target, group, number),
        None => Ok(()),
    };
    sweep_report::scenario(settings, arguments.shard, result, stored)
}

fn finish(arguments: &Arguments, results: &SweepResults) -> Outcome {
    sweep_report::statement(results)?;
    if let Some(file) = &arguments.json {
        sweep_report::store(results, file)?;
    }
    Ok(sweep_report::exit_code(results))
}

/// Stores the smallest schedule of a failure as a scenario file.
fn store_scenario(
    directory: &Path,
    target: &Target<'_>,
    group: &FailureGroup,
    number: usize,
) -> Result<(), Failure> {
    let mut smallest = group.token.schedule.applied_to(target.scenario).scenario;
    let key = group.key();
    let rules: Vec<&str> = key.rules().into_iter().collect();
    smallest.name = format!("{}, which breaks {}", smallest.name, rules.join(" and "));
    let stem = Path::new(target.file).file_stem();
    let stem = stem.map(|stem| stem.to_string_lossy().into_owned());
    let file = directory.join(format!("{}-{number}.kdl", stem.unwrap_or_default()));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| files::write_atomic(&file, format!("{smallest}\n").as_bytes()));
    written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    say!("    stored: {}", file.display())
}

pub(super) fn lab_executor(
    arguments: &Arguments,
    planned: &Planned,
    purpose: Purpose,
) -> LabExecutor {
    LabExecutor {
        defects: arguments.defects.clone(),
        file: planned.file.clone(),
        recordings: arguments.recordings.clone(),
        seed: arguments.seed,
        strict: arguments.strict,
        plans: PlanCache::default(),
        purpose,
    }
}

/// The plan of a sweep in the lab.
pub(super) fn lab_plan(arguments: &Arguments) -> Plan {
    Plan {
        acts: arguments.acts.clone(),
        yields: arguments.yields as usize,
        pairs: arguments.pairs,
        delays: arguments.delays as usize,
        crashes: arguments.crash,
    }
}

pub(super) fn lab_workers(arguments: &Arguments) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    arguments.jobs.map_or(processors, |jobs| jobs as usize)
}

fn lab_plan_in_words(plan: &Plan) -> String {
    if plan.crashes {
        return "a crash right after every write and sync of every scenario, also while its session \
                starts or is resumed, and a second one while the session is resumed from the first; \
                each with all that was written, with what was synced, and with the last line torn \
                at each byte"
            .to_owned();
    }
    let pairs = if plan.pairs {
        ", and every pair of them"
    } else {
        ""
    };
    let delays = match plan.delays {
        0 => String::new(),
        most => {
            let second = match most {
                1 => "",
                _ => ", and a second one (until nothing else can go on) at any later point",
            };
            format!(
                ", and without yields also with a delay (1, 2, 3 or 5 turns, or until nothing else can \
                 go on) at one of {DELAY_WINDOW} points from the act's on{second}"
            )
        }
    };
    format!(
        "{} at every named point of every scenario, after 0 to {} yields{pairs}{delays}",
        names(&plan.acts),
        plan.yields
    )
}

fn lab_durability(plan: &Plan) -> &'static str {
    if plan.crashes {
        "L0 (the process dies) by resuming from all that was written, L1 (the machine dies) by \
         resuming from what was synced, in the store of the lab"
    } else if plan.acts.contains(&Act::Crash) {
        "L0 (the process dies) by resuming from all that was written, L1 (the machine dies) by the \
         order of writes and syncs alone, in the store of the lab"
    } else {
        "L1 (the machine dies) by the order of writes and syncs alone, in the store of the lab; no \
         crash was tried"
    }
}

fn gate_plan_in_words(plan: &Plan, lacking: &[Act], stride: Option<u32>) -> String {
    let mut words = format!(
        "{} at every request, after the headers and every event of each reply, and at each event that \
         the agent reports",
        names(&plan.acts)
    );
    if let Some(stride) = stride {
        words.push_str(&format!(
            ", and inside the events of the first reply, after every {stride} bytes"
        ));
    }
    if plan.pairs {
        words.push_str(", and every pair of them at the same cut point");
    }
    if !lacking.is_empty() {
        words.push_str(&format!("; it cannot take {}", names(lacking)));
    }
    words
}
