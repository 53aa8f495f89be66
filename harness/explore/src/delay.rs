//! Delays: the agent's own tasks in another order than the scheduler's.

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Executor, Observed};
use crate::schedule::{Act, Injection, Schedule};
use crate::schedules::Schedules;
use crate::sweep::{Anchor, Bound, acts, anchors};

/// The first delay comes at so many points at most, counted from the act's own.
pub const WINDOW: usize = 12;

/// A delay that lasts until nothing else can go on.
const LONG: (Act, usize) = (Act::Hold, 0);

/// The lengths of the first delay, the short ones first.
const FIRST: &[(Act, usize)] = &[
    (Act::Delay, 1),
    (Act::Delay, 2),
    (Act::Delay, 3),
    (Act::Delay, 5),
    LONG,
];

/// Those of the next ones: while one task is held, another one may go far, and is held there until the
/// first one's work is done.
const NEXT: &[(Act, usize)] = &[LONG];

/// Each act of the bound without yields, with one delay behind it, then with two.
pub(crate) fn plan<'a>(
    executor: &dyn Executor,
    scenario: &Scenario,
    plain: &Observed,
    bound: &Bound,
) -> Schedules<'a> {
    let mut planned = Schedules::default();
    if bound.delays == 0 {
        return planned;
    }
    let single = Bound {
        yields: 0,
        pairs: false,
        ..bound.clone()
    };
    let anchors = anchors(&plain.passed);
    let mut undelayed: Vec<Schedule> = acts(&anchors, &single).iter().collect();
    // An agent that is gone has no tasks whose order could matter.
    undelayed.retain(|schedule| !schedule.injections[0].act.ends_agent());
    let delayable = |schedule| Delayable::new(executor, scenario, schedule);
    let mut last: Vec<Delayable> = undelayed.into_iter().map(delayable).collect();
    for count in 1..=bound.delays {
        let next = if count < bound.delays {
            let each = last.iter().flat_map(Delayable::each);
            each.map(delayable).collect()
        } else {
            Vec::new()
        };
        for one in std::mem::replace(&mut last, next) {
            planned.add(0..one.len(), move |number| one.delayed(number));
        }
    }
    planned
}

/// A schedule, and where one delay more can come, and of which lengths.
struct Delayable {
    schedule: Schedule,
    window: Vec<Anchor>,
    lengths: &'static [(Act, usize)],
}

impl Delayable {
    /// What is delayed lets others come further than they do without it: so where a delay can come is
    /// seen only in a run with those before it.
    fn new(executor: &dyn Executor, scenario: &Scenario, schedule: Schedule) -> Self {
        let observed = executor.run(&schedule.applied_to(scenario));
        let mut all = anchors(&observed.passed);
        let last = schedule.injections.last();
        let of_last = |anchor: &Anchor| {
            last.is_some_and(|last| anchor.0 == last.label && anchor.1 == last.nth)
        };
        let from = all.iter().position(of_last).unwrap_or(all.len());
        let mut window = all.split_off(from);
        let lengths = if schedule.injections.len() > 1 {
            // Who is held at the act's own point is another question than where the act comes; a task
            // that is held twice at one point is held once for longer.
            window.drain(..window.len().min(1));
            NEXT
        } else {
            window.truncate(WINDOW);
            FIRST
        };
        Self {
            schedule,
            window,
            lengths,
        }
    }

    fn len(&self) -> usize {
        self.window.len() * self.lengths.len()
    }

    fn each(&self) -> impl Iterator<Item = Schedule> + '_ {
        (0..self.len()).map(|number| self.delayed(number))
    }

    /// The schedule with one delay more, by its number.
    fn delayed(&self, number: usize) -> Schedule {
        let (label, nth) = self.window[number / self.lengths.len()];
        let (act, yields) = self.lengths[number % self.lengths.len()];
        let mut delayed = self.schedule.clone();
        delayed.injections.push(Injection {
            yields,
            act,
            label: label.to_owned(),
            nth,
            lost_bytes: 0,
        });
        delayed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::executor::Broken;
    use crate::sweep::sweep;

    /// An agent that breaks a rule when it is interrupted at `b` while it is held there, and passes a
    /// point more when it is interrupted.
    struct Racy;

    impl Executor for Racy {
        fn run(&self, scenario: &Scenario) -> Observed {
            let text = scenario.to_string();
            let mut passed = vec!["a", "b"];
            if text.contains("interrupt at=") {
                passed.push("c");
            }
            let together = text.contains("interrupt at=\"point b\" yields=0")
                && text.contains("hold at=\"point b\" until=quiet");
            let broken = Broken {
                rule: "TURN-1".to_owned(),
                message: "ended twice".to_owned(),
            };
            Observed {
                broken: together.then_some(broken).into_iter().collect(),
                passed,
                sent: text.matches("at=\"point").count(),
                ..Observed::default()
            }
        }
    }

    #[test]
    fn one_delay_comes_before_two_and_only_behind_the_act() {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let scenario = cutpoint_scenario::parse("s.kdl", text).unwrap();
        let scenario = &scenario.scenarios[0];
        let bound = |delays| Bound {
            acts: vec![Act::Interrupt],
            yields: 0,
            crash: false,
            pairs: false,
            delays,
            shard: crate::shard::Shard::WHOLE,
            workers: 1,
        };
        let planned = |delays| -> Vec<String> {
            let all = plan(&Racy, scenario, &Racy.run(scenario), &bound(delays));
            all.iter().map(|schedule| schedule.to_string()).collect()
        };
        let places = [("a", "a"), ("a", "b"), ("a", "c"), ("b", "b"), ("b", "c")];
        let lengths = |(act, held): (&str, &str)| -> Vec<String> {
            let short = [1, 2, 3, 5].map(|turns| format!("delay@{held}.1+{turns}"));
            let all = short.into_iter().chain([format!("hold@{held}.1+0")]);
            all.map(|delay| format!("interrupt@{act}.1+0,{delay}"))
                .collect()
        };
        let one: Vec<String> = places.into_iter().flat_map(lengths).collect();
        assert_eq!(planned(0), [""; 0]);
        assert_eq!(planned(1), one);
        let two = planned(2);
        assert_eq!(two[..one.len()], one);
        // Three pairs of points behind the first, one behind the second, the first of each in five lengths.
        assert_eq!(two.len() - one.len(), 15 + 5);
        assert!(two.contains(&"interrupt@a.1+0,delay@a.1+5,hold@c.1+0".to_owned()));
        let never = AtomicBool::new(false);
        let found = sweep(&Racy, scenario, &bound(2), &never, &|_| {});
        assert_eq!((found.classes.len(), found.missed), (1, 0));
        let smallest = &found.classes[0].schedule.injections;
        assert_eq!(smallest[1].to_string(), "hold@b.1+0");
    }
}
