//! What a schedule costs in the lab: complete schedules in a second on one core, with HTTP bytes and
//! all rules checked, and where the time goes.
//!
//! `cargo bench -p cutpoint --bench lab -- [--quick] [--check] [--schedules N] [FILE]`. A schedule is measured in one
//! run side by side with what no lab can do without: a bare hyper client and server that exchange the
//! same bytes. With `--check` a missed limit is an error; the aim is only told. Memory is measured over
//! N schedules.

mod bare;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use cutpoint_check::{View, judge};
use cutpoint_engine::lab;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{Act, Executor, Injection, Schedule, digest};
use cutpoint_protocol::sse;
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::Observation;
use cutpoint_trace::case::CaseResult;
use nix::time::{ClockId, clock_gettime};

use crate::bare::Exchange;
use cutpoint::explorer::{LabExecutor, Purpose};

/// As in the command line.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The scenario that the goals speak of.
const SCENARIO: &str = "scenarios/tools/tool-running.kdl";
/// The most turns of other tasks behind a point.
const YIELDS: usize = 2;
/// What the lab aims at; it is told and no limit, as it hangs on the machine.
const AIM_PER_SECOND: f64 = 10_000.0;
/// A schedule by the same exchanges over bare hyper: a little more than was reached, so that the lab
/// does not get slower unnoticed; a machine that is slow on wide code misses it (docs/benchmarks.md).
const RATIO_LIMIT: f64 = 9.0;
/// How much the process may grow between the first half of the schedules and the second.
const GROWTH_GOAL_KIB: i64 = 512;

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let rounds = if has("--quick") { 5 } else { 25 };
    let named = std::env::args()
        .skip(1)
        .find(|argument| argument.ends_with(".kdl"));
    let file = named.unwrap_or_else(|| SCENARIO.to_owned());
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/{file}")).expect("the scenario's file");
    let scenario = cutpoint_scenario::parse(&file, &text).expect("a scenario");
    let scenario = &scenario.scenarios[0];
    let executor = LabExecutor {
        defects: Vec::new(),
        recordings: format!("{root}/recordings").into(),
        file,
        seed: 0,
        strict: true,
        plans: PlanCache::default(),
        purpose: Purpose::Traces,
    };
    let plain = executor.run(scenario);
    let schedules = schedules(scenario, &plain.passed);
    let wrong = schedules
        .iter()
        .map(|schedule| executor.run(schedule))
        .find(|observed| observed.trouble.is_some());
    if let Some(wrong) = wrong {
        println!("a schedule says nothing of the agent: {wrong:?}");
        return ExitCode::FAILURE;
    }
    let per_half = match value_of("--schedules") {
        Some(all) => (all / 2).div_ceil(schedules.len()),
        None => 2 * rounds,
    };
    let bench = Bench::new(executor, scenario, schedules);
    let met = [bench.speed(rounds), bench.memory(per_half)];
    if has("--check") && met.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The number behind a flag.
fn value_of(flag: &str) -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    let value = arguments.nth(1)?;
    Some(value.parse().expect("a number behind the flag"))
}

