//! What a schedule costs in the lab: complete schedules in a second on one core, with HTTP bytes and
//! all rules checked, and where the time goes.
//!
//! `cargo bench -p cutpoint --bench lab -- [--short] [--check] [--schedules N] [FILE]`. A schedule is measured in one
//! run side by side with what no lab can do without: a bare hyper client and server that exchange the
//! same bytes. With `--check` a missed limit is an error; the aim is only printed. Memory is measured over
//! N schedules.

mod bare;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use cutpoint_bench::{Goals, HotPath, Options, cpu_time, median, micros, resident_kib};
use cutpoint_check::{View, judge};
use cutpoint_engine::lab;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{Act, Executor, Schedule, ScheduledAct, trace_digest};
use cutpoint_protocol::sse;
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::Observation;
use cutpoint_trace::case::CaseResult;

use crate::bare::Exchange;
use cutpoint::executor::lab::{LabExecutor, Purpose};

/// As in the command line.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The scenario that the goals speak of.
const SCENARIO: &str = "scenarios/tools/tool-running.kdl";
/// The most turns of other tasks behind a point.
const YIELDS: usize = 2;
/// What the lab aims at; it is printed and is no limit, as it depends on the machine.
const AIM_PER_SECOND: f64 = 10_000.0;
/// A schedule by the same exchanges over bare hyper: a little more than was reached, so that the lab
/// does not get slower unnoticed; a machine that is slow on wide code misses it (docs/benchmarks.md).
const RATIO_LIMIT: f64 = 9.0;
/// So many schedules are counted in instructions.
const COUNTED_SCHEDULES: usize = 100;
/// How much the process may grow between the first half of the schedules and the second.
const GROWTH_GOAL_KIB: i64 = 512;

fn main() -> ExitCode {
    let hot_path = HotPath {
        name: "lab-100-schedules",
        prepare: || {
            let bench = Bench::new(SCENARIO);
            Box::new(move || {
                for schedule in bench.schedules.iter().cycle().take(COUNTED_SCHEDULES) {
                    black_box(bench.executor.run(schedule));
                }
            })
        },
    };
    cutpoint_bench::run(Some(hot_path), measure)
}

fn measure(options: &Options, goals: &mut Goals) {
    let rounds = options.rounds(5, 25);
    let bench = Bench::new(options.file_with(".kdl").unwrap_or(SCENARIO));
    let per_half = match options.value_of("--schedules") {
        Some(all) => {
            let all: usize = all.parse().expect("a number behind the flag");
            (all / 2).div_ceil(bench.schedules.len())
        }
        None => 2 * rounds,
    };
    bench.speed(rounds, goals);
    bench.memory(per_half, goals);
}

/// An interrupt at every point of a scenario.
fn schedules(scenario: &Scenario, passed: &[&'static str]) -> Vec<Scenario> {
    let mut all = Vec::new();
    for yields in 0..=YIELDS {
        for (at, label) in passed.iter().enumerate() {
            let nth = passed[..=at].iter().filter(|known| *known == label).count();
            let interrupt = ScheduledAct::at_point(Act::Interrupt, *label, nth, yields);
            all.push(Schedule::of(interrupt).applied_to(scenario).scenario);
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
    /// Runs every schedule of a scenario once, after which all that is kept between runs is kept.
    fn new(file: &str) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let text = std::fs::read_to_string(format!("{root}/{file}")).expect("the scenario's file");
        let scenario = cutpoint_scenario::parse(file, &text).expect("a scenario");
        let scenario = &scenario.scenarios[0];
        let executor = LabExecutor {
            defects: Vec::new(),
            recordings: format!("{root}/recordings").into(),
            file: file.to_owned(),
            seed: 0,
            strict: true,
            plans: PlanCache::default(),
            purpose: Purpose::Traces,
        };
        let plain = executor.run(scenario);
        let schedules = schedules(scenario, &plain.points);
        for schedule in &schedules {
            let result = executor.run(schedule);
            assert!(
                result.error.is_none(),
                "a schedule shows nothing about the agent: {result:?}"
            );
        }
        let case = |scenario| executor.case(scenario).expect("a runtime").0;
        Self {
            cases: schedules.iter().map(case).collect(),
            exchanges: exchanges(&case(scenario)),
            schedules,
            executor,
        }
    }

    fn speed(&self, rounds: usize, goals: &mut Goals) {
        // In turns, so that a machine that is busy for a while is so for all of them.
        let mut times = [const { Vec::new() }; 5];
        for _ in 0..rounds {
            times[0].push(self.each(|schedule| self.executor.run(schedule)));
            times[1].push(self.each_case(|case| judge(&case.trace)));
            times[2].push(self.each_case(|case| View::new(&case.trace).turns.len()));
            times[3].push(self.each_case(|case| trace_digest(&case.trace.entries)));
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
        goals.ratio("a schedule by bare hyper", ratio, RATIO_LIMIT);
    }

    fn memory(&self, rounds: usize, goals: &mut Goals) {
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
        goals.note(end - middle <= GROWTH_GOAL_KIB, &text);
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
    let start = cpu_time();
    for one in of {
        black_box(run(one));
    }
    (cpu_time() - start) / u32::try_from(of.len()).expect("a few of them")
}
