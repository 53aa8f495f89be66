//! Schedules: what is done, and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cutpoint_scenario::ast::{Action, Await, CutPoint, DisconnectKind, Scenario, Span, Step};

use crate::digest::digest_of_text;

/// The version of the form in which tokens are written.
const TOKEN_VERSION: &str = "cp1";

/// How long the user of a resumed session waits before stopping what still goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is done at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// The user interrupts.
    Interrupt,
    /// The user says something that joins the running turn, or starts one.
    Steer,
    /// The user starts a turn that replaces the running one.
    Replace,
    /// The user approves what waits for approval.
    Approve,
    /// The user denies it.
    Deny,
    /// The user answers it with an abort of the turn.
    Abort,
    /// The user answers the question that waits.
    Answer,
    /// The connection to the model breaks.
    Drop,
    /// The agent is asked to end; the session is resumed and goes on.
    Shutdown,
    /// The agent is killed; the session is resumed and goes on.
    Crash,
    /// The agent's task that passes the point is held for as many turns of the others.
    Delay,
    /// It is held until nothing else can go on: the longest delay.
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

    /// The point before whose first passing there is nothing that the act could be about.
    pub const fn needs(self) -> Option<&'static str> {
        match self {
            Self::Approve | Self::Deny | Self::Abort => Some("approval.asked"),
            Self::Answer => Some("question.asked"),
            Self::Drop => Some("request.send"),
            _ => None,
        }
    }

    /// Whether the agent is gone behind it, until it is started again.
    pub const fn ends_agent(self) -> bool {
        matches!(self, Self::Shutdown | Self::Crash)
    }

    pub(crate) fn action(self, number: usize) -> Action {
        // Each text is a text of its own, so that a rule can tell which one was lost.
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

/// An act at a point of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Injection {
    /// How many turns the agent's other tasks have behind the point.
    pub yields: usize,
    /// What is done.
    pub act: Act,
    /// The point's label.
    pub label: String,
    /// Which time it is passed, counted from 1.
    pub nth: usize,
    /// How many bytes the rollout loses at its end, if the act is a crash.
    pub lost_bytes: usize,
}

impl Injection {
    /// The steps: the act, and how a session goes on that it has ended.
    fn steps(&self, number: usize) -> Vec<Step> {
        let step = |action| Step {
            at: None,
            yields: None,
            action,
            span: Span::default(),
        };
        let mut steps = vec![Step {
            at: Some(CutPoint::Point {
                label: self.label.clone(),
                nth: self.nth,
            }),
            yields: Some(if self.act == Act::Hold {
                0
            } else {
                self.yields
            }),
            ..step(self.act.action(number))
        }];
        if steps[0].action.ends_agent() {
            let bytes = self.lost_bytes;
            let tear = (bytes > 0).then(|| step(Action::TruncateRollout { bytes }));
            let user = Action::User {
                text: format!("are you still there? ({number})"),
                id: None,
                refused: false,
            };
            steps.extend(tear);
            // What the model had been asked for before may come now: a command that runs for long,
            // or one that waits for an approval, is stopped in the end.
            let wait = Action::Wait { duration: PATIENCE };
            let interrupt = Action::Interrupt { id: None };
            let ended = Action::Await(Await::TurnEnded);
            steps.extend([Action::Resume, user, wait, interrupt, ended].map(step));
        }
        steps
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            yields,
            act,
            label,
            nth,
            lost_bytes,
        } = self;
        write!(f, "{}@{label}.{nth}+{yields}", act.name())?;
        if *lost_bytes > 0 {
            write!(f, "-{lost_bytes}")?;
        }
        Ok(())
    }
}

/// What is done besides the steps of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Schedule {
    /// The acts, in the order in which they are written.
    pub injections: Vec<Injection>,
}

impl Schedule {
    /// The scenario with this schedule's steps in front of the first step that waits: there a reader
    /// looks for what happens while it does. What ends the agent cuts short what stands in front of
    /// it, and so comes last, with what the resumed session is to do.
    pub fn applied_to(&self, scenario: &Scenario) -> Scenario {
        let mut changed = scenario.clone();
        let waits = |step: &Step| matches!(step.action, Action::Await(_) | Action::Wait { .. });
        let place = changed.steps.iter().position(waits);
        let place = place.unwrap_or(changed.steps.len());
        let (mut during, mut behind) = (Vec::new(), Vec::new());
        for (at, injection) in self.injections.iter().enumerate() {
            let steps = injection.steps(at + 1);
            if steps.len() > 1 {
                behind.extend(steps);
            } else {
                during.extend(steps);
            }
        }
        changed.steps.splice(place..place, during);
        changed.steps.extend(behind);
        changed
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, injection) in self.injections.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            injection.fmt(f)?;
        }
        Ok(())
    }
}

/// A number that tells scenarios apart by what they say.
pub fn fingerprint(scenario: &Scenario) -> u64 {
    digest_of_text(&cutpoint_scenario::fingerprint_text(scenario))
}

