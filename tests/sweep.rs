//! The sweep raises no false alarm. `tests/hunt.rs` has what it finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::AtomicBool;

use cutpoint::executor::lab::{LabExecutor, Purpose};
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::results::ScenarioResult;
use cutpoint_explore::{Act, FailureGroup, Plan, Sweep, Target};

/// As in the command line: most of a schedule's work is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn executor(file: &str) -> LabExecutor {
    LabExecutor {
        defects: Vec::new(),
        file: common::root().join(file).display().to_string(),
        recordings: common::root().join("recordings"),
        seed: 0,
        strict: true,
        plans: PlanCache::default(),
        purpose: Purpose::Traces,
    }
}

/// Every failure of a scenario, with the command that replays it.
fn failures(result: &ScenarioResult) -> Vec<String> {
    let failure = |group: &FailureGroup| {
        let (token, file) = (&group.token, &result.file);
        format!("cutpoint replay {token} {file}: {:?}", group.violations)
    };
    let errors = result.harness_errors.iter();
    let errors = errors.map(|errors| format!("{}: {errors:?}", result.file));
    result.failures.iter().map(failure).chain(errors).collect()
}

/// Every act at every named point of every scenario: the whole sweep without yields.
#[test]
fn the_correct_agent_keeps_every_rule_whenever_the_user_acts() {
    let all = common::scenarios();
    let executors: Vec<LabExecutor> = all.iter().map(|it| executor(&it.file)).collect();
    let targets = all
        .iter()
        .zip(&executors)
        .map(|(planned, executor)| Target {
            file: &planned.file,
            scenario: &planned.scenario,
            executor,
        });
    let targets: Vec<Target<'_>> = targets.collect();
    let sweep = Sweep {
        plan: Plan {
            acts: vec![Act::Interrupt, Act::Steer, Act::Replace],
            ..Plan::default()
        },
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        ..Sweep::default()
    };
    let outcome = sweep.run(&targets, &AtomicBool::new(false), &|_| {});
    assert!(!outcome.interrupted);
    let (mut wrong, mut traces, mut ran) = (Vec::new(), 0, 0);
    for result in &outcome.scenarios {
        assert_eq!(result.ran, result.planned, "{}", result.file);
        assert_eq!(result.ran, result.schedules, "{}", result.file);
        wrong.extend(failures(result));
        traces += result.traces;
        ran += result.ran;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 60_000 && traces > 17_000, "{traces} of {ran}");
}