/// An interrupt at every point of a scenario.
fn schedules(scenario: &Scenario, passed: &[&'static str]) -> Vec<Scenario> {
    let mut all = Vec::new();
    for yields in 0..=YIELDS {
        for (at, label) in passed.iter().enumerate() {
            let nth = passed[..=at].iter().filter(|known| *known == label).count();
            let injection = Injection {
                yields,
                act: Act::Interrupt,
                label: (*label).to_owned(),
                nth,
                lost_bytes: 0,
            };
            let schedule = Schedule {
                injections: vec![injection],
            };
            all.push(schedule.applied_to(scenario));
        }
    }
    all
}

struct Bench {
    executor: LabExecutor,
    schedules: Vec<Scenario>,
    /// What a run of each schedule gave.
    cases: Vec<CaseResult>,
    /// What goes over the wire when the scenario runs as it is written.
    exchanges: Vec<Exchange>,
}

impl Bench {
    fn new(executor: LabExecutor, scenario: &Scenario, schedules: Vec<Scenario>) -> Self {
        let case = |scenario| executor.case(scenario).expect("a runtime").0;
        let exchanges = exchanges(&case(scenario));
        Self {
            cases: schedules.iter().map(case).collect(),
            exchanges,
            schedules,
            executor,
        }
    }

    fn speed(&self, rounds: usize) -> bool {
        // In turns, so that a machine that is busy for a while is so for all of them.
        let mut times = [const { Vec::new() }; 5];
        for _ in 0..rounds {
            times[0].push(self.each(|schedule| self.executor.run(schedule)));
            times[1].push(self.each_case(|case| judge(&case.trace)));
            times[2].push(self.each_case(|case| View::new(&case.trace).turns.len()));
            times[3].push(self.each_case(|case| digest(&case.trace.entries)));
            times[4].push(self.bare());
        }
        let [whole, judged, indexed, digested, bare] = times.map(median);
        let entries: usize = self.cases.iter().map(|it| it.trace.entries.len()).sum();
        println!(
            "{} schedules, {} exchanges in each, {} entries in a trace, {rounds} rounds, medians",
            self.schedules.len(),
            self.exchanges.len(),
            entries / self.cases.len(),
        );
        let rest = whole.saturating_sub(judged + digested + bare);
        for (what, time) in [
            ("a schedule", whole),
            ("  bare hyper, same bytes", bare),
            ("  agent, server, trace", rest),
            ("  rules", judged),
            ("    of which the index", indexed),
            ("  digest", digested),
        ] {
            let share = 100.0 * time.as_secs_f64() / whole.as_secs_f64();
            println!("{what:26}{:8.1} µs {share:5.0} %", micros(time));
        }
        let rate = 1.0 / whole.as_secs_f64();
        println!("{rate:.0} schedules per second; the aim is {AIM_PER_SECOND:.0}");
        let ratio = whole.as_secs_f64() / bare.as_secs_f64();
        let text = format!("a schedule by bare hyper {ratio:.2}, limit ≤ {RATIO_LIMIT}");
        verdict(ratio <= RATIO_LIMIT, &text)
    }

    fn memory(&self, rounds: usize) -> bool {
        let run = || {
            for _ in 0..rounds {
                self.each(|schedule| self.executor.run(schedule));
            }
            resident_kib()
        };
        let (middle, end) = (run(), run());
        let text = format!(
            "resident memory grew by {} KiB in the second half of {} schedules, from {middle} KiB, goal ≤ {GROWTH_GOAL_KIB}",
            end - middle,
            2 * rounds * self.schedules.len()
        );
        verdict(end - middle <= GROWTH_GOAL_KIB, &text)
    }

    /// The mean time of a schedule.
    fn each<T>(&self, run: impl Fn(&Scenario) -> T) -> Duration {
        mean(&self.schedules, run)
    }

    fn each_case<T>(&self, run: impl Fn(&CaseResult) -> T) -> Duration {
        mean(&self.cases, run)
    }

    fn bare(&self) -> Duration {
        mean(&self.schedules, |_| {
            lab::block_on(bare::play(&self.exchanges))
        })
    }
}

/// The requests of a run, and the streams that answered them.
fn exchanges(case: &CaseResult) -> Vec<Exchange> {
    let entries = || case.trace.entries.iter().map(|entry| &entry.observation);
    let frames = |of: usize| {
        let frame = |what: &Observation| match what {
            Observation::Sent { exchange, data, .. } if *exchange == of => {
                let name = data.get("type")?.as_str()?;
                Some(Bytes::from(sse::frame(name, &data.to_string())))
            }
            _ => None,
        };
        entries().filter_map(frame).collect()
    };
    let exchange = |what: &Observation| match what {
        Observation::Request { exchange, body, .. } => Some(Exchange {
            request: Bytes::from(body.to_string()),
            frames: frames(*exchange),
        }),
        _ => None,
    };
    entries().filter_map(exchange).collect()
}

fn mean<T, R>(of: &[T], run: impl Fn(&T) -> R) -> Duration {
    let start = cpu();
    for one in of {
        black_box(run(one));
    }
    (cpu() - start) / u32::try_from(of.len()).expect("a few of them")
}

/// The CPU time of this thread, which other work on the machine does not add to.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread has a clock");
    Duration::from(time)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    1e6 * time.as_secs_f64()
}

fn verdict(met: bool, text: &str) -> bool {
    println!("{} {text}", if met { "met:   " } else { "MISSED:" });
    met
}

/// The process's resident memory.
fn resident_kib() -> i64 {
    const PAGE_KIB: i64 = 4;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc/self/statm");
    let pages = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    pages.expect("statm's second field is a number") * PAGE_KIB
}
