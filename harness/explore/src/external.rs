//! The sweep of agents in other processes, which cannot be held at points of their own.
//!
//! Such an agent is cut where the server can hold its stream, and where it tells its client
//! something. A schedule is the scenario with the act as one more step at such a cut point; it reads
//! like a scenario that somebody has written. What is found is *gated and observed*: the same schedule
//! may run differently the next time, so each class is run again to tell a race from a rule.

mod digest;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use cutpoint_scenario::ast::{Action, CutPoint, Scenario, Span, Step};

use crate::class::class_of;
use crate::executor::{Broken, Observed};
use crate::schedule::{Act, TokenError, token_parts};

pub use digest::digest;

/// The version of the form in which tokens are written.
const TOKEN_VERSION: &str = "cpx1";

/// What is done besides the steps of a scenario: one act or two at one cut point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervention {
    /// What is done, in this order.
    pub acts: Vec<Act>,
    /// Where.
    pub at: CutPoint,
    /// How many of the scenario's steps stand in front.
    pub place: usize,
}

impl Intervention {
    /// The scenario with the acts as steps of its own. An agent that an act has ended is resumed.
    pub fn applied_to(&self, scenario: &Scenario) -> Scenario {
        let mut changed = scenario.clone();
        let place = self.place.min(changed.steps.len());
        let step = |at, action| Step {
            at,
            yields: None,
            action,
            span: Span::default(),
        };
        let mut steps = Vec::new();
        for (number, act) in self.acts.iter().enumerate() {
            let action = act.action(number + 1);
            let ends = action.ends_agent();
            steps.push(step(Some(self.at.clone()), action));
            steps.extend(ends.then(|| step(None, Action::Resume)));
        }
        changed.steps.splice(place..place, steps);
        changed
    }

    /// The numbers of the acts' steps in the changed scenario, counted from 1.
    pub fn numbers(&self) -> Vec<usize> {
        let mut next = self.place + 1;
        let mut numbers = Vec::new();
        for (at, act) in self.acts.iter().enumerate() {
            numbers.push(next);
            next += 1 + usize::from(act.action(at + 1).ends_agent());
        }
        numbers
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acts: Vec<&str> = self.acts.iter().map(|act| act.name()).collect();
        // No word of a cut point that a server or a client sees has a dot in it.
        let at = self.at.to_string().replace(' ', ".");
        write!(f, "{}@{at}/{}", acts.join("+"), self.place)
    }
}

fn intervention(text: &str) -> Option<Intervention> {
    let (acts, rest) = text.split_once('@')?;
    let (at, place) = rest.rsplit_once('/')?;
    let act = |name: &str| Act::ALL.into_iter().find(|act| act.name() == name);
    Some(Intervention {
        acts: acts.split('+').map(act).collect::<Option<_>>()?,
        at: at.replace('.', " ").parse().ok()?,
        place: place.parse().ok()?,
    })
}

/// One line that names a schedule of a scenario: `cpx1:<scenario>:<seed>:<acts>@<point>/<place>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalToken {
    /// The scenario's [`fingerprint`](crate::fingerprint).
    pub scenario: u64,
    /// The seed of everything random in the run.
    pub seed: u64,
    /// What is done; nothing, where the scenario is run as it is.
    pub intervention: Option<Intervention>,
}

impl fmt::Display for ExternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_VERSION}:{:016x}:{}:", self.scenario, self.seed)?;
        match &self.intervention {
            Some(intervention) => write!(f, "{intervention}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ExternalToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (scenario, seed, acts) = token_parts(text, TOKEN_VERSION)?;
        let read = |acts| intervention(acts).ok_or_else(|| TokenError::Act(String::from(acts)));
        Ok(Self {
            scenario,
            seed,
            intervention: (!acts.is_empty()).then(|| read(acts)).transpose()?,
        })
    }
}

/// Which schedules are swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBound {
    /// What is done at the cut points.
    pub acts: Vec<Act>,
    /// Whether pairs of acts are swept too: both at the same cut point.
    pub pairs: bool,
}

