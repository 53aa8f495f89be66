//! The fuzzer: schedules beyond any plan, drawn at random and guided by new traces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cutpoint_scenario::ast::Scenario;
use proptest::prelude::{RngExt as _, Strategy};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::executor::{Executor, RunResult, Violation};
use crate::failure_group::{Clause, FailureKey, first_of_each_clause};
use crate::schedule::Schedule;
use crate::shrink::shrink;
use crate::strategy;

/// Whether a smaller scenario still shows the failure.
type ShowsFailure<'a> = Box<dyn Fn(&[Violation]) -> bool + 'a>;

/// How many runs a worker keeps to build upon.
const CORPUS: usize = 256;
/// One of so many runs is of a scenario that is newly drawn.
const FRESH: u32 = 4;
/// The most acts of a schedule.
const ACTS: usize = 3;
/// How many findings of the same rules there are before all further ones count as the last: each is
/// shrunk, which takes hundreds of runs.
const FINDINGS_OF_SAME_RULES: usize = 8;

/// How much is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// A number of runs.
    Runs(u64),
    /// Until it is stopped.
    Endless,
}

/// What is fuzzed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fuzz {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// When it ends.
    pub budget: Budget,
    /// How many threads run schedules. Each draws on its own, so what is drawn depends on their number.
    pub workers: usize,
    /// The scenario whose schedules are drawn. Without one, scenarios are drawn as well.
    pub scenario: Option<Scenario>,
    /// Failures that are known: they are counted, and not shrunk again.
    pub known: Vec<Finding>,
}

/// A failure that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What the smallest scenario violates. Two findings with the same [`FailureKey`] are one.
    pub violations: Vec<Violation>,
    /// The smallest scenario that was found.
    pub scenario: Scenario,
    /// How many runs failed in the same way.
    pub runs: usize,
}

/// What fuzzing has shown.
#[derive(Debug, Clone, Default)]
pub struct FuzzOutcome {
    /// How many runs there were, without those that shrank a failure.
    pub runs: u64,
    /// How many distinct traces they gave.
    pub traces: usize,
    /// The failures. Those that were known come first, in their order, with the runs of this time.
    pub findings: Vec<Finding>,
    /// Runs that show nothing about the agent: how many, and why the first one shows nothing.
    pub errors: Option<(usize, String)>,
}

/// What a search reports while it goes on: it may be ended at any moment, and its findings must not be
/// lost.
#[derive(Debug, Clone, Copy)]
pub enum FuzzEvent<'a> {
    /// A run has ended.
    Ran {
        /// How many have ended so far.
        runs: u64,
        /// How many findings there are.
        findings: usize,
    },
    /// A run failed, in a known way or in a new one.
    Failed {
        /// The scenario as it was run.
        scenario: &'a Scenario,
        /// What it violated.
        violations: &'a [Violation],
    },
    /// A worker begins to shrink a failure, which takes hundreds of runs.
    Shrinking {
        /// The worker's number.
        worker: usize,
        /// The scenario as it was run.
        scenario: &'a Scenario,
        /// What it violated.
        violations: &'a [Violation],
    },
    /// The worker has shrunk it.
    Shrunk {
        /// The worker's number.
        worker: usize,
        /// What it has become, unless that is known.
        finding: Option<&'a Finding>,
    },
}

