//! Schedules: which acts are done at which cut points of a scenario.

use std::fmt;
use std::time::Duration;

use cutpoint_scenario::ast::{Action, Await, CutPoint, DisconnectKind, Scenario, Span, Step};

use crate::digest::digest_of_text;

/// How long the user of a resumed session waits before interrupting what still runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is done at a cut point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// The user interrupts.
    Interrupt,
    /// The user sends input that joins the running turn, or starts one.
    Steer,
    /// The user starts a turn that replaces the running one.
    Replace,
    /// The user approves the call that waits for approval.
    Approve,
    /// The user denies it.
    Deny,
    /// The user answers it with an abort of the turn.
    Abort,
    /// The user answers the question that waits.
    Answer,
    /// The connection to the model breaks.
    Drop,
    /// The agent is asked to shut down; the session is resumed and goes on.
    Shutdown,
    /// The agent is killed; the session is resumed and goes on.
    Crash,
    /// The agent's task that passes the point is held for a number of turns of the other tasks.
    Delay,
    /// It is held until no other task can go on: the longest delay.
    Hold,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 12] = [
        Self::Interrupt,
        Self::Steer,
        Self::Replace,
        Self::Approve,
        Self::Deny,
        Self::Abort,
        Self::Answer,
        Self::Drop,
        Self::Shutdown,
        Self::Crash,
        Self::Delay,
        Self::Hold,
    ];

    /// The act's name in tokens and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Steer => "steer",
            Self::Replace => "replace",
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Abort => "abort",
            Self::Answer => "answer",
            Self::Drop => "drop",
            Self::Shutdown => "shutdown",
            Self::Crash => "crash",
            Self::Delay => "delay",
            Self::Hold => "hold",
        }
    }

    /// The act of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.name() == name)
    }

    /// The named point that must be passed before the act can apply to anything.
    pub const fn needs(self) -> Option<&'static str> {
        match self {
            Self::Approve | Self::Deny | Self::Abort => Some("approval.asked"),
            Self::Answer => Some("question.asked"),
            Self::Drop => Some("request.send"),
            _ => None,
        }
    }

    /// Whether the agent is gone after the act, until it is started again.
    pub const fn ends_agent(self) -> bool {
        matches!(self, Self::Shutdown | Self::Crash)
    }

    pub(crate) fn action(self, number: usize) -> Action {
        // Each text is unique, so that a rule can tell which one was lost.
        match self {
            Self::Interrupt => Action::Interrupt { id: None },
            Self::Steer => Action::Steer {
                text: format!("one more thing ({number})"),
            },
            Self::Replace => Action::Replace {
                text: format!("do this instead ({number})"),
            },
            Self::Approve => Action::Approve { call: None },
            Self::Deny => Action::Deny { call: None },
            Self::Abort => Action::Abort { call: None },
            Self::Answer => Action::Answer {
                call: None,
                text: format!("whichever you like ({number})"),
            },
            Self::Drop => Action::Drop(DisconnectKind::default()),
            Self::Shutdown => Action::Shutdown,
            Self::Crash => Action::Kill,
            Self::Delay => Action::Hold { quiet: false },
            Self::Hold => Action::Hold { quiet: true },
        }
    }
}

/// An act at a cut point: one step of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduledAct {
    /// What is done.
    pub act: Act,
    /// Where it is done.
    pub at: Place,
}

/// The cut point of a scheduled act.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A named point inside the agent, which only the lab can see. The act is sent as the agent
    /// passes the point, and the agent is not held there.
    Point {
        /// The point's label.
        label: String,
        /// Which time it is passed, counted from 1.
        nth: usize,
        /// How many turns the agent's other tasks have after the point and before the act.
        yields: usize,
        /// How many bytes the rollout loses at its end, if the act is a crash.
        lost_bytes: usize,
    },
    /// A cut point that the server or the client can see, in any agent.
    Gate {
        /// The cut point.
        at: CutPoint,
        /// How many of the scenario's steps come before the act.
        after_steps: usize,
    },
}

