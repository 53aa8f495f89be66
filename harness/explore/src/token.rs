//! Tokens: one line that names a schedule of a scenario.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::schedule::{Act, Place, Schedule, ScheduledAct};

/// The version of the form in which tokens are written.
const VERSION: &str = "cp2";
/// The versions before it, which are still read: acts at named points of the agent, and one or two
/// acts at one cut point of an agent in another process.
const POINTS_VERSION: &str = "cp1";
const GATE_VERSION: &str = "cpx1";

/// One line that names a schedule of a scenario: `cp2:<fingerprint>:<seed>:<acts>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    /// The scenario's [`fingerprint`](crate::fingerprint).
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
        write!(f, "{VERSION}:{scenario:016x}:{seed}:{schedule}")
    }
}

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another form altogether.
    #[error(
        "`{0}` is not a token; a token looks like cp2:0123456789abcdef:0:interrupt@abort.take.1+2"
    )]
    Form(String),
    /// It was written by a newer version.
    #[error(
        "the token has version `{0}`; this build reads `cp2`, `cp1` and `cpx1`, so replay it with the version of cutpoint that printed it"
    )]
    Version(String),
    /// It contains an act that cannot be read.
    #[error(
        "`{0}` is not an act; an act looks like interrupt@abort.take.1+2 or interrupt@reply.1.event.4/1"
    )]
    Act(String),
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let form = || TokenError::Form(text.to_owned());
        let mut parts = text.splitn(4, ':');
        let version = parts.next().ok_or_else(form)?;
        let [scenario, seed, acts] = [parts.next(), parts.next(), parts.next()];
        let (Some(scenario), Some(seed), Some(acts)) = (scenario, seed, acts) else {
            return Err(form());
        };
        let read: fn(&str) -> Option<Vec<ScheduledAct>> = match version {
            VERSION => |text| Some(vec![act(text)?]),
            POINTS_VERSION => |text| Some(vec![act_at_point(text)?]),
            GATE_VERSION => acts_at_gate,
            other if other.starts_with("cp") => return Err(TokenError::Version(other.to_owned())),
            _ => return Err(form()),
        };
        let read = |text: &str| read(text).ok_or_else(|| TokenError::Act(text.to_owned()));
        let scenario = u64::from_str_radix(scenario, 16).map_err(|_| form())?;
        let seed = seed.parse().map_err(|_| form())?;
        let acts = acts.split(',').filter(|act| !act.is_empty()).map(read);
        let acts = acts.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            scenario,
            seed,
            schedule: Schedule {
                acts: acts.into_iter().flatten().collect(),
            },
        })
    }
}

fn act(text: &str) -> Option<ScheduledAct> {
    if text.contains('/') {
        let [act] = acts_at_gate(text)?.try_into().ok()?;
        Some(act)
    } else {
        act_at_point(text)
    }
}

/// `interrupt@abort.take.2+3`, or `crash@store.written.1+0-9` for a rollout that loses 9 bytes.
fn act_at_point(text: &str) -> Option<ScheduledAct> {
    let (act, rest) = text.split_once('@')?;
    let (point, when) = rest.rsplit_once('+')?;
    let (yields, lost) = when.split_once('-').unwrap_or((when, "0"));
    let (label, nth) = point.rsplit_once('.')?;
    Some(ScheduledAct {
        act: Act::named(act)?,
        at: Place::Point {
            label: label.to_owned(),
            nth: nth.parse().ok().filter(|nth| *nth > 0)?,
            yields: yields.parse().ok()?,
            lost_bytes: lost.parse().ok()?,
        },
    })
}

/// `interrupt@reply.1.event.4/1`. Version `cpx1` joined two acts at one cut point by `+`.
fn acts_at_gate(text: &str) -> Option<Vec<ScheduledAct>> {
    let (acts, rest) = text.split_once('@')?;
    let (at, after_steps) = rest.rsplit_once('/')?;
    let at = Place::Gate {
        at: at.replace('.', " ").parse().ok()?,
        after_steps: after_steps.parse().ok()?,
    };
    let act = |name: &str| {
        let at = at.clone();
        Act::named(name).map(|act| ScheduledAct { act, at })
    };
    acts.split('+').map(act).collect()
}

impl TryFrom<String> for Token {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_scenario::ast::CutPoint;

    use super::*;

    fn read(text: &str) -> Result<String, TokenError> {
        text.parse::<Token>().map(|token| token.to_string())
    }

    #[test]
    fn tokens_read_back() {
        let at_gate = |act, at| ScheduledAct {
            act,
            at: Place::Gate { at, after_steps: 3 },
        };
        let event = CutPoint::StreamEvent { reply: 1, event: 4 };
        let byte = CutPoint::Byte {
            reply: 2,
            event: 3,
            byte: 17,
        };
        let acts = vec![
            ScheduledAct::at_point(Act::Interrupt, "abort.take", 2, 3),
            ScheduledAct::crash("abort.take", 2, 9),
            at_gate(Act::Steer, event),
            at_gate(Act::Drop, byte),
        ];
        let token = Token {
            scenario: 0xab,
            seed: 7,
            schedule: Schedule { acts },
        };
        let text = token.to_string();
        let acts = "interrupt@abort.take.2+3,crash@abort.take.2+0-9,steer@reply.1.event.4/3,";
        assert!(
            text.starts_with(&format!("cp2:00000000000000ab:7:{acts}drop@byte.17")),
            "{text}"
        );
        assert_eq!(text.parse(), Ok(token));
        let plain = "cp2:00000000000000ab:0:";
        assert_eq!(read(plain), Ok(plain.to_owned()));
    }

    #[test]
    fn tokens_of_older_versions_are_read() {
        let points = "interrupt@abort.take.2+3,crash@abort.take.2+1-9";
        let read_points = read(&format!("cp1:00000000000000ab:7:{points}"));
        assert_eq!(read_points, Ok(format!("cp2:00000000000000ab:7:{points}")));
        assert_eq!(
            read("cpx1:00000000000000ab:0:interrupt+steer@reply.1.event.4/1"),
            Ok(
                "cp2:00000000000000ab:0:interrupt@reply.1.event.4/1,steer@reply.1.event.4/1"
                    .to_owned()
            )
        );
        // A token from before the cut point's word was renamed names the same schedule.
        let renamed = read("cpx1:ab:7:interrupt@told.turn-ended.2/3").unwrap();
        assert!(
            renamed.ends_with(":interrupt@event.turn-ended.2/3"),
            "{renamed}"
        );
        let plain = read("cpx1:00000000000000ab:0:");
        assert_eq!(plain, Ok("cp2:00000000000000ab:0:".to_owned()));
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for form in ["", "cp2", "cp2:x:0:", "cp2:00:y:", "cp1:00", "zz1:00:0:"] {
            assert_eq!(read(form), Err(TokenError::Form(form.to_owned())), "{form}");
        }
        for act in [
            "interrupt@x",
            "fly@a.1+0",
            "fly@started/1",
            "steer@nowhere/1",
            "interrupt+steer@reply.1.event.4/1",
        ] {
            let refused = read(&format!("cp2:00:0:{act}"));
            assert_eq!(refused, Err(TokenError::Act(act.to_owned())), "{act}");
        }
        let newer = read("cp3:00:0:").unwrap_err().to_string();
        assert!(newer.starts_with("the token has version `cp3`"), "{newer}");
        assert!(
            newer.ends_with("the version of cutpoint that printed it"),
            "{newer}"
        );
    }
}
