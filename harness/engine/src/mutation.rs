//! What the rules are worth: every planted defect of the reference agent against all scenarios.
//!
//! A defect is caught if the rule that it is planted for is broken in at least one scenario. The
//! correct agent runs along: a rule that it breaks would catch anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_check::outcome::{Case, Status};
use tokio::task::JoinSet;

use crate::driver::reference::ReferenceDriver;
use crate::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use crate::server::{ReplayServer, ServerConfig};

/// How many cases a worker has under way: nearly all of them wait most of the time.
const UNDER_WAY: usize = 32;
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

/// What became of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its own rule was broken.
    Caught,
    /// Only other rules or expectations were.
    CaughtByOthers,
    /// Nothing was.
    Survived,
}

impl Fate {
    /// The fate in a word or two.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::CaughtByOthers => "missed by its own rule",
            Self::Survived => "survived",
        }
    }
}

/// A defect with what it broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The defect.
    pub defect: Defect,
    /// The rules that were broken, of any level, each with the number of scenarios.
    pub caught_by: BTreeMap<String, usize>,
    /// In how many scenarios an expectation was not met, or the agent could not be run to the end.
    pub unmet: usize,
}

impl Mutant {
    /// What became of the defect.
    pub fn fate(&self) -> Fate {
        if self.caught_by.contains_key(self.defect.rule()) {
            Fate::Caught
        } else if !self.caught_by.is_empty() || self.unmet > 0 {
            Fate::CaughtByOthers
        } else {
            Fate::Survived
        }
    }
}

/// The result of all runs.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// The defects, in the order of their list.
    pub mutants: Vec<Mutant>,
    /// Defects that were not run, because their rule is not in the book.
    pub without_rule: Vec<Defect>,
    /// What speaks against the correct agent: scenario, and what is broken.
    pub correct: Vec<(String, String)>,
    /// How many cases ran.
    pub cases: usize,
}

impl Score {
    /// How many defects their own rules have caught.
    pub fn caught(&self) -> usize {
        self.mutants
            .iter()
            .filter(|mutant| mutant.fate() == Fate::Caught)
            .count()
    }

    /// Whether every defect was caught by its own rule, and the correct agent by none.
    pub fn is_full(&self) -> bool {
        self.caught() == self.mutants.len() && self.correct.is_empty()
    }
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
    let runs: Vec<Option<Defect>> = std::iter::once(None)
        .chain(defects.iter().copied().map(Some))
        .collect();
    // Scenario by scenario, so that a long one is not left to the end of every defect at once.
    let task = |scenario: usize| {
        runs.iter().map(move |defect| Task {
            defect: *defect,
            scenario,
        })
    };
    let tasks: Vec<Task> = (0..config.scenarios.len()).flat_map(task).collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Done> = Mutex::default();
    std::thread::scope(|scope| {
        let worker = |number: usize| {
            let worker = Worker {
                config,
                number,
                tasks: &tasks,
                next: &next,
                done: &done,
            };
            scope.spawn(move || worker.work())
        };
        let workers: Vec<_> = (0..config.workers.max(1)).map(worker).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker crashed")))
        })
    })?;
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(sum_up(config, &defects, without_rule, &done.findings))
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
    broken: Vec<String>,
    unmet: bool,
    note: Option<String>,
}

impl Finding {
    fn of(case: &Case) -> Self {
        let broken = case
            .breaches(true)
            .map(|verdict| verdict.rule.clone())
            .collect();
        let failed = !matches!(
            case.status,
            Status::Conforms | Status::Skipped | Status::Breach
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
    done: &[(Task, Finding)],
) -> Score {
    let mutant = |defect: &Defect| {
        let mut mutant = Mutant {
            defect: *defect,
            caught_by: BTreeMap::new(),
            unmet: 0,
        };
        for (_, finding) in done.iter().filter(|(task, _)| task.defect == Some(*defect)) {
            for rule in &finding.broken {
                *mutant.caught_by.entry(rule.clone()).or_default() += 1;
            }
            mutant.unmet += usize::from(finding.unmet);
        }
        mutant
    };
    let correct = done.iter().filter(|(task, _)| task.defect.is_none());
    let correct = correct.filter(|(_, finding)| finding.unmet || !finding.broken.is_empty());
    let named = |(task, finding): &(Task, Finding)| {
        (
            config.scenarios[task.scenario].file.clone(),
            finding.in_words(),
        )
    };
    Score {
        mutants: defects.iter().map(mutant).collect(),
        without_rule,
        correct: correct.map(named).collect(),
        cases: done.len(),
    }
}

/// A thread with a runtime of its own: what happens in a case is ordered as on the command line.
struct Worker<'a> {
    config: &'a MutationConfig,
    number: usize,
    tasks: &'a [Task],
    next: &'a AtomicUsize,
    done: &'a Mutex<Done>,
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
        let mut running = JoinSet::new();
        loop {
            while running.len() < UNDER_WAY
                && let Some(task) = self.tasks.get(self.next.fetch_add(1, Ordering::Relaxed))
            {
                if self.is_superfluous(task) {
                    continue;
                }
                let runner = match runners.get(&task.defect) {
                    Some(runner) => runner.clone(),
                    None => {
                        let runner = Arc::new(self.runner(task.defect).await?);
                        runners.insert(task.defect, runner.clone());
                        runner
                    }
                };
                let (task, planned) = (*task, self.config.scenarios[task.scenario].clone());
                running.spawn(async move { (task, Finding::of(&runner.run(&planned).await)) });
            }
            let Some(joined) = running.join_next().await else {
                return Ok(());
            };
            let (task, finding) = joined.map_err(io::Error::other)?;
            self.done
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(task, finding);
        }
    }

