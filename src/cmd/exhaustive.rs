//! `cutpoint sweep --exhaustive`: what the sweep finds of all that there is.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use cutpoint_engine::runner::Planned;
use cutpoint_explore::{Bound, Space, Sweep, exhaust, free, sweep};

use super::sweep::{Arguments, bound, executor};
use crate::exit_code::ExitCode;
use crate::out::say;
use crate::{Failure, Outcome};
use cutpoint::explorer::Purpose;

/// So many of the traces that the sweep misses are shown, by the order of tasks that gives them.
const MISSED: usize = 5;

/// Checks the sweep of each scenario, act by act.
pub(super) fn run(arguments: &Arguments, planned: &[Planned], stop: &AtomicBool) -> Outcome {
    let (mut broken, mut cut_short) = (false, false);
    for one in planned {
        for act in &arguments.acts {
            let executor = executor(arguments, one, Purpose::Behaviours);
            let acted = free(&one.scenario, *act);
            let space = exhaust(&executor, &acted, arguments.orders, true, stop);
            let bound = Bound {
                acts: vec![*act],
                ..bound(arguments)
            };
            let swept = sweep(&executor, &one.scenario, &bound, stop, &|_| {});
            say!("{}, {} at any time:", one.file, act.name())?;
            tell(&space, &swept, arguments.orders)?;
            broken |= !space.broken.is_empty() || !swept.classes.is_empty();
            cut_short |= !space.exhausted || swept.ran < swept.planned || space.trouble.is_some();
        }
    }
    Ok(if broken {
        ExitCode::Breach
    } else if cut_short {
        ExitCode::Trouble
    } else {
        ExitCode::Conforms
    })
}

fn tell(space: &Space, sweep: &Sweep, limit: usize) -> Result<(), Failure> {
    let swept: BTreeSet<u64> = sweep.digests.iter().copied().collect();
    let found = space.traces.keys().filter(|it| swept.contains(it)).count();
    let all = if space.exhausted {
        "all of them".to_owned()
    } else {
        format!("not all of them; --orders is {limit}")
    };
    let (ran, states, traces) = (space.ran, space.states, space.traces.len());
    say!("  {ran} orders ran ({all}), {states} states, {traces} distinct traces")?;
    say!(
        "  the sweep ({} of {} schedules ran) finds {found} of {traces} traces, and {} others",
        sweep.ran,
        sweep.planned,
        swept.len() - found
    )?;
    let missed = space.traces.iter().filter(|it| !swept.contains(it.0));
    for (_, order) in missed.take(MISSED) {
        let order: Vec<String> = order.iter().map(ToString::to_string).collect();
        say!(
            "    missed: whoever has waited longest, but at each turn {}",
            order.join(" ")
        )?;
    }
    for broken in &space.broken {
        say!("    {:7} {}", broken.rule, broken.message)?;
    }
    if let Some(why) = &space.trouble {
        say!("  some orders say nothing of the agent: {why}")?;
    }
    Ok(())
}
