//! `cutpoint replay … --agent`: schedules of agents in other processes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cutpoint_engine::runner::{Planned, WAIT_LIMIT};
use cutpoint_explore::{Place, RunResult, ScheduledAct, Token};
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::case::{CaseResult, CaseStatus};

use crate::agent_spec::AgentSpec;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::process_agent::{AgentSettings, JOBS, ProcessAgent, with_agent};
use crate::{Failure, Outcome};
use cutpoint::executor::process::ProcessExecutor;

/// A run, and what it has shown.
type Ran = (CaseResult, RunResult);

/// Runs one schedule again, as often as the user asked for, and prints how often it violates rules.
pub(super) fn run(
    arguments: &super::Arguments,
    agent: &AgentSpec,
    token: &Token,
    planned: &Planned,
) -> Outcome {
    let at_point = |act: &ScheduledAct| matches!(act.at, Place::Point { .. });
    if token.schedule.acts.iter().any(at_point) {
        return Err(Failure::usage(
            "the token is of the reference agent in the lab; leave --agent out",
        ));
    }
    let scenario = token.schedule.applied_to(&planned.scenario).scenario;
    say!("{scenario}\n")?;
    let settings = AgentSettings {
        agent: agent.clone(),
        defects: arguments.defects.clone(),
        limit: WAIT_LIMIT,
        seed: token.seed,
        recordings: arguments.recordings.clone(),
    };
    let ran = with_agent(&settings, |agent| {
        let executor = agent.executor(&planned.file, true, 0, None);
        Ok(run_all(
            agent,
            &executor,
            &scenario,
            arguments.times as usize,
        ))
    })?;
    print(arguments, &ran)
}

/// As many runs are under way at once as in a sweep, since some races need other work.
fn run_all(
    agent: &ProcessAgent,
    executor: &ProcessExecutor,
    scenario: &Scenario,
    times: usize,
) -> Vec<Ran> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < times && !agent.stop.load(Ordering::Relaxed) {
            let Some(case) = executor.case(scenario) else {
                return;
            };
            let result = executor.result(scenario, &case);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((case, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(times) {
            scope.spawn(work);
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the first run that violated something, or else the first one.
fn print(arguments: &super::Arguments, all: &[Ran]) -> Outcome {
    let failed = |(_, result): &&Ran| !result.violations.is_empty() || result.agent_exit.is_some();
    let Some((case, result)) = all.iter().find(failed).or(all.first()) else {
        return Err(Failure::trouble("interrupted before a run had ended"));
    };
    for entry in &case.trace.entries {
        say!("{}", cutpoint_report::describe_entry(entry))?;
    }
    for violation in &result.violations {
        say!("\n{} {}", violation.rule, violation.message)?;
    }
    if let Some(note) = &case.note {
        say!("\n{note}")?;
    }
    super::store(arguments, case)?;
    let failed = all.iter().filter(failed).count();
    say!("\n{failed} of {} runs violated a rule", all.len())?;
    Ok(match case.status {
        _ if failed > 0 => ExitCode::Breach,
        CaseStatus::Conforms | CaseStatus::Breach => ExitCode::Conforms,
        status => ExitCode::of(status),
    })
}