    fn is_superfluous(&self, task: &Task) -> bool {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        self.config.until_caught
            && task
                .defect
                .is_some_and(|defect| done.caught.contains(&defect))
    }

    async fn runner(&self, defect: Option<Defect>) -> io::Result<Runner> {
        let server = ReplayServer::start(ServerConfig::default())
            .await
            .map_err(io::Error::other)?;
        let name = defect.map_or("correct", Defect::name);
        let dir = self.config.dir.join(format!("{}-{name}", self.number));
        std::fs::create_dir_all(&dir)?;
        let driver = ReferenceDriver::new(defect.into_iter().collect());
        let config = RunConfig {
            limit: if defect.is_some() {
                self.config.limit
            } else {
                WAIT_LIMIT
            },
            seed: 0,
            recordings: self.config.recordings.clone(),
            dir,
        };
        Ok(Runner::new(Arc::new(server), Arc::new(driver), config))
    }
}

/// The score as people read it: a table, then what is wrong.
pub fn table(score: &Score) -> String {
    let mut text = format!(
        "{:26} {:8} {:24} {}\n",
        "defect", "rule", "verdict", "caught by (scenarios)"
    );
    for mutant in &score.mutants {
        let by = caught_by(mutant);
        let fate = mutant.fate().in_words();
        text.push_str(&format!(
            "{:26} {:8} {fate:24} {by}\n",
            mutant.defect.name(),
            mutant.defect.rule()
        ));
    }
    for defect in &score.without_rule {
        text.push_str(&format!(
            "{:26} {:8} not run: the rule is not in the book yet\n",
            defect.name(),
            defect.rule()
        ));
    }
    for (scenario, broken) in &score.correct {
        text.push_str(&format!(
            "\nthe correct agent fails in {scenario}: {broken}\n"
        ));
    }
    let (caught, all) = (score.caught(), score.mutants.len());
    let share = if all == 0 {
        100.0
    } else {
        100.0 * caught as f64 / all as f64
    };
    text.push_str(&format!(
        "\nmutation score: {caught} of {all} defects caught by their own rules ({share:.0} %), {} cases\n",
        score.cases
    ));
    text
}

/// The rules that a defect broke, its own first, then the most broken ones.
fn caught_by(mutant: &Mutant) -> String {
    let own = mutant.defect.rule();
    let mut rules: Vec<(&String, &usize)> = mutant.caught_by.iter().collect();
    rules.sort_by_key(|(rule, count)| (rule.as_str() != own, usize::MAX - **count));
    let mut words: Vec<String> = rules
        .iter()
        .map(|(rule, count)| format!("{rule} ({count})"))
        .collect();
    if mutant.unmet > 0 {
        words.push(format!("expectations ({})", mutant.unmet));
    }
    words.join(", ")
}

/// The score for programs.
pub fn json(score: &Score) -> serde_json::Value {
    let mutant = |mutant: &Mutant| {
        serde_json::json!({
            "defect": mutant.defect.name(),
            "rule": mutant.defect.rule(),
            "verdict": match mutant.fate() {
                Fate::Caught => "caught",
                Fate::CaughtByOthers => "caught_by_others",
                Fate::Survived => "survived",
            },
            "caught_by": mutant.caught_by,
            "unmet": mutant.unmet,
        })
    };
    let correct = |(scenario, broken): &(String, String)| serde_json::json!({"scenario": scenario, "broken": broken});
    serde_json::json!({
        "format": "cutpoint-mutation",
        "version": 1,
        "caught": score.caught(),
        "planted": score.mutants.len(),
        "cases": score.cases,
        "defects": score.mutants.iter().map(mutant).collect::<Vec<_>>(),
        "without_rule": score.without_rule.iter().map(|defect| defect.name()).collect::<Vec<_>>(),
        "correct_agent_fails": score.correct.iter().map(correct).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(rules: &[(&str, usize)], unmet: usize) -> Mutant {
        let caught_by = rules
            .iter()
            .map(|(rule, count)| ((*rule).to_owned(), *count))
            .collect();
        Mutant {
            defect: Defect::NoSync,
            caught_by,
            unmet,
        }
    }

    #[test]
    fn a_defect_is_caught_by_its_own_rule_alone() {
        assert_eq!(
            mutant(&[("MARK-2", 1), ("CALL-1", 3)], 0).fate(),
            Fate::Caught
        );
        assert_eq!(mutant(&[("CALL-1", 3)], 1).fate(), Fate::CaughtByOthers);
        assert_eq!(mutant(&[], 1).fate(), Fate::CaughtByOthers);
        assert_eq!(mutant(&[], 0).fate(), Fate::Survived);
    }

    #[test]
    fn the_score_is_full_only_without_any_fault() {
        let mut score = Score {
            mutants: vec![mutant(&[("MARK-2", 2), ("CALL-1", 3)], 0)],
            ..Score::default()
        };
        assert!(score.is_full());
        let text = table(&score);
        assert!(
            text.contains("MARK-2 (2), CALL-1 (3)") && text.contains("1 of 1 defects"),
            "{text}"
        );
        score
            .correct
            .push(("a.kdl".to_owned(), "CALL-1".to_owned()));
        assert!(!score.is_full() && table(&score).contains("fails in a.kdl: CALL-1"));
        score = Score {
            mutants: vec![mutant(&[("CALL-1", 1)], 0)],
            ..Score::default()
        };
        assert!(!score.is_full());
        assert_eq!(json(&score)["defects"][0]["verdict"], "caught_by_others");
    }
}
