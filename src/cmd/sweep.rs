//! `cutpoint sweep`

pub mod external;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::stored::{Asked, FORMAT, Stored, StoredSweep, Swept, VERSION};
use cutpoint_explore::{Act, Bound, Class, Shard, Sweep, WINDOW, fingerprint, sweep};

use super::run::read_scenarios;
use crate::interrupt::stop_on_signal;
use crate::out::say;
use crate::progress::Progress;
use crate::shard::shard;
use crate::{Failure, Outcome, coverage, files};
use cutpoint::explorer::{LabExecutor, Purpose};

/// Arguments of `cutpoint sweep`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint sweep scenarios/tools/tool-running.kdl            every point of one scenario
  cutpoint sweep scenarios --acts interrupt --yields 1       a quick look at all of them
  cutpoint sweep scenarios --crash                           every crash, resumed
  cutpoint sweep scenarios/turns/plain-turn.kdl --delays 1   races between the agent's own tasks
  cutpoint sweep scenarios/turns --agent codex               the same of Codex, by gates at the server
  cutpoint sweep scenarios/turns --defect abort-twice --out found
                                                             what the sweep finds, as scenario files
  cutpoint sweep scenarios --shard 2/5 --json part-2.json    a part, see `cutpoint report`")]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// What the user does at each point.
    #[arg(long, value_name = "ACT", value_delimiter = ',', value_parser = act,
          default_values = ["interrupt", "steer", "replace"])]
    pub(super) acts: Vec<Act>,
    /// The most turns that the agent's other tasks have between a point and what is done there.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    yields: u32,
    /// Instead of acts: kill the agent behind every write to its rollout and every sync, and resume
    /// from all that was written, from what was synced, and from the last line torn at each byte;
    /// then kill it once more while it resumes.
    #[arg(long, conflicts_with_all = ["acts", "yields", "pairs", "delays"])]
    crash: bool,
    /// Sweep pairs of acts too: a second one at every point behind the first one's.
    #[arg(long)]
    pairs: bool,
    /// With each single act: the most delays behind it. In the first a task of the agent is held at a
    /// named point for one to five turns of the others, or until nothing else can go on; in the second
    /// always until then.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2))]
    delays: u32,
    /// Check the sweep itself: run every order in which the agent's tasks can pass the named points,
    /// with each act at any time, and tell how many of the traces the sweep finds.
    #[arg(long, conflicts_with_all = ["crash", "pairs", "shard", "out", "json"])]
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
    /// engine (docs/ci.md). `cutpoint report merge` puts the parts together.
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Write each kind of failure as a scenario file into this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many threads work; as many as there are processors unless given. With --agent: how many
    /// cases run at once, 16 unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
    #[command(flatten)]
    external: external::Options,
}

fn act(text: &str) -> Result<Act, String> {
    let found = Act::ALL.into_iter().find(|act| act.name() == text);
    found.ok_or_else(|| {
        let names = Act::ALL.map(Act::name).join(", ");
        format!("no act `{text}`; there are {names}")
    })
}

/// Sweeps scenarios.
pub fn run(arguments: &Arguments) -> Outcome {
    if let Some(agent) = &arguments.external.agent {
        return external::run(arguments, agent);
    }
    let planned = read_scenarios(&arguments.paths)?;
    let stop = stop_on_signal()?;
    let planned = able(arguments, planned)?;
    if arguments.exhaustive {
        return super::exhaustive::run(arguments, &planned, &stop);
    }
    let mut stored = nothing_yet(arguments);
    for (at, one) in planned.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            stored.interrupted = true;
            break;
        }
        let progress = Progress::new(format!("[{}/{}] {}", at + 1, planned.len(), one.file), None);
        let found = sweep_one(arguments, one, &stop, &progress);
        drop(progress);
        stored.interrupted |= found.ran < found.planned;
        tell(arguments, one, found, &mut stored)?;
    }
    coverage::statement(&stored)?;
    if let Some(file) = &arguments.json {
        coverage::store(&stored, file)?;
    }
    Ok(coverage::code(&stored))
}

/// The scenarios without those that need what the reference agent cannot do; they are told.
fn able(arguments: &Arguments, planned: Vec<Planned>) -> Result<Vec<Planned>, Failure> {
    let mut able = Vec::new();
    for one in planned {
        let executor = executor(arguments, &one, Purpose::Traces);
        match executor.lacks(&one.scenario) {
            Some(missing) => {
                let (file, name) = (&one.file, missing.name());
                say!("{file}: skipped: the reference agent cannot do `{name}`")?;
            }
            None => able.push(one),
        }
    }
    Ok(able)
}

