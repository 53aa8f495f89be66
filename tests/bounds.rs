//! What the bounds of the sweep add: crashes everywhere, delays of the agent's own tasks, and how much
//! of all orders a sweep finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use cutpoint::explorer::{LabExecutor, Purpose};
use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::{
    Act, Bound, Executor, Level, Schedule, Shard, Space, Sweep, Token, exhaust, free, sweep,
};
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::case::CaseResult;
use cutpoint_trace::{AgentEvent, Observation};

/// As in the command line: most of a schedule's work is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nothing in it takes any time.
const ONE_REPLY: &str = r#"scenario "one reply" {
    model { reply { text "Hi" } }
    user "go"
    await turn-ended
}
"#;

/// The answer and the command take longer than an abort may.
const SLOW: &str = r#"scenario "a slow answer and a slow command" {
    model {
        reply { text "Let me see." chunks=2; pause "4s"; shell call_1 "echo one; sleep 5; echo two" }
        reply { text "It says two." }
    }
    user "run it"
    await turn-ended
}
"#;

fn executor(file: &str, defects: Vec<Defect>) -> LabExecutor {
    LabExecutor {
        defects,
        file: common::root().join(file).display().to_string(),
        recordings: common::root().join("recordings"),
        seed: 0,
        strict: true,
        plans: PlanCache::default(),
        purpose: Purpose::Traces,
    }
}

fn bound(delays: usize) -> Bound {
    Bound {
        acts: vec![Act::Interrupt],
        yields: 0,
        crash: false,
        pairs: false,
        delays,
        shard: Shard::WHOLE,
        workers: std::thread::available_parallelism().map_or(2, usize::from),
    }
}

fn scenario(source: &str) -> Scenario {
    common::parse("bounds.kdl", source).remove(0).scenario
}

fn schedule(acts: &str) -> Schedule {
    let token: Token = format!("cp1:0:0:{acts}").parse().unwrap();
    token.schedule
}

fn swept(planned: &Planned, bound: &Bound) -> Sweep {
    let executor = LabExecutor {
        purpose: if bound.crash {
            Purpose::Crashes
        } else {
            Purpose::Traces
        },
        ..executor(&planned.file, Vec::new())
    };
    let never = AtomicBool::new(false);
    sweep(&executor, &planned.scenario, bound, &never, &|_| {})
}

/// The scenarios of a file that stands below `scenarios/`.
fn of_file(file: &str) -> Vec<Planned> {
    let all = common::scenarios().into_iter();
    let of_it: Vec<Planned> = all.filter(|it| it.file.ends_with(file)).collect();
    assert!(!of_it.is_empty(), "{file}");
    of_it
}

/// A part of them: `cutpoint sweep --crash` runs every crash of every scenario.
#[test]
fn a_crash_at_any_write_loses_nothing_that_it_need_not() {
    let files = [
        "turns/plain-turn.kdl",
        "turns/double-interrupt.kdl",
        "tools/round-trip.kdl",
        "history/rolled-back.kdl",
        "resume/silent.kdl",
        "sub-agents/interrupted-with-its-turn.kdl",
    ];
    let mut levels = BTreeSet::new();
    for planned in files.into_iter().flat_map(of_file) {
        let part = Bound {
            crash: true,
            shard: Shard::new(3, 53).unwrap(),
            ..bound(0)
        };
        let found = swept(&planned, &part);
        assert_eq!(found.ran, found.planned);
        assert!(
            found.classes.is_empty(),
            "{}: {:?}",
            planned.file,
            found.classes
        );
        assert_eq!(found.trouble, None, "{}", planned.file);
        levels.extend(found.levels.into_keys());
    }
    assert_eq!(levels, BTreeSet::from([Level::L0, Level::L1, Level::Torn]));
}

/// Crashes in which a rule once spoke of the correct agent.
#[test]
fn what_a_crash_has_cut_in_two_is_judged_by_what_is_left() {
    let crashes = [
        // The line break behind the line that ends the turn.
        ("turns/plain-turn.kdl", 0, "crash@store.written.5+0-1"),
        // The user's answer had reached the agent and not the disk.
        (
            "approvals/question-answered.kdl",
            0,
            "crash@store.written.4+0-9",
        ),
        // A rollback was written down, and nobody was told.
        ("history/rolled-back.kdl", 0, "crash@store.written.9+0"),
        ("history/rolled-back.kdl", 1, "crash@store.written.10+0-1"),
    ];
    for (file, number, acts) in crashes {
        let planned = of_file(file).remove(number);
        let crashed = schedule(acts).applied_to(&planned.scenario);
        let observed = executor(&planned.file, Vec::new()).run(&crashed);
        assert_eq!(observed.broken, [], "{file}: {acts}");
        assert_eq!(
            (observed.sent, observed.trouble),
            (1, None),
            "{file}: {acts}"
        );
    }
}

fn crashed(acts: &str) -> CaseResult {
    let lab = executor("bounds.kdl", Vec::new());
    lab.case(&schedule(acts).applied_to(&scenario(ONE_REPLY)))
        .unwrap()
        .0
}

fn places(case: &CaseResult, wanted: impl Fn(&Observation) -> bool) -> Vec<usize> {
    let entries = case.trace.entries.iter().enumerate();
    let found = entries.filter(|(_, entry)| wanted(&entry.observation));
    found.map(|(at, _)| at).collect()
}