impl ScheduledAct {
    /// An act at a named point of the agent.
    pub fn at_point(act: Act, label: impl Into<String>, nth: usize, yields: usize) -> Self {
        Self {
            act,
            at: Place::Point {
                label: label.into(),
                nth,
                yields,
                lost_bytes: 0,
            },
        }
    }

    /// A crash at a named point, after which the rollout lacks so many bytes at its end.
    pub fn crash(label: impl Into<String>, nth: usize, lost_bytes: usize) -> Self {
        Self {
            act: Act::Crash,
            at: Place::Point {
                label: label.into(),
                nth,
                yields: 0,
                lost_bytes,
            },
        }
    }

    /// The label and count of the named point, if the act is at one.
    pub(crate) fn point(&self) -> Option<(&str, usize)> {
        match &self.at {
            Place::Point { label, nth, .. } => Some((label, *nth)),
            Place::Gate { .. } => None,
        }
    }

    /// The act as steps of a scenario, the act itself first; after an act that ends the agent, how
    /// the session goes on.
    fn steps(&self, number: usize) -> Vec<Step> {
        let action = self.act.action(number);
        let ends = self.act.ends_agent();
        match &self.at {
            Place::Gate { at, .. } => {
                let mut steps = vec![Step {
                    at: Some(at.clone()),
                    ..step(action)
                }];
                steps.extend(ends.then(|| step(Action::Resume)));
                steps
            }
            Place::Point {
                label,
                nth,
                yields,
                lost_bytes,
            } => {
                let mut steps = vec![Step {
                    at: Some(CutPoint::Point {
                        label: label.clone(),
                        nth: *nth,
                    }),
                    yields: Some(if self.act == Act::Hold { 0 } else { *yields }),
                    ..step(action)
                }];
                if ends {
                    steps.extend(resumed(number, *lost_bytes));
                }
                steps
            }
        }
    }
}

fn step(action: Action) -> Step {
    Step {
        at: None,
        yields: None,
        action,
        span: Span::default(),
    }
}

/// How a session goes on after a named point at which its agent ended.
fn resumed(number: usize, lost_bytes: usize) -> Vec<Step> {
    let truncate = (lost_bytes > 0).then_some(Action::TruncateRollout { bytes: lost_bytes });
    let user = Action::User {
        text: format!("are you still there? ({number})"),
        id: None,
        refused: false,
    };
    // The model may now answer a request from before the crash: a long command, or one that waits
    // for an approval, is interrupted in the end.
    let rest = [
        Action::Resume,
        user,
        Action::Wait { duration: PATIENCE },
        Action::Interrupt { id: None },
        Action::Await(Await::TurnEnded),
    ];
    truncate.into_iter().chain(rest).map(step).collect()
}

impl fmt::Display for ScheduledAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = self.act.name();
        match &self.at {
            Place::Point {
                label,
                nth,
                yields,
                lost_bytes,
            } => {
                write!(f, "{act}@{label}.{nth}+{yields}")?;
                if *lost_bytes > 0 {
                    write!(f, "-{lost_bytes}")?;
                }
                Ok(())
            }
            Place::Gate { at, after_steps } => {
                // No word of such a cut point contains a dot.
                let at = at.to_string().replace(' ', ".");
                write!(f, "{act}@{at}/{after_steps}")
            }
        }
    }
}

/// The acts that are added to a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// The acts, in the order in which they are written.
    pub acts: Vec<ScheduledAct>,
}

/// A scenario with the acts of a schedule as steps of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedSchedule {
    /// The scenario.
    pub scenario: Scenario,
    /// The number of each act's step, counted from 1, in the order of the acts.
    pub step_numbers: Vec<usize>,
}

impl Schedule {
    /// A schedule of one act.
    pub fn of(act: ScheduledAct) -> Self {
        Self { acts: vec![act] }
    }

