//! What plans add to a sweep: crashes everywhere, delays of the agent's own tasks, and how much of all
//! orders a sweep finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use cutpoint::executor::lab::{LabExecutor, Purpose};
use cutpoint_agent::Defect;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_explore::results::ScenarioResult;
use cutpoint_explore::{
    Act, CrashLevel, Executor, Exploration, Plan, Schedule, Shard, Sweep, Target, Token,
    act_at_any_time, run_every_order,
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

fn interrupts(delays: usize) -> Sweep {
    Sweep {
        plan: Plan {
            acts: vec![Act::Interrupt],
            delays,
            ..Plan::default()
        },
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        ..Sweep::default()
    }
}

fn run(sweep: &Sweep, executor: &LabExecutor, scenario: &Scenario) -> ScenarioResult {
    let target = Target {
        file: &executor.file,
        scenario,
        executor,
    };
    let mut outcome = sweep.run(&[target], &AtomicBool::new(false), &|_| {});
    assert!(!outcome.interrupted);
    outcome.scenarios.remove(0)
}

fn scenario(source: &str) -> Scenario {
    common::parse("bounds.kdl", source).remove(0).scenario
}

fn schedule(acts: &str) -> Schedule {
    let token: Token = format!("cp2:0:0:{acts}").parse().unwrap();
    token.schedule
}

/// The scenarios of a file below `scenarios/`.
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
        let part = Sweep {
            plan: Plan {
                crashes: true,
                ..Plan::default()
            },
            shard: Shard::new(3, 53).unwrap(),
            ..interrupts(0)
        };
        let lab = LabExecutor {
            purpose: Purpose::Crashes,
            ..executor(&planned.file, Vec::new())
        };
        let found = run(&part, &lab, &planned.scenario);
        assert_eq!(found.ran, found.planned);
        let (file, failures) = (planned.file, found.failures);
        assert!(failures.is_empty(), "{file}: {failures:?}");
        assert_eq!(found.harness_errors, None, "{file}");
        levels.extend(found.levels.into_keys());
    }
    let all = [CrashLevel::L0, CrashLevel::L1, CrashLevel::Torn];
    assert_eq!(levels, BTreeSet::from(all));
}

/// Crashes in which a rule once accused the correct agent.
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
        let result = executor(&planned.file, Vec::new()).run(&crashed.scenario);
        assert_eq!(result.violations, [], "{file}: {acts}");
        assert_eq!(result.acted, crashed.step_numbers, "{file}: {acts}");
        assert_eq!(result.error, None, "{file}: {acts}");
    }
}

fn crashed(acts: &str) -> CaseResult {
    let lab = executor("bounds.kdl", Vec::new());
    lab.case(&schedule(acts).applied_to(&scenario(ONE_REPLY)).scenario)
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

/// Whether a sweep violates the rule that the defect is planted for.
fn finds(defect: Defect, source: &str, delays: usize) -> bool {
    let lab = executor("bounds.kdl", vec![defect]);
    let found = run(&interrupts(delays), &lab, &scenario(source));
    let mut violations = found.failures.iter().flat_map(|group| &group.violations);
    violations.any(|violation| violation.rule == defect.rule())
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
    let result = lab.run(&lost.applied_to(&scenario(SLOW)).scenario);
    let rule = Defect::InterruptLostAtStart.rule();
    assert_eq!(result.violations[0].rule, rule);
}

#[test]
fn a_hold_is_a_step_that_reads_back_and_gives_the_same_trace_again() {
    let acts = "interrupt@rollout.write.3+0,delay@turn.finish.1+1,hold@event.turn_complete.1+0";
    let held = schedule(acts).applied_to(&scenario(ONE_REPLY)).scenario;
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
    assert_eq!((one.violations, one.error), (Vec::new(), None));
}

/// Tells runs apart by what the agent and its client do.
fn comparing() -> LabExecutor {
    LabExecutor {
        purpose: Purpose::Behaviours,
        ..executor("bounds.kdl", Vec::new())
    }
}

/// What all orders of a scenario show, with an interrupt at any time.
fn explored(source: &str, limit: usize, once: bool) -> Exploration {
    let lab = comparing();
    let acted = act_at_any_time(&scenario(source), Act::Interrupt);
    run_every_order(&lab, &acted, limit, once, &AtomicBool::new(false))
}

/// How many of the explored traces a sweep finds, and how many others.
fn found(explored: &Exploration, delays: usize) -> (usize, usize) {
    let swept = run(&interrupts(delays), &comparing(), &scenario(ONE_REPLY));
    let known = |trace: &u64| explored.traces.contains_key(trace);
    let found = swept.digests.iter().filter(known).count();
    (found, swept.digests.len() - found)
}

/// These are the figures of docs/sweep.md: an agent with other points has others.
#[test]
fn of_all_orders_of_a_small_scenario_the_sweep_finds_each_trace_with_two_delays() {
    let all = explored(ONE_REPLY, 3_000, true);
    assert!(all.exhausted, "{} orders", all.ran);
    assert_eq!((all.violations.len(), &all.error), (0, &None));
    // An order that is left out because its state was seen before shows nothing new.
    let some = explored(ONE_REPLY, 300, false);
    assert!(some.traces.len() > 1 && !some.exhausted);
    assert!(
        some.traces
            .keys()
            .all(|trace| all.traces.contains_key(trace))
    );
    let figures = [0, 1, 2].map(|delays| found(&all, delays));
    // With two delays the sweep shows every trace, and never one that no order gives.
    let [none, one, two] = figures;
    assert_eq!((none, one), ((16, 0), (45, 0)));
    assert_eq!((two, all.traces.len()), ((73, 0), 73));
}
