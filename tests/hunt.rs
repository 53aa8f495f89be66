//! The sweep finds planted defects without a hint where to look: the table in docs/sweep.md is true.
//! `CUTPOINT_TABLE=1 cargo test --test hunt -- --nocapture` makes the table anew and prints it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use cutpoint::executor::lab::{LabExecutor, Purpose};
use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::results::ScenarioResult;
use cutpoint_explore::{
    Act, Executor, FailureGroup, Plan, RunResult, Schedule, Sweep, Target, trace_digest,
};
use cutpoint_scenario::ast::Scenario;

/// As in the command line: most of a schedule's work is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many of the planted defects the sweep must find.
const MINIMUM: usize = 121;

/// A plain scenario in `tests/sweep`, and what is tried with it.
struct Search {
    scenario: &'static str,
    acts: &'static [Act],
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Single,
    /// As `Single`, but only if nothing else finds a defect: in most of these scenarios the user interrupts
    /// already, and the sweep should find out when.
    Last,
    Delayed,
    Pairs,
}

const USER: &[Act] = &[Act::Interrupt, Act::Steer, Act::Replace];
const ASKED: &[Act] = &[
    Act::Interrupt,
    Act::Approve,
    Act::Deny,
    Act::Abort,
    Act::Answer,
];

const fn single(scenario: &'static str, acts: &'static [Act]) -> Search {
    search(scenario, acts, How::Single)
}

const fn search(scenario: &'static str, acts: &'static [Act], how: How) -> Search {
    Search {
        scenario,
        acts,
        how,
    }
}

const fn last(scenario: &'static str, acts: &'static [Act]) -> Search {
    search(scenario, acts, How::Last)
}

/// Where a defect is looked for, in this order.
const SEARCHES: &[Search] = &[
    single("command", USER),
    single("asks", ASKED),
    single("crew", USER),
    single("tasks", USER),
    single("slow", USER),
    single("tools", USER),
    single("rpc", USER),
    single("late", USER),
    single("fork", USER),
    single("resume", USER),
    single("server", USER),
    single("down", USER),
    single("review", USER),
    single("slow", &[Act::Shutdown]),
    single("server", &[Act::Drop]),
    search("short", &[Act::Interrupt], How::Delayed),
    search("short", USER, How::Pairs),
    single("asks", &[Act::Shutdown]),
    single("crew", &[Act::Shutdown]),
    single("tasks", &[Act::Shutdown]),
    single("command", &[Act::Crash]),
    single("asks", &[Act::Crash]),
    single("server", &[Act::Crash]),
    search("rpc", &[Act::Interrupt], How::Pairs),
    search("brief", &[Act::Interrupt], How::Delayed),
    last("house", &[Act::Interrupt]),
    last("branch", &[Act::Interrupt]),
    last("repeats", &[Act::Interrupt]),
    last("helper", &[Act::Interrupt]),
    last("stops", &[Act::Interrupt]),
    last("calls", &[Act::Interrupt]),
    last("deaf", &[]),
];

impl Search {
    /// Sweeps the scenario, and calls `after` after each run.
    fn sweep(
        &self,
        executor: &dyn Executor,
        scenario: &Scenario,
        after: impl Fn(&AtomicBool) + Sync,
    ) -> ScenarioResult {
        let sweep = Sweep {
            plan: Plan {
                acts: self.acts.to_vec(),
                pairs: self.how == How::Pairs,
                delays: usize::from(self.how == How::Delayed),
                ..Plan::default()
            },
            workers: 1,
            ..Sweep::default()
        };
        let target = Target {
            file: self.scenario,
            scenario,
            executor,
        };
        let stop = AtomicBool::new(false);
        let mut outcome = sweep.run(&[target], &stop, &|_| after(&stop));
        outcome.scenarios.remove(0)
    }

