//! `cutpoint replay … --agent`: schedules of agents in other processes.

use std::collections::VecDeque;

use cutpoint_engine::driver::START_LIMIT;
use cutpoint_engine::runner::{Planned, WAIT_LIMIT};
use cutpoint_explore::external::{ExternalToken, Intervention};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use tokio::task::JoinSet;

use crate::agent_spec::AgentSpec;
use crate::exit_code::ExitCode;
use crate::external::{Ran, Settings, Stage, on_ground};
use crate::interrupt::Interrupts;
use crate::out::say;
use crate::{Failure, Outcome, runtime};

/// How many runs are under way at once: so many as in a sweep, as some races need company.
const JOBS: usize = super::super::sweep::external::JOBS;

/// Runs one schedule again, as often as is wanted, and tells how often it breaks rules.
pub fn run(arguments: &super::Arguments, token: &ExternalToken) -> Outcome {
    let Some(agent) = &arguments.agent else {
        return Err(Failure::usage(
            "the token is of an agent in another process; name it with --agent",
        ));
    };
    let planned = super::find(arguments, token.scenario)?;
    let what = token.intervention.as_ref();
    let changed = what.map_or_else(
        || planned.scenario.clone(),
        |it| it.applied_to(&planned.scenario),
    );
    say!("{changed}\n")?;
    let settings = settings(arguments, agent, token.seed);
    let ran = runtime()?.block_on(on_ground(async |ground| {
        let stage = Stage::new(&settings, ground).await?;
        let ran = run_all(&stage, &planned, what, arguments.times as usize).await;
        stage.driver.close().await;
        ran
    }))?;
    tell(arguments, &ran)
}

fn settings(arguments: &super::Arguments, agent: &AgentSpec, seed: u64) -> Settings {
    Settings {
        agent: agent.clone(),
        defects: arguments.defects.clone(),
        limit: WAIT_LIMIT,
        start_limit: START_LIMIT,
        seed,
        recordings: arguments.recordings.clone(),
    }
}

async fn run_all(
    stage: &Stage,
    planned: &Planned,
    what: Option<&Intervention>,
    times: usize,
) -> Result<Vec<Ran>, Failure> {
    let mut interrupts = Interrupts::new()?;
    let mut running = JoinSet::new();
    let mut all = Vec::new();
    let mut waiting: VecDeque<usize> = (0..times).collect();
    while all.len() < times {
        while running.len() < JOBS && waiting.pop_front().is_some() {
            let (stage, planned, what) = (stage.clone(), planned.clone(), what.cloned());
            running.spawn(async move { stage.run(&planned, what.as_ref(), true).await });
        }
        tokio::select! {
            biased;
            () = interrupts.next() => break,
            joined = running.join_next() => if let Some(joined) = joined {
                all.push(joined.map_err(|error| Failure::trouble(error.to_string()))?);
            },
        }
    }
    Ok(all)
}

/// Shows the first run that broke something, or else the first one.
fn tell(arguments: &super::Arguments, all: &[Ran]) -> Outcome {
    let broke = |ran: &&Ran| !ran.observed.broken.is_empty() || ran.died.is_some();
    let Some(shown) = all.iter().find(broke).or(all.first()) else {
        return Err(Failure::trouble("interrupted before a run had ended"));
    };
    let case: &CaseResult = &shown.case;
    for entry in &case.trace.entries {
        say!("{}", cutpoint_report::describe_entry(entry))?;
    }
    for broken in &shown.observed.broken {
        say!("\n{} {}", broken.rule, broken.message)?;
    }
    if let Some(note) = &case.note {
        say!("\n{note}")?;
    }
    super::store(arguments, case)?;
    let broken = all.iter().filter(broke).count();
    say!("\n{broken} of {} runs broke a rule", all.len())?;
    Ok(match case.status {
        _ if broken > 0 => ExitCode::Breach,
        CaseStatus::Conforms | CaseStatus::Breach => ExitCode::Conforms,
        status => ExitCode::of(status),
    })
}
