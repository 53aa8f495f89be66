//! What the rules are worth: every planted defect of the reference agent against all scenarios.
//!
//! A defect is caught if the rule that it is planted for is broken in at least one scenario. The
//! correct agent runs along: a rule that it breaks would catch anything. All of them run in the lab,
//! where nothing depends on the machine; what the lab does not show (how real processes are killed,
//! say) is looked for in the real world.

mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::{RuleVerdict, Verdict};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

pub use self::score::{Fate, Mutant, ScenarioName, Score, json, table};

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::{ReplayServer, ServerConfig};

/// How many cases a worker is busy with. Enough to fill the waits of each other; with more of them,
/// delays that rules judge come from the queue for the processor rather than from the agent.
const SLOTS: usize = 8;
/// A case that takes longer waits for an agent that hangs, or for processes that stay. It gives its
/// slot to another one.
const SLOT_LIMIT: Duration = Duration::from_secs(1);
/// How many cases a worker has under way at most, those without a slot included: on a machine that is
/// busy with other things every case takes long.
const UNDER_WAY: usize = 40;
/// Upper bound of each single wait for an agent with a defect: some make it hang for good.
pub const MUTANT_LIMIT: Duration = Duration::from_secs(5);

/// What is run, and how.
#[derive(Debug, Clone)]
pub struct MutationConfig {
    /// The scenarios.
    pub scenarios: Vec<Planned>,
    /// The defects; those whose rule is not in the book are left out.
    pub defects: Vec<Defect>,
    /// Where recordings are looked for.
    pub recordings: PathBuf,
    /// A directory of the run's own.
    pub dir: PathBuf,
    /// How many threads work.
    pub workers: usize,
    /// Upper bound of each single wait for an agent with a defect; a scenario's own `limit` goes
    /// before it. The correct agent has as long as in any other run.
    pub limit: Duration,
    /// Whether a defect is done with as soon as its own rule has caught it. The table then tells
    /// less of what else it breaks.
    pub until_caught: bool,
}

/// A scenario on the agent with one defect, or on the correct one.
#[derive(Debug, Clone, Copy)]
struct Task {
    defect: Option<Defect>,
    scenario: usize,
}

/// Runs all defects, and the correct agent, over all scenarios.
///
/// # Errors
/// If a worker could not be set up.
pub fn run(config: &MutationConfig) -> io::Result<Score> {
    let has_rule = |defect: &Defect| cutpoint_check::rule(defect.rule()).is_some();
    let (defects, without_rule): (Vec<Defect>, Vec<Defect>) =
        config.defects.iter().copied().partition(has_rule);
    let done: Arc<Mutex<Done>> = Arc::default();
    let everyone = std::iter::once(None).chain(defects.iter().copied().map(Some));
    let tasks = tasks(config, &everyone.collect::<Vec<_>>());
    let next = AtomicUsize::new(0);
    on_threads(config, |_| {
        while let Some(task) = next_task(config, &tasks, &next, &done) {
            let finding = in_lab(config, task)?;
            lock(&done).take(task, finding);
        }
        Ok(())
    })?;
    let unseen = |defect: &Defect| !lock(&done).caught.contains(defect);
    let left: Vec<_> = defects.iter().copied().filter(unseen).map(Some).collect();
    let tasks = self::tasks(config, &left);
    let next = AtomicUsize::new(0);
    on_threads(config, |number| {
        let worker = Worker {
            config,
            number,
            tasks: &tasks,
            next: &next,
            done: &done,
        };
        worker.work()
    })?;
    let done = std::mem::take(&mut *lock(&done));
    Ok(sum_up(config, &defects, without_rule, done.findings))
}

/// All scenarios on these agents. Scenario by scenario, so that a long one is not left to the end of
/// every defect at once.
fn tasks(config: &MutationConfig, agents: &[Option<Defect>]) -> Vec<Task> {
    let task = |scenario: usize| {
        agents.iter().map(move |defect| Task {
            defect: *defect,
            scenario,
        })
    };
    (0..config.scenarios.len()).flat_map(task).collect()
}

/// Does the same work on each of the threads, which are counted from 0.
fn on_threads(
    config: &MutationConfig,
    work: impl Fn(usize) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let thread = |number: usize| scope.spawn(move || work(number));
        let threads: Vec<_> = (0..config.workers.max(1)).map(thread).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker crashed")))
        })
    })
}

/// The next task that is of use.
fn next_task(
    config: &MutationConfig,
    tasks: &[Task],
    next: &AtomicUsize,
    done: &Mutex<Done>,
) -> Option<Task> {
    loop {
        let task = tasks.get(next.fetch_add(1, Ordering::Relaxed))?;
        let caught = |defect| lock(done).caught.contains(&defect);
        if !(config.until_caught && task.defect.is_some_and(caught)) {
            return Some(*task);
        }
    }
}

fn in_lab(config: &MutationConfig, task: Task) -> io::Result<Finding> {
    lab::block_on(async {
        let server = Arc::new(ReplayServer::in_memory(ServerConfig::default()));
        let driver = ReferenceDriver::new(task.defect.into_iter().collect());
        let runner = Runner::new(
            server,
            Arc::new(driver),
            run_config(config, task.defect, None),
        );
        Finding::of(&runner.run(&config.scenarios[task.scenario]).await)
    })
}

fn run_config(config: &MutationConfig, defect: Option<Defect>, dir: Option<PathBuf>) -> RunConfig {
    RunConfig {
        limit: if defect.is_some() {
            config.limit
        } else {
            WAIT_LIMIT
        },
        seed: 0,
        recordings: config.recordings.clone(),
        dir,
        rules_only: false,
        judge: cutpoint_check::judge,
    }
}

