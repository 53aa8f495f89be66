//! The sweep: every schedule within a bound, the smallest first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutpoint_scenario::ast::Scenario;
use serde::{Deserialize, Serialize};

use crate::class::class_of;
use crate::crash::{self, Level, Levels, Tally};
use crate::delay;
use crate::executor::{Broken, Executor, Observed};
use crate::schedule::{Act, Injection, Schedule, fingerprint};
use crate::schedules::Schedules;
use crate::shard::Shard;

/// Which schedules are swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// What is done at the points.
    pub acts: Vec<Act>,
    /// The most turns that the agent's other tasks have behind a point.
    pub yields: usize,
    /// Instead of the acts: a crash behind every write and every sync, with all images of the
    /// rollout that it can leave.
    pub crash: bool,
    /// Whether pairs of acts are swept too: a second one at every point behind the first one's.
    pub pairs: bool,
    /// The most delays of the agent's own tasks behind each single act.
    pub delays: usize,
    /// Which part of all schedules is run.
    pub shard: Shard,
    /// How many threads work.
    pub workers: usize,
}

/// Schedules that broke the same rules in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What was broken.
    pub broken: Vec<Broken>,
    /// The smallest schedule that did.
    pub schedule: Schedule,
    /// Its number in the whole bound: 0 is the scenario as it is.
    pub number: usize,
    /// How many did.
    pub schedules: usize,
    /// The digests of the different traces that they gave, in order.
    pub digests: Vec<u64>,
}

impl Class {
    /// How many different traces the schedules gave.
    pub fn traces(&self) -> usize {
        self.digests.len()
    }
}

/// Runs that say nothing of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many.
    pub runs: usize,
    /// The number of the smallest schedule among them.
    pub number: usize,
    /// Why that one does not.
    pub why: String,
}

/// What a sweep has shown.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// How often the scenario as it is passes a named point.
    pub points: usize,
    /// How many schedules the whole bound holds, the scenario as it is among them.
    pub bound: usize,
    /// How many of them fall to this part.
    pub planned: usize,
    /// How many of those were run.
    pub ran: usize,
    /// The digests of the different traces that they gave, in order.
    pub digests: Vec<u64>,
    /// In how many the agent never came to a point at which something was to be done.
    pub missed: usize,
    /// How often each rule was put to the test.
    pub exercised: BTreeMap<String, usize>,
    /// What was broken, by the smallest schedule.
    pub classes: Vec<Class>,
    /// How the crashes of each level went.
    pub levels: BTreeMap<Level, Tally>,
    /// Runs that say nothing of the agent.
    pub trouble: Option<Trouble>,
}

impl Sweep {
    /// How many different traces the schedules gave.
    pub fn traces(&self) -> usize {
        self.digests.len()
    }
}

/// How far a sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Schedules that were run.
    pub ran: usize,
    /// Schedules in all.
    pub planned: usize,
    /// Classes found.
    pub classes: usize,
}