    fn planned(&self) -> Planned {
        let file = format!("tests/sweep/{}.kdl", self.scenario);
        let source = std::fs::read_to_string(common::root().join(&file)).unwrap();
        common::parse(&file, &source).remove(0)
    }

    fn executor(&self, file: &str, defect: Option<Defect>) -> LabExecutor {
        LabExecutor {
            defects: defect.into_iter().collect(),
            file: common::root().join(file).display().to_string(),
            recordings: common::root().join("recordings"),
            seed: 0,
            strict: true,
            plans: PlanCache::default(),
            purpose: Purpose::Traces,
        }
    }
}

/// Notes of each run whether it violates one rule.
struct Hunt {
    lab: LabExecutor,
    scenario: Scenario,
    rule: &'static str,
    violated: AtomicBool,
}

impl Executor for Hunt {
    fn run(&self, scenario: &Scenario) -> RunResult {
        let result = self.lab.run(scenario);
        let own = result.violations.iter().any(|it| it.rule == self.rule);
        // A run that shows nothing about the agent finds nothing.
        let violates = own && result.error.is_none();
        self.violated.store(violates, Ordering::Relaxed);
        result
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    defect: Defect,
    scenario: String,
    schedule: String,
    number: usize,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            defect,
            scenario,
            schedule,
            number,
        } = self;
        let rule = defect.rule();
        write!(
            f,
            "| `{defect}` | {rule} | {scenario} | {schedule} | {number} |"
        )
    }
}

impl Search {
    fn hunt(&self, defect: Defect) -> Hunt {
        let planned = self.planned();
        Hunt {
            lab: self.executor(&planned.file, Some(defect)),
            scenario: planned.scenario,
            rule: defect.rule(),
            violated: AtomicBool::new(false),
        }
    }

    fn row(&self, defect: Defect, schedule: Schedule, number: usize) -> (Row, Schedule) {
        let row = Row {
            defect,
            scenario: self.scenario.to_owned(),
            schedule: match schedule.to_string() {
                acts if acts.is_empty() => "the scenario as it is".to_owned(),
                acts => acts.replace(',', ", "),
            },
            number,
        };
        (row, schedule)
    }
}

impl Hunt {
    fn as_it_is(&self, search: &Search, defect: Defect) -> Option<(Row, Schedule)> {
        self.run(&self.scenario);
        let violated = self.violated.load(Ordering::Relaxed);
        violated.then(|| search.row(defect, Schedule::default(), 1))
    }
}

