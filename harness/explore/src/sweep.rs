//! The sweep: every schedule within a bound, the smallest first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Broken, Executor, Observed, Write};
use crate::schedule::{Act, Injection, Schedule};

/// The point behind each write to a rollout, and the one behind each sync.
const WRITTEN: &str = "store.written";
const SYNCED: &str = "store.synced";

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
    /// Of all schedules only those whose number, counted from 0, leaves `shard.0` when divided by
    /// `shard.1`.
    pub shard: (usize, usize),
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
    /// How many did.
    pub schedules: usize,
    /// How many different traces they gave.
    pub traces: usize,
}

/// What a sweep has shown.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// How many schedules the bound holds.
    pub planned: usize,
    /// How many were run.
    pub ran: usize,
    /// How many different traces they gave.
    pub traces: usize,
    /// In how many the agent never came to a point at which something was to be done.
    pub missed: usize,
    /// How often each rule was put to the test.
    pub exercised: BTreeMap<String, usize>,
    /// What was broken, by the smallest schedule.
    pub classes: Vec<Class>,
    /// Runs that say nothing of the agent: how many, and why the first one does not.
    pub trouble: Option<(usize, String)>,
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

/// Runs every schedule of a scenario within a bound, until told to stop.
pub fn sweep(
    executor: &dyn Executor,
    scenario: &Scenario,
    bound: &Bound,
    stop: &AtomicBool,
    told: &(dyn Fn(Progress) + Sync),
) -> Sweep {
    let plain = executor.run(scenario);
    let schedules = schedules(&plain, bound);
    let found = Mutex::new(Found::default());
    lock(&found).take(usize::MAX, &Schedule::default(), plain);
    let next = AtomicUsize::new(0);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(schedule) = schedules.get(number) else {
                return;
            };
            let observed = executor.run(&schedule.applied_to(scenario));
            let mut found = lock(&found);
            found.take(number, schedule, observed);
            told(Progress {
                ran: found.sweep.ran,
                planned: schedules.len() + 1,
                classes: found.classes.len(),
            });
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..bound.workers.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.finish(schedules.len() + 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one is held ends the whole sweep.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The points of a run with how often each had been passed.
fn anchors(passed: &[&'static str]) -> Vec<(&'static str, usize)> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let anchor = |label: &&'static str| {
        let count = counts.entry(*label).or_default();
        *count += 1;
        (*label, *count)
    };
    passed.iter().map(anchor).collect()
}

/// The schedules of a bound, the smallest first: one act before two, few yields before many, early
/// points before late ones.
fn schedules(plain: &Observed, bound: &Bound) -> Vec<Schedule> {
    let anchors = anchors(&plain.passed);
    let all = if bound.crash {
        crashes(&anchors, &plain.writes)
    } else {
        acts(&anchors, bound)
    };
    let (of, shards) = bound.shard;
    let numbered = all.into_iter().enumerate();
    let mine = numbered.filter(|(number, _)| number % shards.max(1) == of);
    mine.map(|(_, schedule)| schedule).collect()
}

fn acts(anchors: &[(&'static str, usize)], bound: &Bound) -> Vec<Schedule> {
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
    let injection = |place: usize, act: Act, yields: usize| {
        let (label, nth) = anchors[place];
        Injection {
            act,
            label: label.to_owned(),
            nth,
            yields,
            lost_bytes: 0,
        }
    };
    let mut all = Vec::new();
    for yields in 0..=bound.yields {
        for act in &bound.acts {
            all.extend(places(*act, 0).map(|place| Schedule {
                injections: vec![injection(place, *act, yields)],
            }));
        }
    }
    if bound.pairs {
        for (first, second) in act_pairs(&bound.acts) {
            for one in places(first, 0) {
                all.extend(places(second, one).map(|two| Schedule {
                    injections: vec![injection(one, first, 0), injection(two, second, 0)],
                }));
            }
        }
    }
    all
}

/// A crash behind every write and sync. First with all that was written (level 0), then with what
/// was synced (level 1), then with the last line torn at each of its bytes.
fn crashes(anchors: &[(&'static str, usize)], writes: &[Write]) -> Vec<Schedule> {
    let crash = |(label, nth): (&str, usize), lost_bytes| Schedule {
        injections: vec![Injection {
            yields: 0,
            act: Act::Crash,
            label: label.to_owned(),
            nth,
            lost_bytes,
        }],
    };
    let (mut written, mut synced, mut torn) = (Vec::new(), Vec::new(), Vec::new());
    let mut unsynced_bytes = 0;
    for anchor in anchors {
        match anchor.0 {
            WRITTEN => {
                let write = writes.get(anchor.1 - 1).copied().unwrap_or_default();
                unsynced_bytes += write.bytes;
                let line = write.last_line_bytes.min(unsynced_bytes);
                torn.extend((1..line).map(|lost| crash(*anchor, lost)));
                synced.push(crash(*anchor, unsynced_bytes));
            }
            SYNCED => unsynced_bytes = 0,
            _ => continue,
        }
        written.push(crash(*anchor, 0));
    }
    [written, synced, torn].concat()
}

fn act_pairs(acts: &[Act]) -> Vec<(Act, Act)> {
    let pairs = |first: &Act| {
        let first = *first;
        acts.iter().map(move |second| (first, *second))
    };
    acts.iter().flat_map(pairs).collect()
}

/// What the runs so far have shown.
#[derive(Default)]
struct Found {
    sweep: Sweep,
    digests: BTreeSet<u64>,
    /// By the rules that were broken, and how.
    classes: BTreeMap<Vec<Broken>, Members>,
}

struct Members {
    /// The number of the smallest schedule.
    first: usize,
    schedule: Schedule,
    schedules: usize,
    digests: BTreeSet<u64>,
}

impl Found {
    fn take(&mut self, number: usize, schedule: &Schedule, observed: Observed) {
        self.sweep.ran += 1;
        if let Some(why) = observed.trouble {
            let trouble = self.sweep.trouble.get_or_insert((0, why));
            trouble.0 += 1;
            return;
        }
        self.digests.insert(observed.digest);
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
            digests: BTreeSet::new(),
        });
        members.schedules += 1;
        members.digests.insert(observed.digest);
        // The plain scenario is smaller than any schedule of it, and comes first with no number.
        if members.first != usize::MAX && number < members.first {
            members.first = number;
            members.schedule = schedule.clone();
        }
    }

    fn finish(self, planned: usize) -> Sweep {
        let mut classes: Vec<(usize, Class)> = self
            .classes
            .into_iter()
            .map(|(broken, members)| {
                let class = Class {
                    broken,
                    schedule: members.schedule,
                    schedules: members.schedules,
                    traces: members.digests.len(),
                };
                (members.first.wrapping_add(1), class)
            })
            .collect();
        classes.sort_by_key(|(first, _)| *first);
        Sweep {
            planned,
            traces: self.digests.len(),
            classes: classes.into_iter().map(|(_, class)| class).collect(),
            ..self.sweep
        }
    }
}

/// The same rules broken in the same way, whatever ids and numbers the messages name.
pub(crate) fn class_of(broken: Vec<Broken>) -> Vec<Broken> {
    let general = |broken: Broken| Broken {
        rule: broken.rule,
        message: broken
            .message
            .split(' ')
            .map(without_numbers)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let class: BTreeSet<Broken> = broken.into_iter().map(general).collect();
    class.into_iter().collect()
}

fn without_numbers(word: &str) -> String {
    let is_id = word.len() > 20 && word.contains('-');
    let number = word.trim_matches(|c: char| !c.is_ascii_digit());
    if is_id || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())) {
        "N".to_owned()
    } else {
        word.to_owned()
    }
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
            pairs,
            shard: (0, 1),
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
        assert_eq!((found.traces, found.missed), (3, 0));
        assert_eq!(found.exercised["TURN-7"], 25);
        let [class] = &found.classes[..] else {
            panic!("{:?}", found.classes)
        };
        assert_eq!(class.schedule.injections[0].to_string(), "interrupt@a.2+2");
        assert_eq!((class.schedules, class.traces), (2, 1));
    }

    #[test]
    fn a_crash_leaves_what_was_written_or_synced_or_a_torn_line() {
        let anchors = anchors(&["request.send", WRITTEN, WRITTEN, SYNCED, WRITTEN]);
        let write = |bytes, last_line_bytes| Write {
            bytes,
            last_line_bytes,
        };
        let all = crashes(&anchors, &[write(9, 3), write(5, 2), write(4, 4)]);
        let written: Vec<String> = all.iter().map(|it| it.injections[0].to_string()).collect();
        assert_eq!(
            written,
            [
                "crash@store.written.1+0",
                "crash@store.written.2+0",
                "crash@store.synced.1+0",
                "crash@store.written.3+0",
                "crash@store.written.1+0-9",
                "crash@store.written.2+0-14",
                "crash@store.written.3+0-4",
                "crash@store.written.1+0-1",
                "crash@store.written.1+0-2",
                "crash@store.written.2+0-1",
                "crash@store.written.3+0-1",
                "crash@store.written.3+0-2",
                "crash@store.written.3+0-3",
            ]
        );
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

    #[test]
    fn shards_make_up_the_whole() {
        let shard = |of| Bound {
            shard: (of, 3),
            ..bound(true)
        };
        let ran: usize = (0..3).map(|of| run(&shard(of)).ran - 1).sum();
        assert_eq!(ran, 48);
        let stopped = sweep(
            &Fragile,
            &plain(),
            &bound(true),
            &AtomicBool::new(true),
            &|_| {},
        );
        assert_eq!((stopped.ran, stopped.planned), (1, 49));
    }
}