/// Runs every schedule of a scenario within a bound, until told to stop. Every part runs the
/// scenario as it is, to see its points; it counts in the one to which it falls.
pub fn sweep(
    executor: &dyn Executor,
    scenario: &Scenario,
    bound: &Bound,
    stop: &AtomicBool,
    told: &(dyn Fn(Progress) + Sync),
) -> Sweep {
    let plain = executor.run(scenario);
    let anchors = anchors(&plain.passed);
    let mut levels = Levels::default();
    let schedules = if bound.crash {
        listed(levels.note(crash::plan(executor, scenario, &plain)))
    } else {
        let mut all = acts(&anchors, bound);
        all.append(delay::plan(executor, scenario, &plain, bound));
        all
    };
    let mut all = Schedules::default();
    all.add(0..1, |_| Schedule::default());
    all.append(schedules);
    let schedules = all;
    let fingerprint = fingerprint(scenario);
    let mine = |schedule: &Schedule| {
        let case = format_args!("{fingerprint:016x}:{schedule}");
        bound.shard.takes(case)
    };
    let planned = if bound.shard.is_part() {
        schedules.iter().filter(&mine).count()
    } else {
        schedules.len()
    };
    let mut found = Found::new(&schedules, levels, planned, plain.passed.len());
    let asis = schedules.get(0).unwrap_or_default();
    if mine(&asis) {
        found.take(0, asis, plain);
    }
    let found = Mutex::new(found);
    let next = AtomicUsize::new(1);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(schedule) = schedules.get(number) else {
                return;
            };
            if !mine(&schedule) {
                continue;
            }
            let observed = executor.run(&schedule.applied_to(scenario));
            let mut found = lock(&found);
            found.take(number, schedule, observed);
            told(found.progress());
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..bound.workers.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one is held ends the whole sweep.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A point, and which time it is passed.
pub(crate) type Anchor = (&'static str, usize);

/// The points of a run with how often each had been passed.
pub(crate) fn anchors(passed: &[&'static str]) -> Vec<Anchor> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let anchor = |label: &&'static str| {
        let count = counts.entry(*label).or_default();
        *count += 1;
        (*label, *count)
    };
    passed.iter().map(anchor).collect()
}

/// Schedules that were worked out before.
fn listed<'a>(all: Vec<Schedule>) -> Schedules<'a> {
    let mut listed = Schedules::default();
    listed.add(0..all.len(), move |number| all[number].clone());
    listed
}

/// The acts of a bound, the smallest first: one act before two, few yields before many, early points
/// before late ones.
pub(crate) fn acts<'a>(anchors: &'a [Anchor], bound: &Bound) -> Schedules<'a> {
    // The first point at which an act can be about anything.
    let first = |act: Act| match act.needs() {
        Some(needed) => anchors.iter().position(|(label, _)| *label == needed),
        None => Some(0),
    };
    let places = |act: Act, from: usize| {
        first(act).map_or(0..0, |first| {
            first.max(from)..anchors.len().max(first.max(from))
        })
    };
    let injection = move |place: usize, act: Act, yields: usize| {
        let (label, nth) = anchors[place];
        Injection {
            act,
            label: label.to_owned(),
            nth,
            yields,
            lost_bytes: 0,
        }
    };
    let mut all = Schedules::default();
    for yields in 0..=bound.yields {
        for act in bound.acts.iter().copied() {
            all.add(places(act, 0), move |place| Schedule {
                injections: vec![injection(place, act, yields)],
            });
        }
    }
    if bound.pairs {
        for (first, second) in act_pairs(&bound.acts) {
            for one in places(first, 0) {
                all.add(places(second, one), move |two| Schedule {
                    injections: vec![injection(one, first, 0), injection(two, second, 0)],
                });
            }
        }
    }
    all
}

fn act_pairs(acts: &[Act]) -> Vec<(Act, Act)> {
    let pairs = |first: &Act| {
        let first = *first;
        acts.iter().map(move |second| (first, *second))
    };
    acts.iter().flat_map(pairs).collect()
}

/// What the runs so far have shown.
struct Found {
    sweep: Sweep,
    levels: Levels,
    digests: HashSet<u64>,
    /// By the rules that were broken, and how.
    classes: BTreeMap<Vec<Broken>, Members>,
}

struct Members {
    /// The number of the smallest schedule.
    first: usize,
    schedule: Schedule,
    schedules: usize,
    digests: HashSet<u64>,
}

impl Found {
    fn new(schedules: &Schedules<'_>, levels: Levels, planned: usize, points: usize) -> Self {
        Self {
            sweep: Sweep {
                points,
                bound: schedules.len(),
                planned,
                ..Sweep::default()
            },
            levels,
            digests: HashSet::new(),
            classes: BTreeMap::new(),
        }
    }

    fn take(&mut self, number: usize, schedule: Schedule, observed: Observed) {
        self.sweep.ran += 1;
        if let Some(why) = observed.trouble {
            self.trouble(number, why);
            return;
        }
        self.digests.insert(observed.digest);
        self.levels.count(&schedule, &observed);
        self.sweep.missed += usize::from(observed.sent < schedule.injections.len());
        for (rule, count) in observed.exercised {
            *self.sweep.exercised.entry(rule).or_default() += count;
        }
        if observed.broken.is_empty() {
            return;
        }
        let class = class_of(observed.broken);
        let members = self.classes.entry(class).or_insert_with(|| Members {
            first: number,
            schedule: schedule.clone(),
            schedules: 0,
            digests: HashSet::new(),
        });
        members.schedules += 1;
        members.digests.insert(observed.digest);
        if number < members.first {
            members.first = number;
            members.schedule = schedule;
        }
    }

    /// Several threads work, and the smallest schedule is not always the first one that ends.
    fn trouble(&mut self, number: usize, why: String) {
        let runs = self.sweep.trouble.as_ref().map_or(0, |known| known.runs) + 1;
        let kept = self
            .sweep
            .trouble
            .take()
            .filter(|known| known.number < number);
        let first = kept.unwrap_or(Trouble { runs, number, why });
        self.sweep.trouble = Some(Trouble { runs, ..first });
    }

    fn progress(&self) -> Progress {
        Progress {
            ran: self.sweep.ran,
            planned: self.sweep.planned,
            classes: self.classes.len(),
        }
    }

    fn finish(self) -> Sweep {
        let class = |(broken, members): (Vec<Broken>, Members)| Class {
            broken,
            schedule: members.schedule,
            number: members.first,
            schedules: members.schedules,
            digests: sorted(members.digests),
        };
        let mut classes: Vec<Class> = self.classes.into_iter().map(class).collect();
        classes.sort_by_key(|class| class.number);
        Sweep {
            digests: sorted(self.digests),
            levels: self.levels.tallies(),
            classes,
            ..self.sweep
        }
    }
}

fn sorted(digests: HashSet<u64>) -> Vec<u64> {
    let mut digests: Vec<u64> = digests.into_iter().collect();
    digests.sort_unstable();
    digests
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that passes `a` twice and `b` once, and breaks a rule when it is interrupted at the
    /// second `a` with two yields or more.
    struct Fragile;

    impl Executor for Fragile {
        fn run(&self, scenario: &Scenario) -> Observed {
            let text = scenario.to_string();
            let breaks = (2..9).any(|yields| {
                text.contains(&format!("interrupt at=\"point a 2\" yields={yields}"))
            });
            let rule = "TURN-7".to_owned();
            let message = format!("turn {} was aborted twice", text.len());
            let injected = text.matches("yields=").count();
            Observed {
                digest: u64::from(breaks) + 2 * (injected as u64),
                broken: if breaks {
                    vec![Broken { rule, message }]
                } else {
                    Vec::new()
                },
                exercised: BTreeMap::from([("TURN-7".to_owned(), 1)]),
                passed: vec!["a", "b", "a"],
                writes: Vec::new(),
                syncs: Vec::new(),
                sent: injected,
                trouble: None,
            }
        }
    }

    fn plain() -> Scenario {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        cutpoint_scenario::parse("s.kdl", text)
            .unwrap()
            .scenarios
            .remove(0)
    }

    fn bound(pairs: bool) -> Bound {
        Bound {
            acts: vec![Act::Steer, Act::Interrupt],
            yields: 3,
            crash: false,
            delays: 0,
            pairs,
            shard: Shard::WHOLE,
            workers: 2,
        }
    }

    fn run(bound: &Bound) -> Sweep {
        sweep(&Fragile, &plain(), bound, &AtomicBool::new(false), &|_| {})
    }

    #[test]
    fn everything_in_the_bound_is_run_and_the_smallest_failure_is_kept() {
        let found = run(&bound(false));
        // Three points, two acts, four numbers of yields, and the plain scenario.
        assert_eq!((found.planned, found.ran), (25, 25));
        assert_eq!((found.traces(), found.missed), (3, 0));
        assert_eq!(found.exercised["TURN-7"], 25);
        let [class] = &found.classes[..] else {
            panic!("{:?}", found.classes)
        };
        assert_eq!(class.schedule.injections[0].to_string(), "interrupt@a.2+2");
        assert_eq!((class.schedules, class.traces()), (2, 1));
    }

    #[test]
    fn what_answers_comes_only_behind_what_asks() {
        let bound = Bound {
            acts: vec![Act::Approve, Act::Answer],
            yields: 0,
            ..bound(false)
        };
        let anchors = anchors(&["a", "approval.asked", "b"]);
        let all = acts(&anchors, &bound);
        let written: Vec<String> = all.iter().map(|it| it.injections[0].to_string()).collect();
        assert_eq!(written, ["approve@approval.asked.1+0", "approve@b.1+0"]);
    }

    #[test]
    fn pairs_come_behind_single_acts() {
        let found = run(&bound(true));
        // Four pairs of acts at six pairs of points.
        assert_eq!(found.planned, 25 + 24);
        assert_eq!(found.classes[0].schedule.injections.len(), 1);
    }

    /// What the bounds held when they were lists, written down plainly.
    #[test]
    fn schedules_by_number_are_those_that_the_loops_would_give() {
        let anchors = anchors(&["a", "request.send", "a", "b"]);
        let bound = Bound {
            acts: vec![Act::Steer, Act::Drop, Act::Answer],
            yields: 1,
            ..bound(true)
        };
        let places = |act, from: usize| match act {
            Act::Drop => from.max(1)..4,
            Act::Answer => 0..0,
            _ => from..4,
        };
        let mut expected = Vec::new();
        let written = |place: usize, act: Act, yields: usize| {
            let (label, nth) = anchors[place];
            format!("{}@{label}.{nth}+{yields}", act.name())
        };
        for yields in 0..=1 {
            for act in &bound.acts {
                expected.extend(places(*act, 0).map(|place| written(place, *act, yields)));
            }
        }
        for (first, second) in act_pairs(&bound.acts) {
            for one in places(first, 0) {
                let pair = |two| format!("{},{}", written(one, first, 0), written(two, second, 0));
                expected.extend(places(second, one).map(pair));
            }
        }
        let all = acts(&anchors, &bound);
        let found: Vec<String> = all.iter().map(|schedule| schedule.to_string()).collect();
        assert_eq!(found, expected);
        assert_eq!(all.len(), expected.len());
    }

    #[test]
    fn shards_make_up_the_whole() {
        let shard = |index| Bound {
            shard: Shard::new(index, 3).unwrap(),
            ..bound(true)
        };
        let parts: Vec<Sweep> = (0..3).map(|index| run(&shard(index))).collect();
        assert!(parts.iter().all(|part| part.bound == 49 && part.ran > 8));
        assert!(parts.iter().all(|part| part.ran == part.planned));
        assert_eq!(parts.iter().map(|part| part.ran).sum::<usize>(), 49);
        let stopped = sweep(
            &Fragile,
            &plain(),
            &bound(true),
            &AtomicBool::new(true),
            &|_| {},
        );
        assert_eq!((stopped.ran, stopped.planned), (1, 49));
    }

    #[test]
    fn trouble_is_told_of_the_smallest_schedule() {
        let mut found = Found::new(&Schedules::default(), Levels::default(), 0, 0);
        for (number, why) in [(4, "four"), (2, "two"), (3, "three")] {
            let observed = Observed {
                trouble: Some(why.to_owned()),
                ..Observed::default()
            };
            found.take(number, Schedule::default(), observed);
        }
        let trouble = found.finish().trouble.unwrap();
        assert_eq!((trouble.runs, trouble.number), (3, 2));
        assert_eq!(trouble.why, "two");
    }
}