#[test]
fn an_agent_can_be_killed_while_it_starts_and_while_it_resumes() {
    let is_kill = |what: &Observation| matches!(what, Observation::AgentKilled);
    let is_start = |what: &Observation| matches!(what, Observation::AgentStarted { .. });
    let is_up = |what: &Observation| {
        let Observation::Event { event, .. } = what else {
            return false;
        };
        matches!(event, AgentEvent::Other { name, .. } if name == "session_configured")
    };
    for (acts, kills) in [
        ("crash@store.written.1+0", 1),
        ("crash@store.synced.1+0", 1),
        ("crash@store.written.3+0,crash@store.written.4+0", 2),
        ("crash@store.written.1+0-100,crash@store.synced.1+0", 2),
    ] {
        let case = crashed(acts);
        let (killed, started) = (places(&case, is_kill), places(&case, is_start));
        assert_eq!((killed.len(), started.len()), (kills, kills + 1), "{acts}");
        // The last kill comes before the agent is up, and the one that follows goes on.
        let up = places(&case, is_up);
        let last = killed[kills - 1];
        assert!(
            up.iter().all(|up| *up < started[kills - 1] || *up > last),
            "{acts}"
        );
        assert!(up.iter().any(|up| *up > started[kills]), "{acts}");
        assert_eq!(case.breaches(true).count(), 0, "{acts}");
    }
}

/// Whether a sweep within the bound breaks the rule that the defect is planted for.
fn finds(defect: Defect, source: &str, delays: usize) -> bool {
    let never = AtomicBool::new(false);
    let lab = executor("bounds.kdl", vec![defect]);
    let found = sweep(&lab, &scenario(source), &bound(delays), &never, &|_| {});
    let mut broken = found.classes.iter().flat_map(|class| &class.broken);
    broken.any(|broken| broken.rule == defect.rule())
}

#[test]
fn a_delay_finds_what_an_act_alone_does_not() {
    assert!(!finds(Defect::CompletesAlthoughAborted, ONE_REPLY, 0));
    assert!(finds(Defect::CompletesAlthoughAborted, ONE_REPLY, 1));
}

#[test]
fn a_slow_answer_and_a_slow_command_show_an_abort_that_waits() {
    assert!(finds(Defect::AbortWaitsForTool, SLOW, 0));
    assert!(finds(Defect::AbortWaitsForStream, SLOW, 0));
    // An interrupt that is lost can be told from one that came too late only if there was time.
    assert!(!finds(Defect::InterruptLostAtStart, SLOW, 0));
    let lost = schedule("interrupt@event.turn_started.1+0,delay@turn.spawn.1+1");
    let lab = executor("bounds.kdl", vec![Defect::InterruptLostAtStart]);
    let observed = lab.run(&lost.applied_to(&scenario(SLOW)));
    assert_eq!(observed.broken[0].rule, Defect::InterruptLostAtStart.rule());
}

#[test]
fn a_hold_is_a_step_that_reads_back_and_gives_the_same_trace_again() {
    let acts = "interrupt@rollout.write.3+0,delay@turn.finish.1+1,hold@event.turn_complete.1+0";
    let held = schedule(acts).applied_to(&scenario(ONE_REPLY));
    let text = held.to_string();
    assert!(
        text.contains("hold at=\"point turn.finish\" yields=1"),
        "{text}"
    );
    assert!(
        text.contains("hold at=\"point event.turn_complete\" until=quiet"),
        "{text}"
    );
    assert_eq!(scenario(&text), held);
    let lab = executor("bounds.kdl", Vec::new());
    let (one, two) = (lab.run(&held), lab.run(&held));
    assert_eq!(one, two);
    assert_eq!((one.broken, one.trouble), (Vec::new(), None));
}

/// Tells runs apart by what the agent and its client do.
fn comparing() -> LabExecutor {
    LabExecutor {
        purpose: Purpose::Behaviours,
        ..executor("bounds.kdl", Vec::new())
    }
}

/// What all orders of a scenario show, with an interrupt at any time.
fn space(source: &str, limit: usize, once: bool) -> Space {
    let lab = comparing();
    let acted = free(&scenario(source), Act::Interrupt);
    exhaust(&lab, &acted, limit, once, &AtomicBool::new(false))
}

/// How many of the traces in a space a sweep finds, and how many others.
fn found(space: &Space, delays: usize) -> (usize, usize) {
    let lab = comparing();
    let never = AtomicBool::new(false);
    let swept = sweep(&lab, &scenario(ONE_REPLY), &bound(delays), &never, &|_| {});
    let known = |trace: &&u64| space.traces.contains_key(trace);
    let found = swept.digests.iter().filter(known).count();
    (found, swept.digests.len() - found)
}

/// These are the figures of docs/sweep.md: an agent with other points has others.
#[test]
fn of_all_orders_of_a_small_scenario_the_sweep_finds_each_trace_with_two_delays() {
    let all = space(ONE_REPLY, 3_000, true);
    assert!(all.exhausted, "{} orders", all.ran);
    assert_eq!((all.broken.len(), &all.trouble), (0, &None));
    // What is left out because its state was seen before shows nothing new.
    let some = space(ONE_REPLY, 300, false);
    assert!(some.traces.len() > 1 && !some.exhausted);
    assert!(
        some.traces
            .keys()
            .all(|trace| all.traces.contains_key(trace))
    );
    let figures = [0, 1, 2].map(|delays| found(&all, delays));
    // With two delays the sweep has shown all that there is, and never anything that is not there.
    let [none, one, two] = figures;
    assert_eq!((none, one), ((16, 0), (45, 0)));
    assert_eq!((two, all.traces.len()), ((73, 0), 73));
}
