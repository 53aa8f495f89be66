//! Runs schedules on agents in other processes, for the explorer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::driver::Driver;
use cutpoint_engine::runner::{Planned, RunConfig, Runner};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_engine::trace_queries;
use cutpoint_explore::external::{Intervention, digest};
use cutpoint_explore::{Broken, Observed};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::{Entry, Observation, StreamEnd};

use crate::Failure;
use crate::agent_spec::{self, AgentSpec};
use crate::ground::Ground;
use cutpoint::explorer::{breaches, exercised};

/// How schedules are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent.
    pub agent: AgentSpec,
    /// Planted defects that are switched on, if it is the reference agent.
    pub defects: Vec<Defect>,
    /// Upper bound of each single wait.
    pub limit: Duration,
    /// Upper bound of each step of the agent's start.
    pub start_limit: Duration,
    /// The seed of everything random.
    pub seed: u64,
    /// Where recordings are looked for.
    pub recordings: PathBuf,
}

/// An agent with all that runs schedules on it.
#[derive(Clone)]
pub struct Stage {
    /// Who is driven.
    pub driver: Arc<dyn Driver>,
    /// What drives it.
    pub runner: Arc<Runner>,
}

impl Stage {
    /// Prepares to drive an agent; what it starts stays on the ground. It shares its process among
    /// cases where its protocol allows it.
    pub async fn new(settings: &Settings, ground: &Ground) -> Result<Self, Failure> {
        agent_spec::check_defects(&settings.defects, [&settings.agent])?;
        let context = ground.context(settings.start_limit, &settings.defects);
        let driver = settings.agent.driver(&context).await?;
        let server = ReplayServer::start(ServerConfig::default())
            .await
            .map_err(|error| Failure::trouble(error.to_string()))?;
        let config = RunConfig {
            limit: settings.limit,
            seed: settings.seed,
            recordings: settings.recordings.clone(),
            dir: Some(ground.dir().join("cases")),
            rules_only: true,
            judge: cutpoint_check::judge,
        };
        Ok(Self {
            runner: Arc::new(Runner::new(Arc::new(server), driver.clone(), config)),
            driver,
        })
    }
}

/// Works on a ground until the work has ended, and leaves nothing behind.
pub async fn on_ground<T>(
    work: impl AsyncFnOnce(&Ground) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let ground = Ground::new()?;
    let outcome = work(&ground).await;
    ground.clear().await;
    ground.remove();
    outcome
}

/// A schedule that was run.
pub struct Ran {
    /// What it showed.
    pub observed: Observed,
    /// How the agent ended, if it did so on its own.
    pub died: Option<String>,
    /// Turns that were started, and those of them that were interrupted.
    pub turns: (usize, usize),
    /// The processes that served the case.
    pub pids: BTreeSet<u32>,
    /// The case.
    pub case: CaseResult,
}

impl Stage {
    /// Runs a scenario with an intervention, or as it is.
    pub async fn run(&self, planned: &Planned, what: Option<&Intervention>, strict: bool) -> Ran {
        let changed = Planned {
            scenario: what.map_or_else(
                || planned.scenario.clone(),
                |what| what.applied_to(&planned.scenario),
            ),
            file: planned.file.clone(),
        };
        let case = self.runner.run(&changed).await;
        let numbers = what.map(Intervention::numbers).unwrap_or_default();
        let entries = &case.trace.entries;
        let started = |entry: &&Entry| trace_queries::announced(&entry.observation).is_some();
        let turns: BTreeSet<&str> = entries
            .iter()
            .filter(started)
            .filter_map(|entry| trace_queries::announced(&entry.observation))
            .collect();
        let interrupted = |entry: &&Entry| {
            trace_queries::turn_end(&entry.observation)
                .is_some_and(|end| trace_queries::is_abort(end, None))
        };
        let pid = |entry: &Entry| match entry.observation {
            Observation::AgentStarted { pid, .. } => pid,
            _ => None,
        };
        Ran {
            observed: observed(&case, &numbers, strict),
            died: (case.status == CaseStatus::AgentFailed).then(|| why(&case)),
            turns: (turns.len(), entries.iter().filter(interrupted).count()),
            pids: entries.iter().filter_map(pid).collect(),
            case,
        }
    }
}

fn why(case: &CaseResult) -> String {
    let note = case.note.as_deref().and_then(|note| note.lines().next());
    note.map_or_else(|| format!("{:?}", case.status), str::to_owned)
}

fn observed(case: &CaseResult, numbers: &[usize], strict: bool) -> Observed {
    let unknown = matches!(case.status, CaseStatus::Trouble | CaseStatus::ScenarioError);
    let mut broken: Vec<Broken> = case.breaches(strict).flat_map(breaches).collect();
    broken.extend(case.unmet.iter().map(|unmet| Broken {
        rule: "END".to_owned(),
        message: format!("{}: {}", unmet.text, unmet.found),
    }));
    let entries = &case.trace.entries;
    let acted = |number: &&usize| has_acted(entries, **number);
    Observed {
        digest: digest(entries),
        broken,
        exercised: case.verdicts.iter().filter_map(exercised).collect(),
        sent: numbers.iter().filter(acted).count(),
        trouble: unknown.then(|| why(case)),
        ..Observed::default()
    }
}

/// Whether the step of that number came to its cut point and acted.
fn has_acted(entries: &[Entry], number: usize) -> bool {
    let step = |entry: &Entry| matches!(entry.observation, Observation::Step { number: of, .. } if of == number);
    let Some(at) = entries.iter().position(step) else {
        return false;
    };
    let behind = entries[at + 1..].iter().map(|entry| &entry.observation);
    behind
        .take_while(|what| !matches!(what, Observation::Step { .. }))
        .any(|what| match what {
            Observation::Op { .. } | Observation::AgentKilled => true,
            Observation::StreamEnd { how, .. } => *how != StreamEnd::Complete,
            _ => false,
        })
}
