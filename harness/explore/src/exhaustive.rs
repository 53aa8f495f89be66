//! Every order in which the agent's tasks can pass its points: the measure of a sweep.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_scenario::ast::Scenario;

use crate::executor::{RunError, RunResult, Violation};
use crate::schedule::{Act, Schedule, ScheduledAct};

/// The first point at which a session takes input.
const UP: &str = "submission.taken";

/// A moment at which one of the tasks that wait at points was chosen to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How many could be chosen.
    pub alternatives: usize,
    /// A number that is the same for moments after which the same can happen.
    pub state: u64,
}

/// Runs a scenario in a chosen order of the agent's tasks.
pub trait ChoiceExecutor: Sync {
    /// Runs it to its end: at each decision the task of the next number goes on, and after the last
    /// number always the one that has waited longest.
    fn run_with_choices(
        &self,
        scenario: &Scenario,
        choices: &[usize],
    ) -> (RunResult, Vec<Decision>);
}

/// What the orders of a scenario have shown.
#[derive(Debug, Clone, Default)]
pub struct Exploration {
    /// How many orders were run.
    pub ran: usize,
    /// How many distinct states there were at decisions.
    pub states: usize,
    /// Whether all orders were run.
    pub exhausted: bool,
    /// The digests of the distinct traces, each with the first order that gave it.
    pub traces: BTreeMap<u64, Vec<usize>>,
    /// What was violated.
    pub violations: BTreeSet<Violation>,
    /// Why a run shows nothing about the agent, if one does not.
    pub error: Option<RunError>,
}

/// The scenario with an act that can come at any time from when the session has started.
pub fn act_at_any_time(scenario: &Scenario, act: Act) -> Scenario {
    let act = ScheduledAct::at_point(act, UP, 1, 0);
    Schedule::of(act).applied_to(scenario).scenario
}

/// Runs every order of a scenario, until `stop` is set or `limit` of them were run. With `once`, what
/// can follow a state is run only where the state comes first.
pub fn run_every_order(
    executor: &dyn ChoiceExecutor,
    scenario: &Scenario,
    limit: usize,
    once: bool,
    stop: &AtomicBool,
) -> Exploration {
    let mut explored = Exploration::default();
    let mut states = HashSet::new();
    let mut open = vec![Vec::new()];
    while let Some(order) = open.pop() {
        if explored.ran >= limit || stop.load(Ordering::Relaxed) {
            explored.states = states.len();
            return explored;
        }
        let (result, decisions) = executor.run_with_choices(scenario, &order);
        explored.ran += 1;
        if result.error.is_some() {
            explored.error = explored.error.or(result.error);
            continue;
        }
        explored.violations.extend(result.violations);
        let known = order.len();
        let first = || order.clone();
        explored.traces.entry(result.digest).or_insert_with(first);
        for (at, decision) in decisions.iter().enumerate().skip(known) {
            if !states.insert(decision.state) && once {
                break;
            }
            for other in 1..decision.alternatives {
                let mut next = order.clone();
                next.resize(at, 0);
                next.push(other);
                open.push(next);
            }
        }
    }
    explored.states = states.len();
    explored.exhausted = true;
    explored
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tasks that pass a number of points each; the trace is the order in which they do, or only
    /// which task passed the last one.
    struct TwoTasks {
        points: [usize; 2],
        last_only: bool,
    }

    impl ChoiceExecutor for TwoTasks {
        fn run_with_choices(&self, _: &Scenario, choices: &[usize]) -> (RunResult, Vec<Decision>) {
            let (mut left, mut digest, mut decisions) = (self.points, 1, Vec::new());
            loop {
                let ready: Vec<usize> = (0..2).filter(|task| left[*task] > 0).collect();
                if ready.is_empty() {
                    break;
                }
                let choice = choices.get(decisions.len()).copied().unwrap_or(0);
                decisions.push(Decision {
                    alternatives: ready.len(),
                    state: (left[0] * 100 + left[1]) as u64
                        + if self.last_only { 0 } else { digest << 20 },
                });
                let task = ready[choice];
                left[task] -= 1;
                digest = if self.last_only { 0 } else { digest * 2 } + task as u64;
            }
            let result = RunResult {
                digest,
                ..RunResult::default()
            };
            (result, decisions)
        }
    }

    fn space(last_only: bool, limit: usize, once: bool) -> Exploration {
        let two = TwoTasks {
            points: [3, 3],
            last_only,
        };
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n}\n";
        let scenario = cutpoint_scenario::parse("s.kdl", text).unwrap();
        run_every_order(
            &two,
            &scenario.scenarios[0],
            limit,
            once,
            &AtomicBool::new(false),
        )
    }

    #[test]
    fn every_order_is_run_once() {
        let all = space(false, 100, false);
        // Six over three.
        assert_eq!((all.ran, all.traces.len(), all.exhausted), (20, 20, true));
        let cached = space(false, 100, true);
        assert_eq!((cached.ran, cached.traces.len()), (20, 20));
    }

    #[test]
    fn what_follows_a_state_is_run_once() {
        let all = space(true, 100, false);
        let cached = space(true, 100, true);
        assert_eq!((all.ran, all.traces.len()), (20, 2));
        assert!(cached.ran < 20 && cached.exhausted, "{cached:?}");
        let keys = |space: &Exploration| space.traces.keys().copied().collect::<Vec<_>>();
        assert_eq!(keys(&cached), keys(&all));
    }

    #[test]
    fn a_reached_limit_is_reported() {
        let some = space(false, 7, true);
        assert_eq!((some.ran, some.exhausted), (7, false));
    }
}