/// The schedules of a bound over the cut points that the plain scenario has passed, each with its
/// place among the steps; one act before two, early points before late ones.
pub fn interventions(cuts: &[(CutPoint, usize)], bound: &ExternalBound) -> Vec<Intervention> {
    let mut all = Vec::new();
    let mut add = |acts: &[Act]| {
        let fitting = cuts.iter().filter(|(at, _)| fits(acts, at));
        all.extend(fitting.map(|(at, place)| Intervention {
            acts: acts.to_vec(),
            at: at.clone(),
            place: *place,
        }));
    };
    for act in &bound.acts {
        add(&[*act]);
    }
    if bound.pairs {
        for first in &bound.acts {
            for second in &bound.acts {
                add(&[*first, *second]);
            }
        }
    }
    all
}

/// Whether acts can be done at a cut point: only a stream that is held there can be dropped, and what
/// was let go or has ended holds nothing any more.
fn fits(acts: &[Act], at: &CutPoint) -> bool {
    let holds = !matches!(at, CutPoint::AgentEvent { .. });
    match acts {
        [first, second] => {
            let ends = |act: &Act| matches!(act, Act::Shutdown | Act::Crash | Act::Drop);
            !ends(first) && (holds || *second != Act::Drop) && (holds || *first != Act::Drop)
        }
        acts => holds || !acts.contains(&Act::Drop),
    }
}

/// Schedules that broke the same rules in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalClass {
    /// What was broken.
    pub broken: Vec<Broken>,
    /// The number of the first schedule that did; 0 is the scenario as it is.
    pub first: usize,
    /// How many did.
    pub schedules: usize,
    /// How many different traces they gave.
    pub traces: usize,
    /// In how many of how many further runs of the first schedule these rules were broken again.
    pub again: (usize, usize),
}

impl ExternalClass {
    /// Takes a further run of the class's first schedule. One that says nothing of the agent does not
    /// count.
    pub fn repeat(&mut self, observed: &Observed) {
        if observed.trouble.is_some() {
            return;
        }
        let broken = class_of(observed.broken.clone());
        let again = self.broken.iter().all(|one| broken.contains(one));
        self.again.0 += usize::from(again);
        self.again.1 += 1;
    }
}

/// What the runs of a scenario's schedules have shown so far.
#[derive(Debug, Default)]
pub struct ExternalFound {
    /// How many were run.
    pub ran: usize,
    /// In how many the cut point was never reached, or not in time.
    pub missed: usize,
    /// How often each rule was put to the test.
    pub exercised: BTreeMap<String, usize>,
    /// Runs that say nothing of the agent: how many, and why the first one does not.
    pub trouble: Option<(usize, String)>,
    digests: BTreeSet<u64>,
    classes: BTreeMap<Vec<Broken>, (ExternalClass, BTreeSet<u64>)>,
}

impl ExternalFound {
    /// Takes the run of a schedule that was to send so many acts.
    pub fn take(&mut self, number: usize, acts: usize, observed: Observed) {
        self.ran += 1;
        if let Some(why) = observed.trouble {
            self.trouble.get_or_insert((0, why)).0 += 1;
            return;
        }
        self.digests.insert(observed.digest);
        self.missed += usize::from(observed.sent < acts);
        for (rule, count) in observed.exercised {
            *self.exercised.entry(rule).or_default() += count;
        }
        if observed.broken.is_empty() {
            return;
        }
        let broken = class_of(observed.broken);
        let (class, digests) = self.classes.entry(broken.clone()).or_insert_with(|| {
            let class = ExternalClass {
                broken,
                first: number,
                schedules: 0,
                traces: 0,
                again: (0, 0),
            };
            (class, BTreeSet::new())
        });
        class.first = class.first.min(number);
        class.schedules += 1;
        digests.insert(observed.digest);
        class.traces = digests.len();
    }

    /// How many different traces the runs gave.
    pub fn traces(&self) -> usize {
        self.digests.len()
    }

