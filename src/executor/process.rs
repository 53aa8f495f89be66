//! Agents in other processes: a run is one sample, as no clock stands still for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_engine::runner::{Planned, Runner};
use cutpoint_engine::{passed_points, trace_queries};
use cutpoint_explore::{Determinism, Executor, GatePassed, RunError, RunResult, sampled_digest};
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::{Entry, Observation, StreamEnd};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{exercised, violations};

/// Runs schedules of a scenario file on an agent in another process, by gates at the server.
#[derive(Clone)]
pub struct ProcessExecutor {
    /// What drives the agent.
    pub runner: Arc<Runner>,
    /// The runtime on which it is driven; another thread keeps that going.
    pub runtime: Handle,
    /// Becomes true when runs are to be stopped.
    pub stopped: watch::Receiver<bool>,
    /// What the runs of all files have counted.
    pub counts: Arc<ProcessCounts>,
    /// The scenario's file: its recordings may be beside it.
    pub file: String,
    /// Whether breaches of SHOULD rules count.
    pub strict: bool,
    /// How often the first schedule of each failure is run again.
    pub repeat: usize,
    /// Cuts inside the events of the first reply too: after every so many bytes.
    pub stride_bytes: Option<usize>,
}

/// What runs have counted.
#[derive(Debug, Default)]
pub struct ProcessCounts(Mutex<Counts>);

/// Counts of runs on an agent in another process.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// The runs.
    pub runs: usize,
    /// The turns that were started.
    pub turns: usize,
    /// The turns that were interrupted.
    pub interrupted_turns: usize,
    /// The processes that served them.
    pub pids: BTreeSet<u32>,
}

impl ProcessCounts {
    /// What was counted so far.
    pub fn so_far(&self) -> Counts {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    fn take(&self, entries: &[Entry]) {
        let started = entries
            .iter()
            .filter_map(|entry| trace_queries::announced(&entry.observation));
        let started: BTreeSet<&str> = started.collect();
        let interrupted = |entry: &&Entry| {
            trace_queries::turn_end(&entry.observation)
                .is_some_and(|end| trace_queries::is_abort(end, None))
        };
        let pid = |entry: &Entry| match entry.observation {
            Observation::AgentStarted { pid, .. } => pid,
            _ => None,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.runs += 1;
        counts.turns += started.len();
        counts.interrupted_turns += entries.iter().filter(interrupted).count();
        counts.pids.extend(entries.iter().filter_map(pid));
    }
}

impl ProcessExecutor {
    /// Runs a scenario; nothing, if it was stopped before its end. Must not be called on the runtime's
    /// own thread.
    pub fn case(&self, scenario: &Scenario) -> Option<CaseResult> {
        let planned = Planned {
            scenario: scenario.clone(),
            file: self.file.clone(),
        };
        let (runner, mut stopped) = (self.runner.clone(), self.stopped.clone());
        let (sender, receiver) = oneshot::channel();
        self.runtime.spawn(async move {
            let case = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                case = runner.run(&planned) => case,
            };
            // Nobody waits for it any more if the thread has panicked.
            let _ = sender.send(case);
        });
        receiver.blocking_recv().ok()
    }

    /// What a case has shown.
    pub fn result(&self, scenario: &Scenario, case: &CaseResult) -> RunResult {
        let entries = &case.trace.entries;
        let gate = |(at, after_steps)| GatePassed { at, after_steps };
        let gates = passed_points::passed(scenario, entries, self.stride_bytes);
        RunResult {
            digest: sampled_digest(entries),
            violations: violations(case, self.strict),
            exercised: exercised(case),
            acted: acted(scenario, entries),
            gates: gates.into_iter().map(gate).collect(),
            agent_exit: (case.status == CaseStatus::AgentFailed).then(|| why(case)),
            error: match case.status {
                CaseStatus::Trouble | CaseStatus::ScenarioError => {
                    Some(RunError::Harness(why(case)))
                }
                CaseStatus::Skipped => Some(RunError::Unsupported(why(case))),
                CaseStatus::Conforms | CaseStatus::Breach | CaseStatus::AgentFailed => None,
            },
            ..RunResult::default()
        }
    }
}

impl Executor for ProcessExecutor {
    fn determinism(&self) -> Determinism {
        Determinism::Sampled {
            repeat: self.repeat,
        }
    }

    fn run(&self, scenario: &Scenario) -> RunResult {
        let Some(case) = self.case(scenario) else {
            return RunResult {
                error: Some(RunError::Stopped),
                ..RunResult::default()
            };
        };
        self.counts.take(&case.trace.entries);
        self.result(scenario, &case)
    }
}

fn why(case: &CaseResult) -> String {
    let note = case.note.as_deref().and_then(|note| note.lines().next());
    note.map_or_else(|| format!("{:?}", case.status), str::to_owned)
}

/// The numbers of the steps that came to their cut point and acted.
fn acted(scenario: &Scenario, entries: &[Entry]) -> Vec<usize> {
    let steps = scenario.steps.iter().enumerate();
    let at_cut_points = steps.filter(|(_, step)| step.at.is_some());
    let numbers = at_cut_points.map(|(at, _)| at + 1);
    numbers
        .filter(|number| has_acted(entries, *number))
        .collect()
}

fn has_acted(entries: &[Entry], number: usize) -> bool {
    let step = |entry: &Entry| matches!(entry.observation, Observation::Step { number: of, .. } if of == number);
    let Some(at) = entries.iter().position(step) else {
        return false;
    };
    let after = entries[at + 1..].iter().map(|entry| &entry.observation);
    after
        .take_while(|what| !matches!(what, Observation::Step { .. }))
        .any(|what| match what {
            Observation::Op { .. } | Observation::AgentKilled => true,
            Observation::StreamEnd { how, .. } => *how != StreamEnd::Complete,
            _ => false,
        })
}