/// One line that names a schedule of a scenario: `cp1:<scenario>:<seed>:<acts>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The scenario's [`fingerprint`].
    pub scenario: u64,
    /// The seed of everything random in the run.
    pub seed: u64,
    /// What is done.
    pub schedule: Schedule,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            seed,
            schedule,
        } = self;
        write!(f, "{TOKEN_VERSION}:{scenario:016x}:{seed}:{schedule}")
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another form altogether.
    #[error("`{0}` is no token; one looks like cp1:0123456789abcdef:0:interrupt@abort.take.1+2")]
    Form(String),
    /// It was written by another version.
    #[error("the token has version `{found}`; this build reads `{read}` here")]
    Version {
        /// The version that stands in it.
        found: String,
        /// The one that is read.
        read: &'static str,
    },
    /// An act that can't be read.
    #[error("`{0}` is no act; one looks like interrupt@abort.take.1+2")]
    Act(String),
}

/// The scenario, the seed and the acts of a token of that version.
pub(crate) fn token_parts<'a>(
    text: &'a str,
    read: &'static str,
) -> Result<(u64, u64, &'a str), TokenError> {
    let form = || TokenError::Form(text.to_owned());
    let mut parts = text.splitn(4, ':');
    let version = parts.next().ok_or_else(form)?;
    let [scenario, seed, acts] = [parts.next(), parts.next(), parts.next()];
    let (Some(scenario), Some(seed), Some(acts)) = (scenario, seed, acts) else {
        return Err(form());
    };
    if version != read {
        let found = version.to_owned();
        return Err(TokenError::Version { found, read });
    }
    let scenario = u64::from_str_radix(scenario, 16).map_err(|_| form())?;
    Ok((scenario, seed.parse().map_err(|_| form())?, acts))
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (scenario, seed, acts) = token_parts(text, TOKEN_VERSION)?;
        let injections = acts.split(',').filter(|act| !act.is_empty());
        Ok(Self {
            scenario,
            seed,
            schedule: Schedule {
                injections: injections.map(injection).collect::<Result<_, _>>()?,
            },
        })
    }
}

fn injection(text: &str) -> Result<Injection, TokenError> {
    let read = || {
        let (act, rest) = text.split_once('@')?;
        let (point, when) = rest.rsplit_once('+')?;
        let (yields, lost) = when.split_once('-').unwrap_or((when, "0"));
        let (label, nth) = point.rsplit_once('.')?;
        Some(Injection {
            act: *Act::ALL.iter().find(|known| known.name() == act)?,
            label: label.to_owned(),
            nth: nth.parse().ok().filter(|nth| *nth > 0)?,
            yields: yields.parse().ok()?,
            lost_bytes: lost.parse().ok()?,
        })
    };
    read().ok_or_else(|| TokenError::Act(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        let injection = |act, yields| Injection {
            act,
            label: "abort.take".to_owned(),
            nth: 2,
            yields,
            lost_bytes: if act == Act::Crash { 9 } else { 0 },
        };
        let injections = vec![
            injection(Act::Interrupt, 3),
            injection(Act::Crash, 1),
            injection(Act::Replace, 0),
        ];
        Schedule { injections }
    }

    #[test]
    fn tokens_read_back() {
        let token = Token {
            scenario: 0xab,
            seed: 7,
            schedule: schedule(),
        };
        let text = token.to_string();
        let acts = "interrupt@abort.take.2+3,crash@abort.take.2+1-9,replace@abort.take.2+0";
        assert_eq!(text, format!("cp1:00000000000000ab:7:{acts}"));
        assert_eq!(text.parse(), Ok(token));
        for bad in [
            "",
            "cp1",
            "cp1:x:0:",
            "cp1:00:y:",
            "cp1:00:0:interrupt@x",
            "cp1:00:0:fly@a.1+0",
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
        let version = Err(TokenError::Version {
            found: "cp2".to_owned(),
            read: TOKEN_VERSION,
        });
        assert_eq!("cp2:00:0:".parse::<Token>(), version);
    }

    #[test]
    fn a_schedule_is_a_scenario_that_reads_back() {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let file = cutpoint_scenario::parse("s.kdl", text).unwrap();
        let changed = schedule().applied_to(&file.scenarios[0]);
        let printed = changed.to_string();
        assert!(
            printed.contains("interrupt at=\"point abort.take 2\" yields=3"),
            "{printed}"
        );
        let again = cutpoint_scenario::parse("s.kdl", &printed).unwrap();
        assert_eq!(again.scenarios, std::slice::from_ref(&changed));
        assert_eq!(changed.steps.len(), 4 + 7);
        let end = printed.split_once("await turn-ended\n").unwrap().1;
        let end: Vec<&str> = end.lines().map(str::trim).collect();
        let crash = [
            "kill at=\"point abort.take 2\" yields=1",
            "truncate-rollout 9",
            "resume",
            "user \"are you still there? (2)\"",
            "wait \"2s\"",
            "interrupt",
            "await turn-ended",
        ];
        assert_eq!(end[..7], crash);
        assert_ne!(fingerprint(&changed), fingerprint(&file.scenarios[0]));
    }
}
