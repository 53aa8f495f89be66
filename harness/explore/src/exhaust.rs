//! Every order in which the agent's tasks can pass its points: what a sweep is measured against.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Broken, Observed};
use crate::schedule::{Act, Injection, Schedule};

/// The first point at which a session is there to be spoken to.
const UP: &str = "submission.taken";

/// A moment at which one of the tasks that wait at points had to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How many there were.
    pub alternatives: usize,
    /// A number that is the same for moments from which the same can follow.
    pub state: u64,
}

/// Runs a scenario in an order that is chosen.
pub trait Choosing: Sync {
    /// Runs it to its end: at each decision the numbered task goes on, and behind the last number always
    /// the one that has waited longest.
    fn run_choosing(&self, scenario: &Scenario, choices: &[usize]) -> (Observed, Vec<Decision>);
}

/// What the orders of a scenario have shown.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// How many were run.
    pub ran: usize,
    /// How many different moments were found at which somebody had to be chosen.
    pub states: usize,
    /// Whether there are no others.
    pub exhausted: bool,
    /// The different things that the agent and its client did in them, as numbers, each with the first order that gave it.
    pub traces: BTreeMap<u64, Vec<usize>>,
    /// What was broken.
    pub broken: BTreeSet<Broken>,
    /// Why a run says nothing of the agent, if one does not.
    pub trouble: Option<String>,
}

/// The scenario with an act that can come at any time from when the session has started.
pub fn free(scenario: &Scenario, act: Act) -> Scenario {
    let injection = Injection {
        yields: 0,
        act,
        label: UP.to_owned(),
        nth: 1,
        lost_bytes: 0,
    };
    let injections = vec![injection];
    Schedule { injections }.applied_to(scenario)
}

/// Runs every order of a scenario, until told to stop or until `limit` of them were run. With `once`,
/// what follows a state is looked at only where that comes first.
pub fn exhaust(
    executor: &dyn Choosing,
    scenario: &Scenario,
    limit: usize,
    once: bool,
    stop: &AtomicBool,
) -> Space {
    let mut space = Space::default();
    let mut states = HashSet::new();
    let mut open = vec![Vec::new()];
    while let Some(order) = open.pop() {
        if space.ran >= limit || stop.load(Ordering::Relaxed) {
            space.states = states.len();
            return space;
        }
        let (observed, decisions) = executor.run_choosing(scenario, &order);
        space.ran += 1;
        if observed.trouble.is_some() {
            space.trouble = space.trouble.or(observed.trouble);
            continue;
        }
        space.broken.extend(observed.broken);
        let known = order.len();
        let first = || order.clone();
        space.traces.entry(observed.digest).or_insert_with(first);
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
    space.states = states.len();
    space.exhausted = true;
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tasks that pass so many points each; the trace is the order in which they do, or only who
    /// has passed the last one.
    struct Two {
        points: [usize; 2],
        last_only: bool,
    }

    impl Choosing for Two {
        fn run_choosing(&self, _: &Scenario, choices: &[usize]) -> (Observed, Vec<Decision>) {
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
            let observed = Observed {
                digest,
                ..Observed::default()
            };
            (observed, decisions)
        }
    }

    fn space(last_only: bool, limit: usize, once: bool) -> Space {
        let two = Two {
            points: [3, 3],
            last_only,
        };
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n}\n";
        let scenario = cutpoint_scenario::parse("s.kdl", text).unwrap();
        exhaust(
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
    fn what_follows_a_state_is_looked_at_once() {
        let all = space(true, 100, false);
        let cached = space(true, 100, true);
        assert_eq!((all.ran, all.traces.len()), (20, 2));
        assert!(cached.ran < 20 && cached.exhausted, "{cached:?}");
        let keys = |space: &Space| space.traces.keys().copied().collect::<Vec<_>>();
        assert_eq!(keys(&cached), keys(&all));
    }

    #[test]
    fn a_limit_is_told() {
        let some = space(false, 7, true);
        assert_eq!((some.ran, some.exhausted), (7, false));
    }
}
