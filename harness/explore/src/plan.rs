//! The plan of a sweep: which schedules there are.

mod crash;
mod delay;
mod schedules;

use std::collections::HashMap;
use std::sync::Arc;

use cutpoint_scenario::ast::{CutPoint, Scenario};

use crate::executor::{Executor, GatePassed, RunResult};
use crate::schedule::{Act, Place, Schedule, ScheduledAct};

pub use crash::{CrashLevel, CrashTally};
pub use delay::DELAY_WINDOW;
pub(crate) use schedules::Schedules;

/// Which schedules of a scenario there are. An executor that sees the agent's named points gets acts
/// at those; one that sees the server and the client only, acts at the gates there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is done at the cut points.
    pub acts: Vec<Act>,
    /// At a named point: the most turns that the agent's other tasks have before the act.
    pub yields: usize,
    /// Whether pairs of acts are planned too: the second at every named point from the first one's
    /// on, or at the same gate.
    pub pairs: bool,
    /// The most delays of the agent's own tasks after each single act at a named point.
    pub delays: usize,
    /// Instead of the acts: a crash right after every write and every sync, with each image of the
    /// rollout that it can leave.
    pub crashes: bool,
}

/// The schedules of one scenario, the scenario as it is first.
#[derive(Default)]
pub(crate) struct PlannedSchedules {
    pub(crate) schedules: Schedules,
    /// Of each crash its level, from number 1 on.
    levels: Vec<CrashLevel>,
}

impl PlannedSchedules {
    /// The level of the crash of that number, if it is one.
    pub(crate) fn level(&self, number: usize) -> Option<CrashLevel> {
        self.levels.get(number.checked_sub(1)?).copied()
    }
}

impl Plan {
    /// The schedules of a scenario, by what its run as it is has shown. Delays and second crashes
    /// take runs of their own.
    pub(crate) fn schedules(
        &self,
        executor: &dyn Executor,
        scenario: &Scenario,
        plain: &RunResult,
    ) -> PlannedSchedules {
        let mut planned = PlannedSchedules::default();
        planned.schedules.add(0..1, |_| Schedule::default());
        if self.crashes {
            let crashes = crash::plan(executor, scenario, plain);
            planned.levels = crashes.iter().map(|(level, _)| *level).collect();
            let crashes: Vec<Schedule> = crashes.into_iter().map(|(_, crash)| crash).collect();
            planned.schedules.append(crashes.into());
            return planned;
        }
        let points: Arc<[PassedPoint]> = passed_points(&plain.points).into();
        planned.schedules.append(self.acts_at_points(&points));
        let delayed = delay::plan(executor, scenario, &points, self);
        planned.schedules.append(delayed);
        let gates = self.acts_at_gates(&plain.gates);
        planned.schedules.append(gates.into());
        planned
    }

    /// The acts at named points, the smallest first: one act before two, few yields before many,
    /// early points before late ones.
    fn acts_at_points(&self, points: &Arc<[PassedPoint]>) -> Schedules {
        let all_points = || points.clone();
        let mut all = Schedules::default();
        for yields in 0..=self.yields {
            for act in self.acts.iter().copied() {
                let points = all_points();
                all.add(places(&points, act, 0), move |place| {
                    Schedule::of(points[place].act(act, yields))
                });
            }
        }
        if !self.pairs {
            return all;
        }
        for (first, second) in self.act_pairs() {
            for one in places(points, first, 0) {
                let points = all_points();
                all.add(places(&points, second, one), move |two| Schedule {
                    acts: vec![points[one].act(first, 0), points[two].act(second, 0)],
                });
            }
        }
        all
    }

    /// The acts at gates: one act before two, early gates before late ones.
    fn acts_at_gates(&self, gates: &[GatePassed]) -> Vec<Schedule> {
        let mut all = Vec::new();
        let mut add = |acts: &[Act]| {
            for gate in gates.iter().filter(|gate| fits(acts, &gate.at)) {
                let at = |act: &Act| ScheduledAct {
                    act: *act,
                    at: Place::Gate {
                        at: gate.at.clone(),
                        after_steps: gate.after_steps,
                    },
                };
                let acts = acts.iter().map(at).collect();
                all.push(Schedule { acts });
            }
        };
        for act in &self.acts {
            add(&[*act]);
        }
        if self.pairs {
            for (first, second) in self.act_pairs() {
                add(&[first, second]);
            }
        }
        all
    }

    fn act_pairs(&self) -> Vec<(Act, Act)> {
        let pairs = |first: &Act| {
            let first = *first;
            self.acts.iter().map(move |second| (first, *second))
        };
        self.acts.iter().flat_map(pairs).collect()
    }
}

/// The places among the points, from one on, at which the act can apply to something.
fn places(points: &[PassedPoint], act: Act, from: usize) -> std::ops::Range<usize> {
    let first = match act.needs() {
        Some(needed) => points.iter().position(|point| point.label == needed),
        None => Some(0),
    };
    first.map_or(0..0, |first| {
        let from = first.max(from);
        from..points.len().max(from)
    })
}

