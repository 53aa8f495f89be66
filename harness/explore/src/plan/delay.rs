//! Delays: the agent's own tasks in another order than the scheduler's.

use std::sync::Arc;

use cutpoint_scenario::ast::Scenario;

use super::{PassedPoint, Plan, Schedules, passed_points};
use crate::executor::Executor;
use crate::schedule::{Act, Schedule, ScheduledAct};

/// The first delay comes at one of so many points, counted from the act's own.
pub const DELAY_WINDOW: usize = 12;

/// A delay that lasts until no other task can go on.
const LONG: (Act, usize) = (Act::Hold, 0);

/// The lengths of the first delay, the short ones first.
const FIRST: &[(Act, usize)] = &[
    (Act::Delay, 1),
    (Act::Delay, 2),
    (Act::Delay, 3),
    (Act::Delay, 5),
    LONG,
];

/// Those of the next ones: while one task is held, another may go far, and is held there until the
/// first one has done its work.
const NEXT: &[(Act, usize)] = &[LONG];

/// Each act of the plan without yields, with one delay after it, then with two.
pub(super) fn plan(
    executor: &dyn Executor,
    scenario: &Scenario,
    points: &Arc<[PassedPoint]>,
    plan: &Plan,
) -> Schedules {
    let mut planned = Schedules::default();
    if plan.delays == 0 {
        return planned;
    }
    let single = Plan {
        acts: plan.acts.clone(),
        ..Plan::default()
    };
    let mut undelayed: Vec<Schedule> = single.acts_at_points(points).iter().collect();
    // An agent that is gone has no tasks whose order could matter.
    undelayed.retain(|schedule| !schedule.acts[0].act.ends_agent());
    let delayable = |schedule| Delayable::new(executor, scenario, schedule);
    let mut last: Vec<Delayable> = undelayed.into_iter().map(delayable).collect();
    for count in 1..=plan.delays {
        let next = if count < plan.delays {
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

/// A schedule, and where one more delay can come, and of which lengths.
struct Delayable {
    schedule: Schedule,
    window: Vec<PassedPoint>,
    lengths: &'static [(Act, usize)],
}

impl Delayable {
    /// A delayed task lets the others come further than they do without it: so only a run with the
    /// earlier delays shows where the next one can come.
    fn new(executor: &dyn Executor, scenario: &Scenario, schedule: Schedule) -> Self {
        let result = executor.run(&schedule.applied_to(scenario).scenario);
        let mut all = passed_points(&result.points);
        let last = schedule.acts.last();
        let of_last = |point: &PassedPoint| last.is_some_and(|last| point.is_of(last));
        let from = all.iter().position(of_last).unwrap_or(all.len());
        let mut window = all.split_off(from);
        let lengths = if schedule.acts.len() > 1 {
            // Which task is held at the act's own point is another question than when the act
            // comes; a task that is held twice at one point is held once for longer.
            window.drain(..window.len().min(1));
            NEXT
        } else {
            window.truncate(DELAY_WINDOW);
            FIRST
        };
        Self {
            schedule,
            window,
            lengths,
        }
    }

    const fn len(&self) -> usize {
        self.window.len() * self.lengths.len()
    }

    fn each(&self) -> impl Iterator<Item = Schedule> + '_ {
        (0..self.len()).map(|number| self.delayed(number))
    }

    /// The schedule with one more delay, by its number.
    fn delayed(&self, number: usize) -> Schedule {
        let point = self.window[number / self.lengths.len()];
        let (act, yields) = self.lengths[number % self.lengths.len()];
        let mut delayed = self.schedule.clone();
        let delay = ScheduledAct::at_point(act, point.label, point.nth, yields);
        delayed.acts.push(delay);
        delayed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::executor::{RunResult, Violation};
    use crate::sweep::{Sweep, Target};

    /// An agent that violates a rule when it is interrupted at `b` while it is held there, and passes
    /// one more point when it is interrupted.
    struct Racy;

    impl Executor for Racy {
        fn run(&self, scenario: &Scenario) -> RunResult {
            let text = scenario.to_string();
            let mut points = vec!["a", "b"];
            if text.contains("interrupt at=") {
                points.push("c");
            }
            let together = text.contains("interrupt at=\"point b\" yields=0")
                && text.contains("hold at=\"point b\" until=quiet");
            let violation = Violation::new("TURN-1", "ended-twice", "ended twice");
            RunResult {
                violations: together.then_some(violation).into_iter().collect(),
                points,
                acted: (1..10).collect(),
                ..RunResult::default()
            }
        }
    }

    #[test]
    fn one_delay_comes_before_two_and_only_after_the_act() {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let file = cutpoint_scenario::parse("s.kdl", text).unwrap();
        let scenario = &file.scenarios[0];
        let delayed = |delays| Plan {
            acts: vec![Act::Interrupt],
            delays,
            ..Plan::default()
        };
        let points = passed_points(&Racy.run(scenario).points).into();
        let planned = |delays| -> Vec<String> {
            let all = plan(&Racy, scenario, &points, &delayed(delays));
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
        // Three pairs of points after the first, one after the second, the first of each in five
        // lengths.
        assert_eq!(two.len() - one.len(), 15 + 5);
        assert!(two.contains(&"interrupt@a.1+0,delay@a.1+5,hold@c.1+0".to_owned()));
        let sweep = Sweep {
            plan: delayed(2),
            workers: 1,
            ..Sweep::default()
        };
        let target = Target {
            file: "s.kdl",
            scenario,
            executor: &Racy,
        };
        let found = sweep.run(&[target], &AtomicBool::new(false), &|_| {});
        let [found] = &found.scenarios[..] else {
            panic!("{found:?}")
        };
        assert_eq!((found.failures.len(), found.missed), (1, 0));
        let smallest = &found.failures[0].token.schedule.acts;
        assert_eq!(smallest[1].to_string(), "hold@b.1+0");
    }
}
