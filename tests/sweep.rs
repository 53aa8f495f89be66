//! The sweep raises no false alarm, and finds what was planted without being told where to look.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../src/explorer.rs"]
mod explorer;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plans::Plans;
use cutpoint_explore::{Act, Bound, Executor, Observed, Shard, Sweep, Token, fingerprint, sweep};
use cutpoint_scenario::ast::Scenario;
use explorer::{LabExecutor, Purpose};

/// A turn with text and a tool call, and a second one: nothing in it says where to look.
const PLAIN: &str = r#"scenario "a turn with a command, and another one" {
    model {
        reply { text "Let me see." chunks=2; shell call_1 "echo one; sleep 1; echo two" }
        reply { text "It says two." chunks=2 }
        reply { text "Yes." }
    }
    user "run it"
    await turn-ended
    user "sure?"
    await turn-ended
}
"#;

/// Of so many parts of each scenario's schedules one is run.
const PARTS: usize = 24;

/// How many of the planted defects the plain scenario must find.
const MINIMUM: usize = 41;

fn executor(file: &str, defects: Vec<Defect>) -> LabExecutor {
    LabExecutor {
        defects,
        file: common::root().join(file).display().to_string(),
        recordings: common::root().join("recordings"),
        seed: 0,
        strict: true,
        plans: Plans::default(),
        purpose: Purpose::Traces,
    }
}

fn bound(acts: &[Act], yields: usize) -> Bound {
    Bound {
        acts: acts.to_vec(),
        yields,
        pairs: false,
        crash: false,
        delays: 0,
        shard: Shard::WHOLE,
        workers: std::thread::available_parallelism().map_or(2, usize::from),
    }
}

fn swept(planned: &Planned, bound: &Bound) -> Sweep {
    let executor = executor(&planned.file, Vec::new());
    let never = AtomicBool::new(false);
    sweep(&executor, &planned.scenario, bound, &never, &|_| {})
}

/// Every failure of a sweep, with what replays it.
fn failures(planned: &Planned, found: &Sweep) -> Vec<String> {
    let failure = |class: &cutpoint_explore::Class| {
        let token = Token {
            scenario: fingerprint(&planned.scenario),
            seed: 0,
            schedule: class.schedule.clone(),
        };
        format!(
            "cutpoint replay {token} {}: {:?}",
            planned.file, class.broken
        )
    };
    let trouble = found.trouble.iter();
    let trouble = trouble.map(|trouble| format!("{}: {trouble:?}", planned.file));
    found.classes.iter().map(failure).chain(trouble).collect()
}

/// Every act at every named point of every scenario would take minutes without optimisations; each
/// scenario has another part of its schedules run, and `cutpoint sweep` runs all of them.
#[test]
fn the_correct_agent_keeps_every_rule_whenever_the_user_acts() {
    let (mut wrong, mut traces, mut ran) = (Vec::new(), 0, 0);
    for (number, planned) in common::scenarios().into_iter().enumerate() {
        // There are no files that a patch could change in the lab.
        if planned.file.contains("patch") {
            continue;
        }
        let part = Bound {
            shard: Shard::new(number % PARTS, PARTS).unwrap(),
            ..bound(&[Act::Interrupt, Act::Steer, Act::Replace], 0)
        };
        let found = swept(&planned, &part);
        assert_eq!(found.ran, found.planned, "{}", planned.file);
        wrong.extend(failures(&planned, &found));
        traces += found.traces();
        ran += found.ran;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let enough = 40_000 / PARTS;
    assert!(ran > enough && traces > enough / 4, "{traces} of {ran}");
}

/// Looks for a breach of one rule, and stops its sweep there.
struct Hunt {
    lab: LabExecutor,
    rule: &'static str,
    found: AtomicBool,
}

impl Executor for Hunt {
    fn run(&self, scenario: &Scenario) -> Observed {
        let observed = self.lab.run(scenario);
        if observed
            .broken
            .iter()
            .any(|broken| broken.rule == self.rule)
        {
            self.found.store(true, Ordering::Relaxed);
        }
        observed
    }
}

/// Whether a sweep of the plain scenario breaks the rule that a defect is planted for.
fn is_found(defect: Defect) -> bool {
    let plain = common::parse("plain.kdl", PLAIN).remove(0);
    let hunt = Hunt {
        lab: executor(&plain.file, vec![defect]),
        rule: defect.rule(),
        found: AtomicBool::new(false),
    };
    let bound = Bound {
        workers: 1,
        ..bound(&[Act::Interrupt, Act::Steer, Act::Replace], 0)
    };
    sweep(&hunt, &plain.scenario, &bound, &hunt.found, &|_| {});
    hunt.found.into_inner()
}

/// The documentation has a table of what the plain scenario alone finds.
fn documented() -> (String, Vec<Defect>) {
    let text = std::fs::read_to_string(common::root().join("docs/sweep.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let name = |row: &str| row.split('`').next().unwrap().parse::<Defect>().unwrap();
    let defects = rows.map(name).collect();
    (text, defects)
}

#[test]
fn one_plain_scenario_finds_what_the_documentation_says() {
    let (text, defects) = documented();
    assert!(defects.len() >= MINIMUM, "{} defects", defects.len());
    let indented = PLAIN.lines().map(|line| format!("    {line}\n"));
    assert!(text.contains(&indented.collect::<String>()), "{PLAIN}");
    let left = Mutex::new(defects);
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = left.lock().unwrap().pop();
            let Some(defect) = next else { return };
            if !is_found(defect) {
                missed.lock().unwrap().push(defect);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{missed:?}");
}