/// Whether acts can be done at a gate: only a stream that is held there can be dropped, and after an
/// act that ends the agent or the stream nothing is held any more.
fn fits(acts: &[Act], at: &CutPoint) -> bool {
    let holds = !matches!(at, CutPoint::AgentEvent { .. });
    let ends = |act: &Act| act.ends_agent() || *act == Act::Drop;
    let [earlier @ .., _] = acts else {
        return true;
    };
    !earlier.iter().any(ends) && (holds || !acts.contains(&Act::Drop))
}

/// A named point, and which time it was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassedPoint {
    pub(crate) label: &'static str,
    pub(crate) nth: usize,
}

impl PassedPoint {
    fn act(self, act: Act, yields: usize) -> ScheduledAct {
        ScheduledAct::at_point(act, self.label, self.nth, yields)
    }

    /// Whether it is the point of that act.
    fn is_of(self, act: &ScheduledAct) -> bool {
        act.point() == Some((self.label, self.nth))
    }
}

/// The points of a run, each with how often it had been passed.
pub(crate) fn passed_points(labels: &[&'static str]) -> Vec<PassedPoint> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let point = |label: &&'static str| {
        let count = counts.entry(*label).or_default();
        *count += 1;
        PassedPoint { label, nth: *count }
    };
    labels.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use cutpoint_scenario::ast::AgentEventKind;

    use super::*;

    fn plan(acts: &[Act], yields: usize, pairs: bool) -> Plan {
        Plan {
            acts: acts.to_vec(),
            yields,
            pairs,
            ..Plan::default()
        }
    }

    fn at_points(plan: &Plan, labels: &[&'static str]) -> Vec<String> {
        let all = plan.acts_at_points(&passed_points(labels).into());
        let written: Vec<String> = all.iter().map(|schedule| schedule.to_string()).collect();
        assert_eq!(written.len(), all.len());
        written
    }

    #[test]
    fn answers_come_only_after_what_asks() {
        let plan = plan(&[Act::Approve, Act::Answer], 0, false);
        let written = at_points(&plan, &["a", "approval.asked", "b"]);
        assert_eq!(written, ["approve@approval.asked.1+0", "approve@b.1+0"]);
    }

    /// What the plans would be as lists, written with plain loops.
    #[test]
    fn schedules_by_number_are_those_that_plain_loops_would_give() {
        let labels = ["a", "request.send", "a", "b"];
        let points = passed_points(&labels);
        let plan = plan(&[Act::Steer, Act::Drop, Act::Answer], 1, true);
        let places = |act, from: usize| match act {
            Act::Drop => from.max(1)..4,
            Act::Answer => 0..0,
            _ => from..4,
        };
        let written = |place: usize, act: Act, yields: usize| {
            let PassedPoint { label, nth } = points[place];
            format!("{}@{label}.{nth}+{yields}", act.name())
        };
        let mut expected = Vec::new();
        for yields in 0..=1 {
            for act in &plan.acts {
                expected.extend(places(*act, 0).map(|place| written(place, *act, yields)));
            }
        }
        for (first, second) in plan.act_pairs() {
            for one in places(first, 0) {
                let pair = |two| format!("{},{}", written(one, first, 0), written(two, second, 0));
                expected.extend(places(second, one).map(pair));
            }
        }
        assert_eq!(at_points(&plan, &labels), expected);
    }

    fn at_gates(plan: &Plan) -> Vec<String> {
        let gate = |at| GatePassed { at, after_steps: 1 };
        let gates = [
            gate(CutPoint::StreamEvent { reply: 1, event: 1 }),
            gate(CutPoint::AgentEvent {
                event: AgentEventKind::TurnEnded,
                nth: 1,
            }),
        ];
        let all = plan.acts_at_gates(&gates);
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn at_gates_single_acts_come_before_pairs_and_drops_need_a_stream() {
        let single = at_gates(&plan(&[Act::Interrupt, Act::Drop], 0, false));
        let wanted = [
            "interrupt@reply.1.event.1/1",
            "interrupt@event.turn-ended/1",
            "drop@reply.1.event.1/1",
        ];
        assert_eq!(single, wanted);
        let pairs = at_gates(&plan(&[Act::Interrupt], 0, true));
        assert_eq!(
            pairs[2..],
            [
                "interrupt@reply.1.event.1/1,interrupt@reply.1.event.1/1",
                "interrupt@event.turn-ended/1,interrupt@event.turn-ended/1"
            ]
        );
        let pairs = at_gates(&plan(&[Act::Drop, Act::Steer], 0, true));
        assert!(pairs.contains(&"steer@reply.1.event.1/1,drop@reply.1.event.1/1".to_owned()));
        assert!(
            pairs
                .iter()
                .all(|pair| !pair.contains("drop@reply.1.event.1/1,"))
        );
    }
}
