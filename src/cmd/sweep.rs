//! `cutpoint sweep`

pub mod external;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plans::Plans;
use cutpoint_explore::{Act, Bound, Class, Progress, Sweep, Token, fingerprint, sweep};

use super::run::read_scenarios;
use crate::exit_code::ExitCode;
use crate::explorer::LabExecutor;
use crate::interrupt::Interrupts;
use crate::out::{complain, say};
use crate::{Failure, Outcome, files, runtime};

/// How often the progress is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `cutpoint sweep`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint sweep scenarios/tools/tool-running.kdl            every point of one scenario
  cutpoint sweep scenarios --acts interrupt --yields 1       a quick look at all of them
  cutpoint sweep scenarios --crash                           every crash, resumed
  cutpoint sweep scenarios/turns --agent codex               the same of Codex, by gates at the server
  cutpoint sweep scenarios/turns --defect abort-twice --out found
                                                             what the sweep finds, as scenario files")]
pub struct Arguments {
    /// Scenario files, or directories of them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// What the user does at each point.
    #[arg(long, value_name = "ACT", value_delimiter = ',', value_parser = act,
          default_values = ["interrupt", "steer", "replace"])]
    acts: Vec<Act>,
    /// The most turns that the agent's other tasks have between a point and what is done there.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    yields: u32,
    /// Instead of acts: kill the agent behind every write to its rollout and every sync, and resume
    /// from all that was written, from what was synced, and from the last line torn at each byte.
    #[arg(long, conflicts_with_all = ["acts", "yields", "pairs"])]
    crash: bool,
    /// Sweep pairs of acts too: a second one at every point behind the first one's.
    #[arg(long)]
    pairs: bool,
    /// Switch on a planted defect (see `cutpoint defects`); may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// Run the k-th of n parts only, counted from 1; parts of several machines make up the whole.
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: (usize, usize),
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

/// A part of a whole, counted from 1 by people and from 0 here.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let read = || {
        let (of, all) = text.split_once('/')?;
        let (of, all): (usize, usize) = (of.parse().ok()?, all.parse().ok()?);
        (1..=all).contains(&of).then(|| (of - 1, all))
    };
    read().ok_or_else(|| format!("`{text}` is no part of a whole; one looks like 2/5"))
}

/// Sweeps scenarios.
pub fn run(arguments: &Arguments) -> Outcome {
    if let Some(agent) = &arguments.external.agent {
        return external::run(arguments, agent);
    }
    let planned = read_scenarios(&arguments.paths)?;
    let stop = stop_on_signal()?;
    let mut told = Told::default();
    for planned in &planned {
        if stop.load(Ordering::Relaxed) {
            told.cut_short = true;
            break;
        }
        let found = sweep_one(arguments, planned, &stop);
        told.take(arguments, planned, found)?;
    }
    told.finish(arguments)
}

/// Set by the first Ctrl-C: what runs is finished, and what was found is told.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let runtime = runtime()?;
    let mut signals = {
        let _entered = runtime.enter();
        Interrupts::new()?
    };
    // The thread ends with the process, as it waits for nothing else.
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        seen.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

fn executor(arguments: &Arguments, planned: &Planned) -> LabExecutor {
    LabExecutor {
        defects: arguments.defects.clone(),
        file: planned.file.clone(),
        recordings: arguments.recordings.clone(),
        seed: arguments.seed,
        strict: arguments.strict,
        plans: Plans::default(),
    }
}

fn sweep_one(arguments: &Arguments, planned: &Planned, stop: &AtomicBool) -> Sweep {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let bound = Bound {
        acts: arguments.acts.clone(),
        yields: arguments.yields as usize,
        crash: arguments.crash,
        pairs: arguments.pairs,
        shard: arguments.shard,
        workers: arguments.jobs.map_or(processors, |jobs| jobs as usize),
    };
    let start = Instant::now();
    let next_ms = AtomicU64::new(TELL_EVERY.as_millis() as u64);
    let told = |progress: Progress| {
        let elapsed_ms = start.elapsed().as_millis() as u64;
        let due_ms = next_ms.load(Ordering::Relaxed);
        let later_ms = elapsed_ms + TELL_EVERY.as_millis() as u64;
        let due = elapsed_ms >= due_ms;
        if due
            && next_ms
                .compare_exchange(due_ms, later_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            tell(&planned.file, progress, start.elapsed());
        }
    };
    sweep(
        &executor(arguments, planned),
        &planned.scenario,
        &bound,
        stop,
        &told,
    )
}

fn tell(file: &str, progress: Progress, elapsed: Duration) {
    let rate = progress.ran as f64 / elapsed.as_secs_f64();
    let left = progress.planned.saturating_sub(progress.ran) as f64 / rate.max(1.0);
    complain!(
        "{file}: {} of {} schedules, {rate:.0}/s, {left:.0} s left, {} kinds of failure",
        progress.ran,
        progress.planned,
        progress.classes
    );
}

