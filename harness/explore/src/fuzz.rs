//! The fuzzer: schedules beyond any bound, drawn at random and led by what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cutpoint_scenario::ast::Scenario;
use proptest::prelude::{RngExt as _, Strategy};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::class::class_of;
use crate::executor::{Broken, Executor, Observed};
use crate::schedule::Schedule;
use crate::shrink::shrink;
use crate::strategy;

/// Whether a smaller scenario still breaks what is looked for.
type Still<'a> = Box<dyn Fn(&[Broken]) -> bool + 'a>;

/// How many runs a worker builds upon at most.
const CORPUS: usize = 256;
/// Of so many runs one is of a scenario that is drawn anew.
const FRESH: u32 = 4;
/// How many acts a schedule has at most.
const ACTS: usize = 3;
/// In how many ways the same rules are broken before all further ones count as the last: each is made
/// smaller, which takes hundreds of runs.
const WAYS: usize = 8;

/// How much is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many runs in all.
    Runs(u64),
    /// Until told to stop.
    Endless,
}

/// What is fuzzed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fuzz {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How much.
    pub budget: Budget,
    /// How many threads work. Each draws on its own, so what is drawn depends on their number.
    pub workers: usize,
    /// The scenario whose schedules are drawn; scenarios are drawn as well unless given.
    pub scenario: Option<Scenario>,
    /// What is known to be broken: it is counted, and not made smaller again.
    pub known: Vec<Finding>,
}

/// A way in which rules were broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What the smallest scenario breaks. Two findings whose [`class_of`] this is the same are one.
    pub broken: Vec<Broken>,
    /// The smallest scenario that was found to.
    pub scenario: Scenario,
    /// How many runs broke the same.
    pub runs: usize,
}

/// What fuzzing has shown.
#[derive(Debug, Clone, Default)]
pub struct Fuzzed {
    /// How many runs there were, without those that made a failure smaller.
    pub runs: u64,
    /// How many different traces they gave.
    pub traces: usize,
    /// What was broken. What had been known comes first, in its order, with the runs of this time.
    pub findings: Vec<Finding>,
    /// Runs that say nothing of the agent: how many, and why the first one does not.
    pub trouble: Option<(usize, String)>,
}

/// What a search tells as it goes on: it may be ended at any moment, and what it has found is not to be
/// lost.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// So many runs are done, with so many findings.
    Ran(u64, usize),
    /// This failed, be it in a known way or in a new one.
    Failed(&'a Scenario, &'a [Broken]),
    /// The worker of that number begins to make this failure smaller, which takes hundreds of runs.
    Shrinks(usize, &'a Scenario, &'a [Broken]),
    /// What that failure has become; nothing if it is known.
    Shrunk(usize, Option<&'a Finding>),
}

/// Fuzzes until the budget is spent or it is told to stop, and tells how it goes on.
pub fn fuzz(
    executor: &dyn Executor,
    fuzz: &Fuzz,
    stop: &AtomicBool,
    told: &(dyn Fn(News<'_>) + Sync),
) -> Fuzzed {
    let workers = fuzz.workers.max(1);
    let (ran, found) = (AtomicU64::new(0), AtomicUsize::new(0));
    let work = |number: usize| {
        let mut worker = Worker::new(executor, fuzz, number, told);
        let quota = match fuzz.budget {
            // The first ones take what can't be divided.
            Budget::Runs(all) => {
                let (all_of, workers) = (all, workers as u64);
                all_of / workers + u64::from((number as u64) < all_of % workers)
            }
            Budget::Endless => u64::MAX,
        };
        while worker.fuzzed.runs < quota && !stop.load(Ordering::Relaxed) {
            let before = worker.fuzzed.findings.len();
            worker.step();
            let new = worker.fuzzed.findings.len() - before;
            let findings = found.fetch_add(new, Ordering::Relaxed) + new;
            told(News::Ran(ran.fetch_add(1, Ordering::Relaxed) + 1, findings));
        }
        worker
    };
    let done: Vec<Worker<'_>> = std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = (1..workers)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let mut done = vec![work(0)];
        // A worker that panics has found a bug of the explorer, which is not to be passed over.
        done.extend(others.into_iter().map(|other| match other.join() {
            Ok(worker) => worker,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        done
    });
    together(done)
}

fn together(workers: Vec<Worker<'_>>) -> Fuzzed {
    let mut all = Fuzzed::default();
    let (mut digests, mut classes) = (BTreeSet::new(), BTreeMap::new());
    for worker in workers {
        let one = worker.fuzzed;
        all.runs += one.runs;
        digests.extend(worker.digests);
        if let Some((count, why)) = one.trouble {
            all.trouble.get_or_insert((0, why)).0 += count;
        }
        for finding in one.findings {
            let class = class_of(finding.broken.clone());
            match classes.get(&class) {
                Some(at) => {
                    let known: &mut Finding = &mut all.findings[*at];
                    known.runs += finding.runs;
                }
                None => {
                    classes.insert(class, all.findings.len());
                    all.findings.push(finding);
                }
            }
        }
    }
    all.traces = digests.len();
    all
}

fn rules(broken: &[Broken]) -> BTreeSet<&str> {
    broken.iter().map(|broken| broken.rule.as_str()).collect()
}

/// A run that showed something new.
struct Kept {
    scenario: Scenario,
    schedule: Schedule,
    /// The points that it passed, and how often.
    points: Arc<[(String, usize)]>,
}

struct Worker<'a> {
    number: usize,
    executor: &'a dyn Executor,
    told: &'a (dyn Fn(News<'_>) + Sync),
    only: Option<&'a Scenario>,
    draws: TestRunner,
    corpus: Vec<Kept>,
    digests: BTreeSet<u64>,
    /// Failures by what they broke before they were made smaller, and the findings that they are.
    classes: BTreeMap<Vec<Broken>, usize>,
    fuzzed: Fuzzed,
}