/// Looks for a breach of the rule that a defect is planted for; stops at the first one.
fn look(search: &Search, defect: Defect) -> Option<(Row, Schedule)> {
    let hunt = search.hunt(defect);
    if let Some(found) = hunt.as_it_is(search, defect) {
        return Some(found);
    }
    let found = search.sweep(&hunt, &hunt.scenario, |stop| {
        stop.fetch_or(hunt.violated.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    let own = |group: &&FailureGroup| group.violations.iter().any(|it| it.rule == hunt.rule);
    let group = found.failures.iter().find(own)?;
    let schedule = group.token.schedule.clone();
    Some(search.row(defect, schedule, group.number + 1))
}

/// Runs a job for each number on two threads. Returns the results in order.
fn each<T: Send>(count: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let result = job(number);
            done.lock().unwrap().push((number, result));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The table of the documentation, and the defects that it says are not found.
fn documented() -> (Vec<Row>, Vec<Defect>) {
    let text = std::fs::read_to_string(common::root().join("docs/sweep.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        Row {
            defect: cells[1].trim_matches('`').parse().unwrap(),
            scenario: cells[3].to_owned(),
            schedule: cells[4].to_owned(),
            number: cells[5].parse().unwrap(),
        }
    };
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(row);
    let section = text.split("\n## What the sweep does not find").nth(1);
    let section = section.and_then(|it| it.split("\n## ").next()).unwrap();
    let names = section.split('`').skip(1).step_by(2);
    let missed = names.filter_map(|name| name.parse().ok()).collect();
    (rows.collect(), missed)
}

/// Looks through all scenarios in which the correct agent exercises the rule: first as they are, then in
/// the order of the searches.
fn look_everywhere(defect: Defect, exercised: &[BTreeSet<String>]) -> Option<Row> {
    let fitting = SEARCHES.iter().zip(exercised);
    let fitting = fitting.filter(|(_, rules)| rules.contains(defect.rule()));
    let fitting: Vec<&Search> = fitting.map(|(search, _)| search).collect();
    let mut as_it_is = fitting.iter().filter(|it| it.how == How::Single);
    as_it_is
        .find_map(|search| search.hunt(defect).as_it_is(search, defect))
        .or_else(|| fitting.iter().find_map(|search| look(search, defect)))
        .map(|(row, _)| row)
}

fn make_the_table() {
    let exercised = each(SEARCHES.len(), |number| {
        let search = &SEARCHES[number];
        let planned = search.planned();
        let lab = search.executor(&planned.file, None);
        let found = search.sweep(&lab, &planned.scenario, |_| {});
        found.exercised.into_keys().collect::<BTreeSet<String>>()
    });
    let rows = each(Defect::ALL.len(), |number| {
        let defect = Defect::ALL[number];
        let start = Instant::now();
        let found = look_everywhere(defect, &exercised);
        let ms = start.elapsed().as_millis();
        let line = match found {
            Some(row) => format!("{row} {ms} |"),
            None => format!("not found: {defect} ({}, {ms} ms)", defect.rule()),
        };
        eprintln!("{line}");
        line
    });
    println!("{}", rows.join("\n"));
}

/// Each failure is found where the table says, as the schedule of that number, and its replays give
/// one trace.
#[test]
fn every_row_of_the_table_is_true() {
    if std::env::var_os("CUTPOINT_TABLE").is_some() {
        return make_the_table();
    }
    let (rows, _) = documented();
    assert!(rows.len() >= MINIMUM, "{} rows", rows.len());
    let wrong = each(rows.len(), |number| {
        let row = &rows[number];
        let mut fitting = SEARCHES.iter().filter(|it| it.scenario == row.scenario);
        let found = fitting.find_map(|search| Some((search, look(search, row.defect)?)));
        let Some((search, (found, schedule))) = found else {
            return Some(format!("{row}: not found"));
        };
        if found != *row {
            return Some(format!("{row}\nis by now\n{found}"));
        }
        let planned = search.planned();
        let lab = search.executor(&planned.file, Some(row.defect));
        let scenario = schedule.applied_to(&planned.scenario).scenario;
        let traces: BTreeSet<u64> = (0..10)
            .map(|_| trace_digest(&lab.case(&scenario).unwrap().0.trace.entries))
            .collect();
        (traces.len() > 1).then(|| format!("{row}: {} traces", traces.len()))
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_defect_is_in_the_table_or_listed_as_not_found() {
    let (rows, missed) = documented();
    let mut all: Vec<Defect> = rows.iter().map(|row| row.defect).chain(missed).collect();
    all.sort_unstable();
    assert_eq!(all, Defect::ALL);
}

/// A violation of the correct agent in a plain scenario could be taken for the defect.
#[test]
fn the_correct_agent_keeps_every_rule_in_the_plain_scenarios() {
    let wrong = each(SEARCHES.len(), |number| {
        let search = &SEARCHES[number];
        let planned = search.planned();
        let lab = search.executor(&planned.file, None);
        let found = search.sweep(&lab, &planned.scenario, |_| {});
        let groups = found.failures.iter();
        let groups = groups.map(|it| format!("{}: {:?}", it.token.schedule, it.violations));
        let errors = found.harness_errors.iter().map(|it| format!("{it:?}"));
        let wrong: Vec<String> = groups.chain(errors).collect();
        (!wrong.is_empty()).then(|| format!("{}: {}", planned.file, wrong.join("\n")))
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