/// What is called at each event of a search.
type OnEvent<'a> = &'a (dyn Fn(FuzzEvent<'_>) + Sync);

impl Fuzz {
    /// Fuzzes until the budget is spent or `stop` is set.
    pub fn run(
        &self,
        executor: &dyn Executor,
        stop: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> FuzzOutcome {
        let (ran, found) = (AtomicU64::new(0), AtomicUsize::new(0));
        let work = |number: usize| {
            let mut worker = Worker::new(executor, self, number, on_event);
            let quota = self.quota(number);
            while worker.outcome.runs < quota && !stop.load(Ordering::Relaxed) {
                let before = worker.outcome.findings.len();
                worker.step();
                let new = worker.outcome.findings.len() - before;
                let findings = found.fetch_add(new, Ordering::Relaxed) + new;
                let runs = ran.fetch_add(1, Ordering::Relaxed) + 1;
                on_event(FuzzEvent::Ran { runs, findings });
            }
            worker
        };
        let done: Vec<Worker<'_>> = std::thread::scope(|scope| {
            let work = &work;
            let others: Vec<_> = (1..self.workers.max(1))
                .map(|number| scope.spawn(move || work(number)))
                .collect();
            let mut done = vec![work(0)];
            // A worker that panics has found a bug of the explorer, which must be seen.
            done.extend(others.into_iter().map(|other| match other.join() {
                Ok(worker) => worker,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            done
        });
        merge_outcomes(done)
    }

    /// How many runs fall to the worker of that number. The first ones take the remainder.
    fn quota(&self, worker: usize) -> u64 {
        match self.budget {
            Budget::Runs(all) => {
                let workers = self.workers.max(1) as u64;
                all / workers + u64::from((worker as u64) < all % workers)
            }
            Budget::Endless => u64::MAX,
        }
    }
}

fn merge_outcomes(workers: Vec<Worker<'_>>) -> FuzzOutcome {
    let mut all = FuzzOutcome::default();
    let (mut digests, mut numbers) = (BTreeSet::new(), BTreeMap::new());
    for worker in workers {
        let one = worker.outcome;
        all.runs += one.runs;
        digests.extend(worker.digests);
        if let Some((count, why)) = one.errors {
            all.errors.get_or_insert((0, why)).0 += count;
        }
        for finding in one.findings {
            let key = FailureKey::of(&finding.violations);
            match numbers.get(&key) {
                Some(at) => {
                    let known: &mut Finding = &mut all.findings[*at];
                    known.runs += finding.runs;
                }
                None => {
                    numbers.insert(key, all.findings.len());
                    all.findings.push(finding);
                }
            }
        }
    }
    all.traces = digests.len();
    all
}

/// A run with a new trace, which later runs build upon.
struct CorpusEntry {
    scenario: Scenario,
    schedule: Schedule,
    /// The points that it passed, and how often.
    points: Arc<[(String, usize)]>,
}

struct Worker<'a> {
    number: usize,
    executor: &'a dyn Executor,
    on_event: OnEvent<'a>,
    only: Option<&'a Scenario>,
    draws: TestRunner,
    corpus: Vec<CorpusEntry>,
    digests: BTreeSet<u64>,
    /// The numbers of findings by what failed before it was shrunk.
    known: BTreeMap<FailureKey, usize>,
    outcome: FuzzOutcome,
}

impl<'a> Worker<'a> {
    fn new(
        executor: &'a dyn Executor,
        fuzz: &'a Fuzz,
        number: usize,
        on_event: OnEvent<'a>,
    ) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&fuzz.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        Self {
            number,
            executor,
            on_event,
            only: fuzz.scenario.as_ref(),
            draws: TestRunner::new_with_rng(config, rng),
            corpus: Vec::new(),
            digests: BTreeSet::new(),
            known: (fuzz.known.iter().enumerate())
                .map(|(at, known)| (FailureKey::of(&known.violations), at))
                .collect(),
            outcome: FuzzOutcome {
                findings: fuzz.known.clone(),
                ..FuzzOutcome::default()
            },
        }
    }

    /// Draws one run and runs it.
    fn step(&mut self) {
        self.outcome.runs += 1;
        // None of the strategies rejects what it has drawn, so there always is something.
        let Some((scenario, schedule)) = self.next() else {
            return;
        };
        let applied = schedule.applied_to(&scenario).scenario;
        let result = self.executor.run(&applied);
        if let Some(error) = result.error {
            let errors = self.outcome.errors.get_or_insert((0, error.to_string()));
            errors.0 += 1;
            return;
        }
        if !result.violations.is_empty() {
            self.take_failure(&applied, &result);
        }
        // The verdicts make no difference: the same seed gives the same runs after a change of a rule,
        // and an agent that violates one rule nearly everywhere is searched beyond that.
        if self.digests.insert(result.digest) {
            self.keep(scenario, schedule, &result.points);
        }
    }

    fn next(&mut self) -> Option<(Scenario, Schedule)> {
        let fresh = match self.only {
            Some(_) => self.corpus.is_empty(),
            None => self.corpus.is_empty() || self.draws.rng().random_range(0..FRESH) == 0,
        };
        if fresh {
            let scenario = match self.only {
                Some(only) => only.clone(),
                None => self.draw(&strategy::scenario())?,
            };
            return Some((scenario, Schedule::default()));
        }
        let at = self.draws.rng().random_range(0..self.corpus.len());
        let entry = &self.corpus[at];
        let (scenario, mut schedule) = (entry.scenario.clone(), entry.schedule.clone());
        let act = strategy::scheduled_act(entry.points.clone());
        let act = self.draw(&act)?;
        if schedule.acts.len() == ACTS {
            let at = self.draws.rng().random_range(0..ACTS);
            schedule.acts[at] = act;
        } else {
            schedule.acts.push(act);
        }
        Some((scenario, schedule))
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> Option<S::Value> {
        strategy
            .new_tree(&mut self.draws)
            .ok()
            .map(|tree| tree.current())
    }

    /// Keeps a run to build upon; if there are too many, in place of an earlier one.
    fn keep(&mut self, scenario: Scenario, schedule: Schedule, passed: &[&'static str]) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for label in passed {
            *counts.entry(label).or_default() += 1;
        }
        if counts.is_empty() {
            return;
        }
        let points = counts.into_iter();
        let points = points.map(|(label, times)| (label.to_owned(), times));
        let entry = CorpusEntry {
            scenario,
            schedule,
            points: points.collect(),
        };
        if self.corpus.len() < CORPUS {
            self.corpus.push(entry);
        } else {
            let at = self.draws.rng().random_range(0..CORPUS);
            self.corpus[at] = entry;
        }
    }

    /// Counts a failure that is known. Any other is shrunk: the part that is new must stay, and what is
    /// left in the end shows whether it is known after all.
    fn take_failure(&mut self, applied: &Scenario, result: &RunResult) {
        (self.on_event)(FuzzEvent::Failed {
            scenario: applied,
            violations: &result.violations,
        });
        let key = FailureKey::of(&result.violations);
        if let Some(at) = self.known.get(&key) {
            self.outcome.findings[*at].runs += 1;
            return;
        }
        let last = self.last_of_many(&key);
        let at = last.unwrap_or_else(|| self.shrink(applied, result, &key));
        self.outcome.findings[at].runs += 1;
        self.known.insert(key, at);
    }

    /// The finding that stands for all further ones of the same rules, if there are too many.
    fn last_of_many(&self, key: &FailureKey) -> Option<usize> {
        let rules = key.rules();
        let findings = self.outcome.findings.iter().enumerate();
        let same = |finding: &Finding| FailureKey::of(&finding.violations).rules() == rules;
        findings
            .filter(|(_, finding)| same(finding))
            .map(|(at, _)| at)
            .nth(FINDINGS_OF_SAME_RULES - 1)
    }

    /// Shrinks a failure. Returns the number of the finding that it is then.
    fn shrink(&mut self, applied: &Scenario, result: &RunResult, key: &FailureKey) -> usize {
        (self.on_event)(FuzzEvent::Shrinking {
            worker: self.number,
            scenario: applied,
            violations: &result.violations,
        });
        let shows_failure = self.new_part(key);
        let scenario = shrink(self.executor, applied, shows_failure.as_ref());
        let violations = first_of_each_clause(self.executor.run(&scenario).violations);
        let next = self.outcome.findings.len();
        let key = FailureKey::of(&violations);
        let at = *self.known.entry(key).or_insert(next);
        if at == next {
            self.outcome.findings.push(Finding {
                violations,
                scenario,
                runs: 0,
            });
        }
        (self.on_event)(FuzzEvent::Shrunk {
            worker: self.number,
            finding: self.outcome.findings.get(at).filter(|_| at == next),
        });
        at
    }

    /// What must stay of a failure when it is shrunk: what nothing has violated before.
    fn new_part(&self, key: &FailureKey) -> ShowsFailure<'static> {
        let known: BTreeSet<&Clause> = self.known.keys().flat_map(FailureKey::clauses).collect();
        let known_rules: BTreeSet<&str> = known.iter().map(|it| it.rule.as_str()).collect();
        let is_new = |it: &&Clause| !known_rules.contains(it.rule.as_str());
        // Of a rule that nothing has violated yet, the smallest scenario may break any clause.
        if let Some(new) = key.clauses().find(is_new) {
            let rule = new.rule.clone();
            return Box::new(move |violations| violations.iter().any(|it| it.rule == rule));
        }
        let new = key.clauses().find(|it| !known.contains(it));
        let new = new.or_else(|| key.clauses().next()).cloned();
        Box::new(move |violations| violations.iter().any(|it| Some(Clause::from(it)) == new))
    }
}
