//! `cutpoint sweep --exhaustive`: how much of everything that can happen a sweep finds.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use cutpoint_engine::runner::Planned;
use cutpoint_explore::results::ScenarioResult;
use cutpoint_explore::{Exploration, Plan, Sweep, Target, act_at_any_time, run_every_order};

use super::sweep::{Arguments, lab_executor, lab_plan, lab_workers};
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, sweep_report};
use cutpoint::executor::lab::Purpose;

/// How many of the traces that the sweep misses are shown, by the order of tasks that gives them.
const MISSED: usize = 5;

/// Measures the sweep of each scenario, act by act.
pub(super) fn run(arguments: &Arguments, planned: &[Planned], stop: &AtomicBool) -> Outcome {
    let (mut failed, mut cut_short) = (false, false);
    for one in planned {
        for act in &arguments.acts {
            let executor = lab_executor(arguments, one, Purpose::Behaviours);
            let sweep = Sweep {
                plan: Plan {
                    acts: vec![*act],
                    ..lab_plan(arguments)
                },
                workers: lab_workers(arguments),
                ..Sweep::default()
            };
            let target = Target {
                file: &one.file,
                scenario: &one.scenario,
                executor: &executor,
            };
            let swept = sweep.run(&[target], stop, &|_| {});
            let Some(result) = swept.scenarios.first() else {
                say!("{}: skipped: the agent cannot run it", one.file)?;
                cut_short |= swept.interrupted;
                break;
            };
            let acted = act_at_any_time(&one.scenario, *act);
            let explored = run_every_order(&executor, &acted, arguments.orders, true, stop);
            say!("{}, {} at any time:", one.file, act.name())?;
            print(&explored, result, arguments.orders)?;
            failed |= !explored.violations.is_empty() || !result.failures.is_empty();
            cut_short |= !explored.exhausted || swept.interrupted || explored.error.is_some();
        }
    }
    Ok(if failed {
        ExitCode::Breach
    } else if cut_short {
        ExitCode::Trouble
    } else {
        ExitCode::Conforms
    })
}

fn print(explored: &Exploration, swept: &ScenarioResult, limit: usize) -> Result<(), Failure> {
    let digests: BTreeSet<u64> = swept.digests.iter().collect();
    let found = explored.traces.keys();
    let found = found.filter(|trace| digests.contains(trace)).count();
    let all = if explored.exhausted {
        "all of them".to_owned()
    } else {
        format!("not all of them; --orders is {limit}")
    };
    let (ran, states, traces) = (explored.ran, explored.states, explored.traces.len());
    say!("  {ran} orders ran ({all}), {states} states, {traces} distinct traces")?;
    say!(
        "  the sweep ({} of {} schedules ran) finds {found} of {traces} traces, and {} others",
        swept.ran,
        swept.planned,
        digests.len() - found
    )?;
    let missed = explored.traces.iter().filter(|it| !digests.contains(it.0));
    for (_, order) in missed.take(MISSED) {
        let order: Vec<String> = order.iter().map(ToString::to_string).collect();
        say!(
            "    missed: the task that has waited longest goes on, except for these choices: {}",
            order.join(" ")
        )?;
    }
    for violation in &explored.violations {
        sweep_report::violations(std::slice::from_ref(violation))?;
    }
    if let Some(error) = &explored.error {
        say!("  some orders show nothing about the agent: {error}")?;
    }
    Ok(())
}