    /// The scenario with this schedule's steps.
    ///
    /// An act at a gate stands after as many steps as it says. One at a named point stands before
    /// the first step that waits, where a reader looks for what happens during that wait; but if it
    /// ends the agent, it comes last, with what the resumed session does.
    pub fn applied_to(&self, scenario: &Scenario) -> AppliedSchedule {
        let waits = |step: &Step| matches!(step.action, Action::Await(_) | Action::Wait { .. });
        let end = scenario.steps.len();
        let first_wait = scenario.steps.iter().position(waits).unwrap_or(end);
        let place = |act: &ScheduledAct| match &act.at {
            Place::Gate { after_steps, .. } => ((*after_steps).min(end), false),
            Place::Point { .. } if act.act.ends_agent() => (end, true),
            Place::Point { .. } => (first_wait, false),
        };
        let mut order: Vec<usize> = (0..self.acts.len()).collect();
        // The sort is stable: acts at one place stay in their order.
        order.sort_by_key(|act| place(&self.acts[*act]));
        let mut changed = scenario.clone();
        let (mut step_numbers, mut added) = (vec![0; self.acts.len()], 0);
        for index in order {
            let act = &self.acts[index];
            let at = place(act).0 + added;
            let steps = act.steps(index + 1);
            added += steps.len();
            step_numbers[index] = at + 1;
            changed.steps.splice(at..at, steps);
        }
        AppliedSchedule {
            scenario: changed,
            step_numbers,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, act) in self.acts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            act.fmt(f)?;
        }
        Ok(())
    }
}

/// A number that identifies a scenario by its text.
pub fn fingerprint(scenario: &Scenario) -> u64 {
    digest_of_text(&cutpoint_scenario::fingerprint_text(scenario))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";

    fn plain() -> Scenario {
        let mut file = cutpoint_scenario::parse("s.kdl", PLAIN).unwrap();
        file.scenarios.remove(0)
    }

    fn at_gate(act: Act, after_steps: usize) -> ScheduledAct {
        let at = CutPoint::StreamEvent { reply: 1, event: 4 };
        ScheduledAct {
            act,
            at: Place::Gate { at, after_steps },
        }
    }

    #[test]
    fn a_schedule_is_a_scenario_that_reads_back() {
        let acts = vec![
            ScheduledAct::at_point(Act::Interrupt, "abort.take", 2, 3),
            ScheduledAct::crash("abort.take", 2, 9),
            ScheduledAct::at_point(Act::Replace, "abort.take", 2, 0),
        ];
        let changed = Schedule { acts }.applied_to(&plain());
        let printed = changed.scenario.to_string();
        assert!(
            printed.contains("interrupt at=\"point abort.take 2\" yields=3"),
            "{printed}"
        );
        let again = cutpoint_scenario::parse("s.kdl", &printed).unwrap();
        assert_eq!(again.scenarios, std::slice::from_ref(&changed.scenario));
        assert_eq!(changed.scenario.steps.len(), 4 + 7);
        assert_eq!(changed.step_numbers, [2, 5, 3]);
        let end = printed.split_once("await turn-ended\n").unwrap().1;
        let end: Vec<&str> = end.lines().map(str::trim).collect();
        let crash = [
            "kill at=\"point abort.take 2\" yields=0",
            "truncate-rollout 9",
            "resume",
            "user \"are you still there? (2)\"",
            "wait \"2s\"",
            "interrupt",
            "await turn-ended",
        ];
        assert_eq!(end[..7], crash);
        assert_ne!(fingerprint(&changed.scenario), fingerprint(&plain()));
    }

    #[test]
    fn an_act_at_a_gate_stands_where_a_person_would_write_it() {
        let one = Schedule::of(at_gate(Act::Interrupt, 1)).applied_to(&plain());
        let text = one.scenario.to_string();
        let steps = "    user \"hi\"\n    interrupt at=\"reply 1 event 4\"\n    await turn-ended\n";
        assert!(text.contains(steps), "{text}");
        assert_eq!(one.step_numbers, [2]);
    }

    #[test]
    fn an_agent_that_ended_at_a_gate_is_resumed() {
        let acts = vec![at_gate(Act::Crash, 1), at_gate(Act::Steer, 1)];
        let crash = Schedule { acts }.applied_to(&plain());
        let text = crash.scenario.to_string();
        let steps = "kill at=\"reply 1 event 4\"\n    resume\n    steer ";
        assert!(text.contains(steps), "{text}");
        assert_eq!(crash.step_numbers, [2, 4]);
    }
}