/// What all sweeps of the command have shown.
#[derive(Default)]
struct Told {
    sweeps: Vec<serde_json::Value>,
    ran: usize,
    planned: usize,
    traces: usize,
    failures: usize,
    troubled: usize,
    /// Whether scenarios were left out because the user stopped the command.
    cut_short: bool,
}

impl Told {
    fn take(
        &mut self,
        arguments: &Arguments,
        planned: &Planned,
        found: Sweep,
    ) -> Result<(), Failure> {
        self.ran += found.ran;
        self.planned += found.planned;
        self.traces += found.traces;
        self.failures += found.classes.len();
        say!(
            "{}: {} of {} schedules ran, {} distinct traces, {} kinds of failure",
            planned.file,
            found.ran,
            found.planned,
            found.traces,
            found.classes.len()
        )?;
        if let Some((count, why)) = &found.trouble {
            self.troubled += count;
            say!("  {count} of them say nothing of the agent: {why}")?;
        }
        for (at, class) in found.classes.iter().enumerate() {
            show(arguments, planned, class, at + 1)?;
        }
        self.sweeps.push(json(arguments, planned, &found));
        Ok(())
    }

    fn finish(&self, arguments: &Arguments) -> Outcome {
        say!(
            "\n{} of {} schedules ran: {}; {} distinct traces, {} kinds of failure (seed {})",
            self.ran,
            self.planned,
            bound_in_words(arguments),
            self.traces,
            self.failures,
            arguments.seed
        )?;
        if self.cut_short {
            say!("interrupted: the scenarios behind that were not swept")?;
        }
        if let Some(file) = &arguments.json {
            let result = serde_json::json!({
                "format": "cutpoint-sweep", "version": 1, "seed": arguments.seed,
                "shard": format!("{}/{}", arguments.shard.0 + 1, arguments.shard.1),
                "sweeps": self.sweeps,
            });
            files::write_atomic(file, format!("{result:#}\n").as_bytes())
                .map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
        }
        Ok(if self.failures > 0 {
            ExitCode::Breach
        } else if self.troubled > 0 || self.ran < self.planned || self.cut_short {
            ExitCode::Trouble
        } else {
            ExitCode::Conforms
        })
    }
}

fn bound_in_words(arguments: &Arguments) -> String {
    if arguments.crash {
        return "a crash behind every write and sync of every scenario, with all that was written, \
                with what was synced, and with the last line torn at each byte"
            .to_owned();
    }
    let acts: Vec<&str> = arguments.acts.iter().map(|act| act.name()).collect();
    let pairs = if arguments.pairs {
        ", and every pair of them"
    } else {
        ""
    };
    format!(
        "{} at every named point of every scenario, behind 0 to {} yields{pairs}",
        acts.join(", "),
        arguments.yields
    )
}

fn token(arguments: &Arguments, planned: &Planned, class: &Class) -> Token {
    Token {
        scenario: fingerprint(&planned.scenario),
        seed: arguments.seed,
        schedule: class.schedule.clone(),
    }
}

fn replay(arguments: &Arguments, planned: &Planned, class: &Class) -> String {
    let token = token(arguments, planned, class);
    let mut command = format!("cutpoint replay {token} {}", planned.file);
    for defect in &arguments.defects {
        command.push_str(&format!(" --defect {defect}"));
    }
    command
}

fn show(
    arguments: &Arguments,
    planned: &Planned,
    class: &Class,
    number: usize,
) -> Result<(), Failure> {
    say!(
        "  failure {number}: {} schedules, {} distinct traces",
        class.schedules,
        class.traces
    )?;
    for broken in &class.broken {
        say!("    {:7} {}", broken.rule, broken.message)?;
    }
    let mut shortest = class.schedule.applied_to(&planned.scenario);
    shortest.name = format!("{}, {}", shortest.name, described(class));
    say!("    replay: {}", replay(arguments, planned, class))?;
    let Some(directory) = &arguments.out else {
        return Ok(());
    };
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

fn json(arguments: &Arguments, planned: &Planned, found: &Sweep) -> serde_json::Value {
    let class = |class: &Class| {
        let broken = class
            .broken
            .iter()
            .map(|broken| serde_json::json!({"rule": broken.rule, "message": broken.message}));
        serde_json::json!({
            "broken": broken.collect::<Vec<_>>(),
            "schedules": class.schedules,
            "traces": class.traces,
            "token": token(arguments, planned, class).to_string(),
        })
    };
    serde_json::json!({
        "file": planned.file,
        "scenario": planned.scenario.name,
        "planned": found.planned,
        "ran": found.ran,
        "traces": found.traces,
        "missed": found.missed,
        "exercised": found.exercised,
        "failures": found.classes.iter().map(class).collect::<Vec<_>>(),
    })
}