pub(super) fn executor(arguments: &Arguments, planned: &Planned, purpose: Purpose) -> LabExecutor {
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

/// The bound that the arguments describe.
pub(super) fn bound(arguments: &Arguments) -> Bound {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    Bound {
        acts: arguments.acts.clone(),
        yields: arguments.yields as usize,
        crash: arguments.crash,
        pairs: arguments.pairs,
        delays: arguments.delays as usize,
        shard: arguments.shard,
        workers: arguments.jobs.map_or(processors, |jobs| jobs as usize),
    }
}

fn sweep_one(
    arguments: &Arguments,
    planned: &Planned,
    stop: &AtomicBool,
    progress: &Progress,
) -> Sweep {
    let bound = bound(arguments);
    let purpose = if bound.crash {
        Purpose::Crashes
    } else {
        Purpose::Traces
    };
    sweep(
        &executor(arguments, planned, purpose),
        &planned.scenario,
        &bound,
        stop,
        &|far| progress.tell(far.ran as u64, Some(far.planned as u64), far.classes),
    )
}

fn nothing_yet(arguments: &Arguments) -> Stored {
    let defects = arguments.defects.iter().map(ToString::to_string);
    Stored {
        format: FORMAT.to_owned(),
        version: VERSION,
        asked: Asked {
            cutpoint: env!("CARGO_PKG_VERSION").to_owned(),
            agent: format!("reference {}, in the lab", env!("CARGO_PKG_VERSION")),
            defects: defects.collect(),
            seed: arguments.seed,
            strict: arguments.strict,
            bound: bound_in_words(arguments),
            durability: durability_in_words(arguments).to_owned(),
        },
        shard: arguments.shard,
        interrupted: false,
        sweeps: Vec::new(),
    }
}

/// Tells what one scenario has shown, and keeps it.
fn tell(
    arguments: &Arguments,
    planned: &Planned,
    found: Sweep,
    stored: &mut Stored,
) -> Result<(), Failure> {
    let recording = planned.scenario.model.recording.as_ref();
    let swept = Swept {
        file: planned.file.clone(),
        scenario: planned.scenario.name.clone(),
        fingerprint: fingerprint(&planned.scenario),
        recording: recording.map(|recording| recording.name.clone()),
        seed: arguments.seed,
    };
    let classes = found.classes.clone();
    let sweep = StoredSweep::new(swept, found);
    coverage::sweep(stored, &sweep)?;
    for (at, (class, failure)) in classes.iter().zip(&sweep.failures).enumerate() {
        coverage::failure(stored, &sweep, failure, at + 1)?;
        if let Some(directory) = &arguments.out {
            keep(directory, planned, class, at + 1)?;
        }
    }
    stored.sweeps.push(sweep);
    Ok(())
}

fn bound_in_words(arguments: &Arguments) -> String {
    if arguments.crash {
        return "a crash behind every write and sync of every scenario, also while its session starts \
                or is resumed, and a second one while the session is resumed from the first; each \
                with all that was written, with what was synced, and with the last line torn at \
                each byte"
            .to_owned();
    }
    let acts: Vec<&str> = arguments.acts.iter().map(|act| act.name()).collect();
    let pairs = if arguments.pairs {
        ", and every pair of them"
    } else {
        ""
    };
    let delays = match arguments.delays {
        0 => String::new(),
        most => {
            let second = match most {
                1 => "",
                _ => ", and a second one (until nothing else can go on) at any later point",
            };
            format!(
                ", and without yields also with a delay (1, 2, 3 or 5 turns, or until nothing else can \
                 go on) at one of {WINDOW} points from the act's on{second}"
            )
        }
    };
    format!(
        "{} at every named point of every scenario, behind 0 to {} yields{pairs}{delays}",
        acts.join(", "),
        arguments.yields
    )
}

fn durability_in_words(arguments: &Arguments) -> &'static str {
    if arguments.crash {
        "L0 (the process dies) by resuming from all that was written, L1 (the machine dies) by \
         resuming from what was synced, in the store of the lab"
    } else if arguments.acts.contains(&Act::Crash) {
        "L0 (the process dies) by resuming from all that was written, L1 (the machine dies) by the \
         order of writes and syncs alone, in the store of the lab"
    } else {
        "L1 (the machine dies) by the order of writes and syncs alone, in the store of the lab; no \
         crash was tried"
    }
}

/// Stores the smallest schedule of a kind of failure as a scenario file.
fn keep(directory: &Path, planned: &Planned, class: &Class, number: usize) -> Result<(), Failure> {
    let mut shortest = class.schedule.applied_to(&planned.scenario);
    shortest.name = format!("{}, {}", shortest.name, described(class));
    let stem = PathBuf::from(&planned.file);
    let stem = stem
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let name = format!("{}-{number}.kdl", stem.unwrap_or_default());
    let file = directory.join(name);
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| files::write_atomic(&file, format!("{shortest}\n").as_bytes()));
    written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    say!("    stored: {}", file.display())
}

fn described(class: &Class) -> String {
    let rules: Vec<&str> = class
        .broken
        .iter()
        .map(|broken| broken.rule.as_str())
        .collect();
    format!("which breaks {}", rules.join(" and "))
}
