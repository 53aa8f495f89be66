use std::collections::BTreeMap;

use super::*;
use crate::executor::Determinism;
use crate::schedule::Act;

/// An agent that passes `a` twice and `b` once, and violates a rule when it is interrupted at the
/// second `a` with two yields or more.
struct Fragile;

impl Executor for Fragile {
    fn run(&self, scenario: &Scenario) -> RunResult {
        let text = scenario.to_string();
        let fails = (2..9)
            .any(|yields| text.contains(&format!("interrupt at=\"point a 2\" yields={yields}")));
        let message = format!("turn {} was aborted twice", text.len());
        let violation = Violation::new("TURN-7", "aborted-twice", message);
        let acts = text.matches("yields=").count();
        RunResult {
            digest: u64::from(fails) + 2 * (acts as u64),
            violations: fails.then_some(violation).into_iter().collect(),
            exercised: BTreeMap::from([("TURN-7".to_owned(), 1)]),
            points: vec!["a", "b", "a"],
            acted: (1..10).collect(),
            ..RunResult::default()
        }
    }
}

fn plain() -> Scenario {
    let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
    cutpoint_scenario::parse("s.kdl", text)
        .unwrap()
        .scenarios
        .remove(0)
}

fn sweep(pairs: bool) -> Sweep {
    Sweep {
        plan: Plan {
            acts: vec![Act::Steer, Act::Interrupt],
            yields: 3,
            pairs,
            ..Plan::default()
        },
        workers: 2,
        ..Sweep::default()
    }
}

fn run_with(sweep: &Sweep, executor: &dyn Executor) -> SweepOutcome {
    let scenario = plain();
    let target = Target {
        file: "s.kdl",
        scenario: &scenario,
        executor,
    };
    sweep.run(&[target; 2], &AtomicBool::new(false), &|_| {})
}

fn run(sweep: &Sweep) -> ScenarioResult {
    let mut outcome = run_with(sweep, &Fragile);
    assert!(!outcome.interrupted);
    // The same scenario twice shows the same twice.
    assert_eq!(outcome.scenarios[0], outcome.scenarios[1]);
    outcome.scenarios.remove(0)
}

#[test]
fn every_schedule_is_run_and_the_smallest_failure_is_kept() {
    let found = run(&sweep(false));
    // Three points, two acts, four numbers of yields, and the plain scenario.
    assert_eq!((found.planned, found.ran), (25, 25));
    assert_eq!((found.traces, found.missed), (3, 0));
    assert_eq!(found.exercised["TURN-7"], 25);
    let [group] = &found.failures[..] else {
        panic!("{:?}", found.failures)
    };
    assert_eq!(group.token.schedule.to_string(), "interrupt@a.2+2");
    assert_eq!((group.schedules, group.traces), (2, 1));
}

#[test]
fn pairs_come_after_single_acts() {
    let found = run(&sweep(true));
    // Four pairs of acts at six pairs of points.
    assert_eq!(found.planned, 25 + 24);
    assert_eq!(found.failures[0].token.schedule.acts.len(), 1);
}

#[test]
fn shards_make_up_the_whole() {
    let part = |index| Sweep {
        shard: Shard::new(index, 3).unwrap(),
        ..sweep(true)
    };
    let parts: Vec<ScenarioResult> = (0..3).map(|index| run(&part(index))).collect();
    assert!(
        parts
            .iter()
            .all(|part| part.schedules == 49 && part.ran > 8)
    );
    assert!(parts.iter().all(|part| part.ran == part.planned));
    assert_eq!(parts.iter().map(|part| part.ran).sum::<usize>(), 49);
    let mut merged = parts;
    let rest = merged.split_off(1);
    rest.into_iter().for_each(|part| merged[0].join(part));
    assert_eq!(merged[0], run(&sweep(true)));
}

#[test]
fn a_stopped_sweep_keeps_what_has_run() {
    let scenario = plain();
    let target = Target {
        file: "s.kdl",
        scenario: &scenario,
        executor: &Fragile,
    };
    let stop = AtomicBool::new(false);
    let one = Sweep {
        workers: 1,
        ..sweep(true)
    };
    let outcome = one.run(&[target; 2], &stop, &|event| {
        if let SweepEvent::Progress(progress) = event {
            stop.store(progress.ran == 20, Ordering::Relaxed);
        }
    });
    // The second scenario had not begun.
    let [found] = &outcome.scenarios[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((found.ran, found.planned), (20, 49));
    assert_eq!(found.failures.len(), 1);
    assert!(outcome.interrupted);
}

/// An agent that violates a rule in every other run, and ends on its own when it is steered while
/// another run is under way, or always if it is interrupted twice.
#[derive(Default)]
struct Unsteady {
    runs: std::sync::atomic::AtomicUsize,
}

impl Executor for Unsteady {
    fn determinism(&self) -> Determinism {
        Determinism::Sampled { repeat: 4 }
    }

    fn run(&self, scenario: &Scenario) -> RunResult {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let text = scenario.to_string();
        let interrupts = text.matches("interrupt at").count();
        let odd = interrupts == 1 && number % 2 == 1;
        let violation = Violation::new("TURN-7", "aborted-twice", "it was aborted twice");
        let ends = interrupts == 2 || (text.contains("steer") && number < 4);
        RunResult {
            violations: odd.then_some(violation).into_iter().collect(),
            points: vec!["a"],
            acted: (1..10).collect(),
            agent_exit: ends.then(|| "it ended".to_owned()),
            ..RunResult::default()
        }
    }
}

#[test]
fn failures_of_a_sampled_agent_are_run_again_and_its_exits_by_themselves() {
    let sweep = Sweep {
        plan: Plan {
            acts: vec![Act::Interrupt, Act::Steer],
            pairs: true,
            ..Plan::default()
        },
        workers: 1,
        ..Sweep::default()
    };
    let agent = Unsteady::default();
    let scenario = plain();
    let target = Target {
        file: "s.kdl",
        scenario: &scenario,
        executor: &agent,
    };
    let outcome = sweep.run(&[target], &AtomicBool::new(false), &|_| {});
    let found = &outcome.scenarios[0];
    assert_eq!((found.ran, found.planned), (7, 7));
    let repeats = |group: &crate::failure_group::FailureGroup| group.repeats.unwrap();
    let [race, exit] = &found.failures[..] else {
        panic!("{:?}", found.failures)
    };
    assert_eq!(race.violations[0].rule, "TURN-7");
    assert_eq!(race.token.schedule.to_string(), "interrupt@a.1+0");
    assert_eq!((repeats(race).failed, repeats(race).runs), (2, 4));
    assert_eq!(exit.violations[0].rule, "AGENT");
    assert_eq!(
        exit.token.schedule.to_string(),
        "interrupt@a.1+0,interrupt@a.1+0"
    );
    assert_eq!((repeats(exit).failed, repeats(exit).runs), (4, 4));
}
