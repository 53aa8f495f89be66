//! `cutpoint fuzz`

mod found;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{
    Broken, Budget, Executor, Finding, Fuzz, Fuzzed, News, Shard, class_of, fuzz,
};

use found::{Found, store};

use super::run::read_scenarios;
use crate::exit_code::ExitCode;
use crate::interrupt::stop_on_signal;
use crate::out::say;
use crate::progress::{Progress, Until};
use crate::shard::shard;
use crate::{Failure, Outcome};
use cutpoint::explorer::{LabExecutor, Purpose};

/// Arguments of `cutpoint fuzz`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint fuzz --time 10m                                   search for ten minutes
  cutpoint fuzz --runs 20000 --seed 7 --jobs 1               the same runs each time
  cutpoint fuzz --scenario scenarios/tools/tool-running.kdl  schedules of one scenario only
  cutpoint fuzz --time 5s --defect abort-twice               what it makes of an agent that is broken")]
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
    /// Search as the k-th of n machines, counted from 1, each of which draws by a seed of its own;
    /// `auto` takes both from the variables of the CI engine (docs/ci.md).
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Draw schedules of the scenarios of this file; scenarios are drawn as well unless given.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Where failures are kept as scenario files. Those that are there run first.
    #[arg(long, value_name = "DIR", default_value = "found")]
    out: PathBuf,
    /// Keep each run that fails as it was run, too, below `every` in the directory for failures: all of
    /// a search can be judged again when the agent or a rule has changed.
    #[arg(long)]
    every: bool,
    /// Switch on a planted defect (see `cutpoint defects`); may be given several times.
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
    /// Count breaches of SHOULD rules as failures.
    #[arg(long)]
    strict: bool,
    /// How many threads work; as many as there are processors unless given. What is drawn depends
    /// on their number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Where recordings are looked for that scenarios name.
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
    read().ok_or_else(|| format!("`{text}` is no time; one looks like 90s, 10m or 8h"))
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
    let mut all = Told::default();
    let mut known = all.replay_found(arguments)?;
    let broken_before = known.len();
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
    if let Some((count, why)) = &all.silent {
        say!("\n{count} runs said nothing of the agent; the first one: {why}")?;
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
    Ok(if all.findings + broken_before > 0 {
        ExitCode::Breach
    } else if all.interrupted || all.unsaid > 0 || all.silent.is_some() {
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

fn rules(broken: &[Broken]) -> Vec<String> {
    let mut rules: Vec<String> = broken.iter().map(|broken| broken.rule.clone()).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// What the command has shown.
#[derive(Default)]
struct Told {
    runs: u64,
    traces: usize,
    findings: usize,
    /// Files of earlier failures that said nothing of the agent.
    unsaid: usize,
    /// Runs that said nothing of the agent, and why the first one did not.
    silent: Option<(usize, String)>,
    elapsed: Duration,
    interrupted: bool,
}

impl Told {
    /// Runs what was found before. Gives what is still broken.
    fn replay_found(&mut self, arguments: &Arguments) -> Result<Vec<Finding>, Failure> {
        let kept = std::slice::from_ref(&arguments.out);
        if arguments.out.exists() && !arguments.out.is_dir() {
            let out = arguments.out.display();
            return Err(Failure::usage(format!(
                "{out} is no directory; name the one for failures with --out"
            )));
        }
        // Without a scenario in it, the directory is where the first failure will go.
        let is_scenario = |path: &Path| path.extension().is_some_and(|end| end == "kdl");
        let mut held = walkdir::WalkDir::new(&arguments.out).into_iter();
        if !held.any(|entry| entry.is_ok_and(|entry| is_scenario(entry.path()))) {
            return Ok(Vec::new());
        }
        let mut known: Vec<Finding> = Vec::new();
        for planned in read_scenarios(kept)? {
            let observed = executor(arguments, &planned.file).run(&planned.scenario);
            let rules = rules(&observed.broken);
            match (&observed.trouble, rules.is_empty()) {
                (Some(why), _) => {
                    self.unsaid += 1;
                    say!("{}: {why}", planned.file)?;
                }
                (None, true) => say!("{}: holds now", planned.file)?,
                (None, false) => {
                    say!("{}: still breaks {}", planned.file, rules.join(" and "))?;
                    let class = class_of(observed.broken.clone());
                    if known.iter().all(|it| class_of(it.broken.clone()) != class) {
                        known.push(Finding {
                            broken: observed.broken,
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
        let asked = Fuzz {
            seed: arguments.shard.seed(arguments.seed),
            budget: arguments.runs.map_or(Budget::Endless, |runs| {
                Budget::Runs(runs.div_ceil(u64::from(shares)))
            }),
            workers: threads(arguments),
            scenario: base.map(|planned| planned.scenario.clone()),
            known: known.clone(),
        };
        let file = base.map_or("fuzz.kdl", |planned| &planned.file);
        let until = match asked.budget {
            Budget::Runs(runs) => Some(Until::Count(runs)),
            Budget::Endless => limit.map(Until::Time),
        };
        let (progress, end) = (Progress::new(file, until), AtomicBool::new(false));
        let kept = Found::new(&arguments.out, arguments.every);
        let told = |news: News<'_>| {
            let over = limit.is_some_and(|limit| progress.elapsed() >= limit);
            if over || stop.load(Ordering::Relaxed) {
                end.store(true, Ordering::Relaxed);
            }
            match news {
                News::Ran(runs, findings) => progress.tell(runs, None, findings),
                News::Failed(..) | News::Shrinks(..) | News::Shrunk(..) => kept.take(news),
            }
        };
        let found = fuzz(&executor(arguments, file), &asked, &end, &told);
        self.elapsed += progress.elapsed();
        drop(progress);
        self.interrupted = stop.load(Ordering::Relaxed);
        let files = self.take(arguments, &found, known)?;
        kept.keep(&files)
    }

    fn take(
        &mut self,
        arguments: &Arguments,
        found: &Fuzzed,
        known: &mut Vec<Finding>,
    ) -> Result<Vec<PathBuf>, Failure> {
        self.runs += found.runs;
        self.traces += found.traces;
        if let Some((count, why)) = &found.trouble {
            self.silent.get_or_insert((0, why.clone())).0 += count;
        }
        let (before, new) = found
            .findings
            .split_at(known.len().min(found.findings.len()));
        for finding in before.iter().filter(|finding| finding.runs > 0) {
            let (rules, runs) = (rules(&finding.broken).join(" and "), finding.runs);
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

/// Stores a finding and shows it. Gives its file.
fn show(arguments: &Arguments, finding: &Finding) -> Result<PathBuf, Failure> {
    let (scenario, file, _) = store(&arguments.out, &finding.scenario, &finding.broken)?;
    say!("\n{scenario}")?;
    for broken in &finding.broken {
        say!("    {:7} {}", broken.rule, broken.message)?;
    }
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