/// What the cases so far have shown.
#[derive(Debug, Default)]
struct Done {
    findings: Vec<(Task, Finding)>,
    /// Defects that their own rules have caught.
    caught: BTreeSet<Defect>,
}

impl Done {
    fn take(&mut self, task: Task, finding: Finding) {
        if let Some(defect) = task.defect
            && finding.broken.iter().any(|rule| rule == defect.rule())
        {
            self.caught.insert(defect);
        }
        self.findings.push((task, finding));
    }
}

/// What a case showed.
#[derive(Debug, Clone, Default)]
struct Finding {
    /// The rules that were put to the test and kept.
    kept: Vec<String>,
    broken: Vec<String>,
    unmet: bool,
    note: Option<String>,
}

impl Finding {
    fn of(case: &CaseResult) -> Self {
        let broken = case
            .breaches(true)
            .map(|verdict| verdict.rule.clone())
            .collect();
        let is_kept =
            |verdict: &&RuleVerdict| matches!(verdict.verdict, Verdict::Pass { exercised: 1.. });
        let kept = case.verdicts.iter().filter(is_kept);
        let failed = !matches!(
            case.status,
            CaseStatus::Conforms | CaseStatus::Skipped | CaseStatus::Breach
        );
        let note = failed.then(|| {
            case.note
                .clone()
                .unwrap_or_else(|| format!("{:?}", case.status))
        });
        let unmet = case
            .unmet
            .first()
            .map(|unmet| format!("{}: {}", unmet.text, unmet.found));
        Self {
            kept: kept.map(|verdict| verdict.rule.clone()).collect(),
            broken,
            unmet: failed || unmet.is_some(),
            note: note.or(unmet),
        }
    }

    fn in_words(&self) -> String {
        let words = self.broken.iter().chain(&self.note);
        words.cloned().collect::<Vec<_>>().join(", ")
    }
}

fn sum_up(
    config: &MutationConfig,
    defects: &[Defect],
    without_rule: Vec<Defect>,
    mut done: Vec<(Task, Finding)>,
) -> Score {
    // Which case ended first depends on the machine; the result does not.
    done.sort_by_key(|(task, _)| task.scenario);
    let mut score = Score {
        mutants: defects.iter().copied().map(Mutant::new).collect(),
        without_rule,
        cases: done.len(),
        ..Score::default()
    };
    let place: BTreeMap<Defect, usize> = defects.iter().copied().zip(0..).collect();
    for (task, finding) in done {
        let name = ScenarioName::of(&config.scenarios[task.scenario]);
        match task.defect.and_then(|defect| place.get(&defect)) {
            Some(at) => score.mutants[*at].take(&name, finding.broken, finding.unmet),
            None => {
                if finding.unmet || !finding.broken.is_empty() {
                    score.correct.push((name.clone(), finding.in_words()));
                }
                for rule in finding.kept {
                    score.exercised.entry(rule).or_default().push(name.clone());
                }
            }
        }
    }
    score
}

/// A thread with a runtime of its own: what happens in a case is ordered as on the command line.
struct Worker<'a> {
    config: &'a MutationConfig,
    number: usize,
    tasks: &'a [Task],
    next: &'a AtomicUsize,
    done: &'a Arc<Mutex<Done>>,
}

impl Worker<'_> {
    fn work(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.run())
    }

    async fn run(&self) -> io::Result<()> {
        let mut runners: BTreeMap<Option<Defect>, Arc<Runner>> = BTreeMap::new();
        let slots = Arc::new(Semaphore::new(SLOTS));
        let mut running = JoinSet::new();
        loop {
            if running.len() >= UNDER_WAY {
                running
                    .join_next()
                    .await
                    .transpose()
                    .map_err(io::Error::other)?;
            }
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let Some(task) = self.next() else { break };
            let runner = match runners.get(&task.defect) {
                Some(runner) => runner.clone(),
                None => {
                    let runner = Arc::new(self.runner(task.defect).await?);
                    runners.insert(task.defect, runner.clone());
                    runner
                }
            };
            let planned = self.config.scenarios[task.scenario].clone();
            let done = self.done.clone();
            running.spawn(async move {
                let finding =
                    in_slot(slot, async { Finding::of(&runner.run(&planned).await) }).await;
                lock(&done).take(task, finding);
            });
            // Those that have ended are let go of.
            while let Some(ended) = running.try_join_next() {
                ended.map_err(io::Error::other)?;
            }
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn next(&self) -> Option<Task> {
        next_task(self.config, self.tasks, self.next, self.done)
    }

    async fn runner(&self, defect: Option<Defect>) -> io::Result<Runner> {
        let server = ReplayServer::start(ServerConfig::default())
            .await
            .map_err(io::Error::other)?;
        let name = defect.map_or("correct", Defect::name);
        let dir = self.config.dir.join(format!("{}-{name}", self.number));
        std::fs::create_dir_all(&dir)?;
        let driver = ReferenceDriver::new(defect.into_iter().collect());
        let config = run_config(self.config, defect, Some(dir));
        Ok(Runner::new(Arc::new(server), Arc::new(driver), config))
    }
}

/// Runs a case in a slot, and on without it when it takes long.
async fn in_slot<T>(slot: OwnedSemaphorePermit, case: impl Future<Output = T>) -> T {
    let mut case = std::pin::pin!(case);
    if let Ok(finding) = tokio::time::timeout(SLOT_LIMIT, &mut case).await {
        return finding;
    }
    drop(slot);
    case.await
}

fn lock(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    // A panic while the lock is held leaves whole findings only.
    done.lock().unwrap_or_else(PoisonError::into_inner)
}