impl<'a> Worker<'a> {
    fn new(
        executor: &'a dyn Executor,
        fuzz: &'a Fuzz,
        number: usize,
        told: &'a (dyn Fn(News<'_>) + Sync),
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
            told,
            only: fuzz.scenario.as_ref(),
            draws: TestRunner::new_with_rng(config, rng),
            corpus: Vec::new(),
            digests: BTreeSet::new(),
            classes: (fuzz.known.iter().enumerate())
                .map(|(at, known)| (class_of(known.broken.clone()), at))
                .collect(),
            fuzzed: Fuzzed {
                findings: fuzz.known.clone(),
                ..Fuzzed::default()
            },
        }
    }

    /// Draws one run and runs it.
    fn step(&mut self) {
        self.fuzzed.runs += 1;
        // None of the strategies rejects what it has drawn, so there always is something.
        let Some((scenario, schedule)) = self.next() else {
            return;
        };
        let applied = schedule.applied_to(&scenario);
        let observed = self.executor.run(&applied);
        if let Some(why) = observed.trouble {
            self.fuzzed.trouble.get_or_insert((0, why)).0 += 1;
            return;
        }
        if !observed.broken.is_empty() {
            self.failed(&applied, &observed);
        }
        // Whatever the rules say of it: the same seed makes the same runs behind a change of a rule, and
        // an agent that breaks one rule nearly everywhere is searched beyond that.
        if self.digests.insert(observed.digest) {
            self.keep(scenario, schedule, &observed.passed);
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
        let kept = &self.corpus[at];
        let (scenario, mut schedule) = (kept.scenario.clone(), kept.schedule.clone());
        let injection = strategy::injection(kept.points.clone());
        let injection = self.draw(&injection)?;
        if schedule.injections.len() == ACTS {
            let at = self.draws.rng().random_range(0..ACTS);
            schedule.injections[at] = injection;
        } else {
            schedule.injections.push(injection);
        }
        Some((scenario, schedule))
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> Option<S::Value> {
        strategy
            .new_tree(&mut self.draws)
            .ok()
            .map(|tree| tree.current())
    }

    /// Keeps a run to build upon; one that was kept before makes room for it.
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
        let kept = Kept {
            scenario,
            schedule,
            points: points.collect(),
        };
        if self.corpus.len() < CORPUS {
            self.corpus.push(kept);
        } else {
            let at = self.draws.rng().random_range(0..CORPUS);
            self.corpus[at] = kept;
        }
    }

    /// A run that breaks what one has broken before is counted as that. Any other is made smaller:
    /// what it breaks beyond all that is known must stay broken, and what is left at the end tells
    /// whether it is known after all.
    fn failed(&mut self, applied: &Scenario, observed: &Observed) {
        (self.told)(News::Failed(applied, &observed.broken));
        let class = class_of(observed.broken.clone());
        if let Some(at) = self.classes.get(&class) {
            self.fuzzed.findings[*at].runs += 1;
            return;
        }
        let known = self.find(&class);
        let at = known.unwrap_or_else(|| self.shrunk(applied, observed, &class));
        self.fuzzed.findings[at].runs += 1;
        self.classes.insert(class, at);
    }

    /// The finding that stands for all that break these rules in further ways, if there are too many.
    fn find(&self, class: &[Broken]) -> Option<usize> {
        let rules = rules(class);
        let findings = self.fuzzed.findings.iter().enumerate();
        let ways: Vec<usize> = findings
            .filter(|(_, finding)| self::rules(&finding.broken) == rules)
            .map(|(at, _)| at)
            .collect();
        ways.get(WAYS - 1).copied()
    }

    /// Makes a failure smaller. Gives the number of the finding that it is then.
    fn shrunk(&mut self, applied: &Scenario, observed: &Observed, class: &[Broken]) -> usize {
        (self.told)(News::Shrinks(self.number, applied, &observed.broken));
        let known: BTreeSet<Broken> = self.classes.keys().flatten().cloned().collect();
        let known_rules: BTreeSet<&str> = known.iter().map(|it| it.rule.as_str()).collect();
        let by_rule = |it: &&Broken| !known_rules.contains(it.rule.as_str());
        // A rule that nothing has broken yet may be broken in whatever way makes the smallest scenario.
        let still: Still<'_> = match class.iter().find(by_rule) {
            Some(new) => Box::new(|broken| broken.iter().any(|it| it.rule == new.rule)),
            None => {
                let new = class.iter().find(|it| !known.contains(it));
                let new = new.or_else(|| class.first()).cloned();
                Box::new(move |broken| {
                    class_of(broken.to_vec())
                        .iter()
                        .any(|it| Some(it) == new.as_ref())
                })
            }
        };
        let scenario = shrink(self.executor, applied, still.as_ref());
        let mut seen = BTreeSet::new();
        let broken: Vec<Broken> = self
            .executor
            .run(&scenario)
            .broken
            .into_iter()
            .filter(|it| seen.insert(class_of(vec![it.clone()])))
            .collect();
        let class = class_of(broken.clone());
        let next = self.fuzzed.findings.len();
        let at = *self.classes.entry(class).or_insert(next);
        if at == next {
            self.fuzzed.findings.push(Finding {
                broken,
                scenario,
                runs: 0,
            });
        }
        let finding = self.fuzzed.findings.get(at).filter(|_| at == next);
        (self.told)(News::Shrunk(self.number, finding));
        at
    }
}
