//! The sweep raises no false alarm. What it finds is in `tests/hunt.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::AtomicBool;

use cutpoint::explorer::{LabExecutor, Purpose};
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{Act, Bound, Shard, Sweep, Token, fingerprint, sweep};

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

fn swept(planned: &Planned) -> Sweep {
    let bound = Bound {
        acts: vec![Act::Interrupt, Act::Steer, Act::Replace],
        yields: 0,
        pairs: false,
        crash: false,
        delays: 0,
        shard: Shard::WHOLE,
        workers: std::thread::available_parallelism().map_or(2, usize::from),
    };
    let executor = executor(&planned.file);
    let never = AtomicBool::new(false);
    sweep(&executor, &planned.scenario, &bound, &never, &|_| {})
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

/// Every act at every named point of every scenario: the whole sweep without yields.
#[test]
fn the_correct_agent_keeps_every_rule_whenever_the_user_acts() {
    let (mut wrong, mut traces, mut ran) = (Vec::new(), 0, 0);
    for planned in common::scenarios() {
        if executor(&planned.file).lacks(&planned.scenario).is_some() {
            continue;
        }
        let found = swept(&planned);
        assert_eq!(found.ran, found.planned, "{}", planned.file);
        assert_eq!(found.ran, found.bound, "{}", planned.file);
        wrong.extend(failures(&planned, &found));
        traces += found.traces();
        ran += found.ran;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 60_000 && traces > 17_000, "{traces} of {ran}");
}
