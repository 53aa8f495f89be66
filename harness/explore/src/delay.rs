//! Delays: the agent's own tasks in another order than the scheduler's.

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Executor, Observed};
use crate::schedule::{Act, Injection, Schedule};
use crate::sweep::{Anchor, Bound, acts, anchors};

/// Delays come at so many points at most, counted from the act's own.
pub const WINDOW: usize = 12;

/// The lengths of a delay, the short one first.
const LENGTHS: [(Act, usize); 2] = [(Act::Delay, 1), (Act::Hold, 0)];

/// Each act of the bound without yields, with one delay behind it, then with two: at the points that the
/// agent passes from the act's point on when nothing is delayed.
pub(crate) fn plan(
    executor: &dyn Executor,
    scenario: &Scenario,
    plain: &Observed,
    bound: &Bound,
) -> Vec<Schedule> {
    if bound.delays == 0 {
        return Vec::new();
    }
    let single = Bound {
        yields: 0,
        pairs: false,
        ..bound.clone()
    };
    let anchors = anchors(&plain.passed);
    let mut singles: Vec<Schedule> = acts(&anchors, &single).iter().collect();
    // An agent that is gone has no tasks whose order could matter.
    singles.retain(|schedule| !schedule.injections[0].act.ends_agent());
    let windows: Vec<(Schedule, Vec<Anchor>)> = singles
        .into_iter()
        .map(|single| {
            let observed = executor.run(&single.applied_to(scenario));
            let window = window(&single.injections[0], &observed);
            (single, window)
        })
        .collect();
    let mut planned = Vec::new();
    for count in 1..=bound.delays {
        for (single, window) in &windows {
            planned.extend(with_delays(single, window, count));
        }
    }
    planned
}

/// The points that are passed from the act's on.
fn window(act: &Injection, observed: &Observed) -> Vec<Anchor> {
    let mut all = anchors(&observed.passed);
    let of_act = |anchor: &Anchor| anchor.0 == act.label && anchor.1 == act.nth;
    let from = all.iter().position(of_act).unwrap_or(all.len());
    let mut window = all.split_off(from);
    window.truncate(WINDOW);
    window
}

/// The schedule with so many delays more, each at a point behind that of the one before it.
fn with_delays(schedule: &Schedule, window: &[Anchor], count: usize) -> Vec<Schedule> {
    if count == 0 {
        return vec![schedule.clone()];
    }
    let mut found = Vec::new();
    for (place, (label, nth)) in window.iter().enumerate() {
        for (act, yields) in LENGTHS {
            let mut delayed = schedule.clone();
            delayed.injections.push(Injection {
                yields,
                act,
                label: (*label).to_owned(),
                nth: *nth,
                lost_bytes: 0,
            });
            found.extend(with_delays(&delayed, &window[place + 1..], count - 1));
        }
    }
    found
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
            let acts = all.iter().map(|schedule| {
                let acts = schedule.injections.iter().map(ToString::to_string);
                acts.collect::<Vec<_>>().join(",")
            });
            acts.collect()
        };
        let one = [
            "interrupt@a.1+0,delay@a.1+1",
            "interrupt@a.1+0,hold@a.1+0",
            "interrupt@a.1+0,delay@b.1+1",
            "interrupt@a.1+0,hold@b.1+0",
            "interrupt@a.1+0,delay@c.1+1",
            "interrupt@a.1+0,hold@c.1+0",
            "interrupt@b.1+0,delay@b.1+1",
            "interrupt@b.1+0,hold@b.1+0",
            "interrupt@b.1+0,delay@c.1+1",
            "interrupt@b.1+0,hold@c.1+0",
        ];
        assert_eq!(planned(0), [""; 0]);
        assert_eq!(planned(1), one);
        let two = planned(2);
        assert_eq!(two[..one.len()], one);
        // Three pairs of points behind the first, one behind the second, each in four lengths.
        assert_eq!(two.len() - one.len(), 12 + 4);
        let never = AtomicBool::new(false);
        let found = sweep(&Racy, scenario, &bound(2), &never, &|_| {});
        assert_eq!((found.classes.len(), found.missed), (1, 0));
        let smallest = &found.classes[0].schedule.injections;
        assert_eq!(smallest[1].to_string(), "hold@b.1+0");
    }
}