    /// The classes, that of the smallest schedule first.
    pub fn classes(&self) -> Vec<ExternalClass> {
        let mut classes: Vec<ExternalClass> = self
            .classes
            .values()
            .map(|(class, _)| class.clone())
            .collect();
        classes.sort_by_key(|class| class.first);
        classes
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_scenario::ast::AgentEventKind;

    use super::*;

    fn scenario() -> Scenario {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let mut file =
            cutpoint_scenario::parse("s.kdl", text).unwrap_or_else(|error| panic!("{error}"));
        file.scenarios.remove(0)
    }

    fn event(event: usize) -> CutPoint {
        CutPoint::StreamEvent { reply: 1, event }
    }

    fn told() -> CutPoint {
        CutPoint::AgentEvent {
            event: AgentEventKind::TurnEnded,
            nth: 1,
        }
    }

    fn bound(acts: &[Act], pairs: bool) -> ExternalBound {
        let acts = acts.to_vec();
        ExternalBound { acts, pairs }
    }

    fn broken(rule: &str, message: &str) -> Observed {
        let (rule, message) = (rule.to_owned(), message.to_owned());
        Observed {
            broken: vec![Broken { rule, message }],
            sent: 1,
            ..Observed::default()
        }
    }

    #[test]
    fn a_schedule_reads_like_a_scenario() {
        let one = Intervention {
            acts: vec![Act::Interrupt],
            at: event(4),
            place: 1,
        };
        let text = one.applied_to(&scenario()).to_string();
        let steps = "    user \"hi\"\n    interrupt at=\"reply 1 event 4\"\n    await turn-ended\n";
        assert!(text.contains(steps), "{text}");
        assert_eq!(one.numbers(), [2]);
        let crash = Intervention {
            acts: vec![Act::Crash],
            ..one
        };
        let text = crash.applied_to(&scenario()).to_string();
        assert!(
            text.contains("kill at=\"reply 1 event 4\"\n    resume\n"),
            "{text}"
        );
    }

    #[test]
    fn tokens_read_back() {
        let byte = CutPoint::Byte {
            reply: 2,
            event: 3,
            byte: 17,
        };
        for at in [event(4), told(), byte] {
            let acts = vec![Act::Interrupt, Act::Steer];
            let intervention = Some(Intervention { acts, at, place: 3 });
            let token = ExternalToken {
                scenario: 0xab,
                seed: 7,
                intervention,
            };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        let plain = "cpx1:00000000000000ab:0:";
        assert_eq!(
            plain.parse::<ExternalToken>().map(|it| it.to_string()),
            Ok(plain.to_owned())
        );
        // A token from before the word was renamed names the same schedule.
        let old: ExternalToken = "cpx1:ab:7:interrupt@told.turn-ended.2/3".parse().unwrap();
        assert!(old.to_string().ends_with(":interrupt@event.turn-ended.2/3"));
        for bad in [
            "cpx1:00:0:fly@started/1",
            "cpx1:00:0:steer@nowhere/1",
            "cpx1:0",
            "cp1:00:0:",
        ] {
            assert!(bad.parse::<ExternalToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn single_acts_come_before_pairs_and_drops_need_a_stream() {
        let cuts = [(event(1), 1), (told(), 1)];
        let written = |bound| {
            let all = interventions(&cuts, &bound);
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let single = written(bound(&[Act::Interrupt, Act::Drop], false));
        let wanted = [
            "interrupt@reply.1.event.1/1",
            "interrupt@event.turn-ended/1",
            "drop@reply.1.event.1/1",
        ];
        assert_eq!(single, wanted);
        let pairs = written(bound(&[Act::Interrupt], true));
        assert_eq!(
            pairs[2..],
            [
                "interrupt+interrupt@reply.1.event.1/1",
                "interrupt+interrupt@event.turn-ended/1"
            ]
        );
    }

    #[test]
    fn runs_that_break_the_same_are_one_class_with_its_first_schedule() {
        let mut found = ExternalFound::default();
        found.take(5, 1, broken("TURN-7", "turn 7 was aborted twice"));
        found.take(3, 1, broken("TURN-7", "turn 8 was aborted twice"));
        found.take(4, 1, Observed::default());
        assert_eq!((found.ran, found.missed), (3, 1));
        let mut classes = found.classes();
        assert_eq!(
            (classes.len(), classes[0].first, classes[0].schedules),
            (1, 3, 2)
        );
        classes[0].repeat(&broken("TURN-7", "turn 1 was aborted twice"));
        classes[0].repeat(&Observed::default());
        let trouble = Some("no room on the disk".to_owned());
        classes[0].repeat(&Observed {
            trouble,
            ..Observed::default()
        });
        assert_eq!(classes[0].again, (1, 2));
    }
}
