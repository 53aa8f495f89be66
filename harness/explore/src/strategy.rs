//! What is drawn at random: streams of a model, a user's behaviour, and acts at named points.
//!
//! These are proptest strategies, usable in any test of an agent. What they give is valid: every
//! scenario prints as a file that can be read, and none waits for an event that may not come. Most of
//! what is drawn is short and usual; each kind of trouble comes now and then.

mod model;
mod user;

use std::sync::Arc;
use std::time::Duration;

use cutpoint_scenario::ast::{
    Action, Capability, CutPoint, DisconnectKind, ModelScript, Reply, ReplyBody, ReplyPart,
    Scenario, SideConversationScript, Span, Step,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::schedule::{Act, ScheduledAct};

pub use model::{call, command, delegation, end, part, patch, question, reply};
pub use user::{between, turn};

/// Acts yield less often than this: an agent's way from one point to the next takes fewer turns.
const YIELDS: usize = 6;
/// The longest wait: longer than a stream may be silent, and than any command.
const LIMIT: Duration = Duration::from_secs(1000);

/// How the connection of the first reply breaks, after which event, and how far inside it.
type Cut = (DisconnectKind, usize, Option<usize>);

/// A scenario: a model, a user who speaks up to three times, sub-agents if the model starts any,
/// and, if something waits for the user, what the user says to that.
pub fn scenario() -> impl Strategy<Value = Scenario> {
    let decision = select(vec![Act::Approve, Act::Approve, Act::Deny, Act::Abort]);
    let drops = select(DisconnectKind::ALL.to_vec());
    let cut = (drops, 1_usize..4, option::of(1_usize..20));
    (
        vec(reply(), 1..5),
        vec(vec(reply(), 1..3), 3),
        vec((between(), turn()), 1..4),
        (any::<bool>(), any::<bool>()).prop_map(|(one, two)| one && two),
        vec(decision, 12),
        vec(prop_oneof![5 => Just(true), 1 => Just(false)], 4),
        prop_oneof![15 => Just(None), 1 => cut.prop_map(Some)],
    )
        .prop_map(|(replies, others, turns, asks, decisions, answers, cut)| {
            let drawn = Drawn {
                asks,
                decisions,
                answers,
                cut,
            };
            drawn.put_together(replies, others, turns)
        })
}

/// What the user answers to the model, and how the first stream breaks.
struct Drawn {
    /// Whether commands wait for the user's approval.
    asks: bool,
    decisions: Vec<Act>,
    /// Whether the user answers each question.
    answers: Vec<bool>,
    cut: Option<Cut>,
}

impl Drawn {
    fn put_together(
        self,
        mut replies: Vec<Reply>,
        others: Vec<Vec<Reply>>,
        turns: Vec<(Vec<Step>, Vec<Step>)>,
    ) -> Scenario {
        let mut calls = Calls::default();
        calls.name(&mut replies);
        let mut steps = user::numbered(turns);
        // Each conversation has calls of its own: a model gives no id twice.
        let mut conversations = Vec::new();
        for (kind, opening) in openings(&replies, &steps) {
            let mut replies = others[kind].clone();
            calls.name_without_agents(&mut replies);
            conversations.push(SideConversationScript {
                opening,
                replies,
                span: Span::default(),
            });
        }
        // Steps during the first turn come after the one that starts it.
        let said = |step: &Step| matches!(step.action, Action::User { .. });
        let after = steps.iter().position(said).map_or(0, |at| at + 1);
        let during = self.during(&calls, &replies);
        steps.splice(after..after, during);
        let needs = [
            (calls.asks(self.asks) > 0, Capability::Approvals),
            (calls.questions > 0, Capability::Questions),
            (calls.delegates, Capability::SubAgents),
        ];
        let needed = |(needed, what): (bool, Capability)| needed.then_some(what);
        Scenario {
            name: "generated".to_owned(),
            needs: needs.into_iter().filter_map(needed).collect(),
            limit: Some(LIMIT),
            model: ModelScript {
                name: None,
                substitute_tools: false,
                recording: None,
                replies,
                side_conversations: conversations,
            },
            steps,
            ..Scenario::default()
        }
    }

    fn during(&self, calls: &Calls, replies: &[Reply]) -> Vec<Step> {
        let at = |label: &str, nth: usize, action: Action| Step {
            at: Some(CutPoint::Point {
                label: label.to_owned(),
                nth,
            }),
            yields: Some(1),
            ..user::step(action)
        };
        let mut steps = Vec::new();
        let decisions = self.decisions.iter().take(calls.asks(self.asks));
        for (number, act) in decisions.enumerate() {
            steps.push(at("approval.asked", number + 1, act.action(number + 1)));
        }
        let answers = self.answers.iter().take(calls.questions).enumerate();
        for (number, _) in answers.filter(|(_, answered)| **answered) {
            let answer = Act::Answer.action(number + 1);
            steps.push(at("question.asked", number + 1, answer));
        }
        let sends = |part: &ReplyPart| {
            !matches!(part, ReplyPart::Pause { .. } | ReplyPart::Malformed { .. })
        };
        let streams = match &replies[0].body {
            ReplyBody::Stream { parts, .. } => parts.iter().any(sends),
            ReplyBody::Status { .. } | ReplyBody::Recorded { .. } => false,
        };
        if let Some((kind, event, byte)) = self.cut.filter(|_| streams) {
            let point = match byte {
                Some(byte) => CutPoint::Byte {
                    reply: 1,
                    event,
                    byte,
                },
                None => CutPoint::StreamEvent { reply: 1, event },
            };
            steps.push(Step {
                at: Some(point),
                ..user::step(Action::Drop(kind))
            });
        }
        steps
    }
}

/// The opening text of each side conversation, and which of the tasks it is.
fn openings(replies: &[Reply], steps: &[Step]) -> Vec<(usize, String)> {
    let streamed = replies.iter().filter_map(|reply| match &reply.body {
        ReplyBody::Stream { parts, .. } => Some(parts),
        ReplyBody::Status { .. } | ReplyBody::Recorded { .. } => None,
    });
    let tasks = streamed.flatten().filter_map(|part| {
        let ReplyPart::Function {
            call, arguments, ..
        } = part
        else {
            return None;
        };
        let openings = model::TASKS.map(|task| format!("{task} ({call})"));
        let mut found = openings.into_iter().enumerate();
        found.find(|(_, opening)| arguments.contains(opening.as_str()))
    });
    let reviews = steps.iter().filter_map(|step| match &step.action {
        Action::Review { text } => Some((model::TASKS.len(), text.clone())),
        _ => None,
    });
    tasks.chain(reviews).collect()
}

/// The calls of a scenario, as they get their ids.
#[derive(Default)]
struct Calls {
    count: usize,
    /// Commands that wait for approval if any does.
    commands: usize,
    patches: usize,
    questions: usize,
    delegates: bool,
    /// The call that has started a sub-agent last.
    agent: Option<String>,
}

impl Calls {
    /// How many calls wait for approval. Where a patch does, commands do as well.
    fn asks(&self, commands_ask: bool) -> usize {
        if commands_ask || self.patches > 0 {
            self.commands + self.patches
        } else {
            0
        }
    }

    fn name(&mut self, replies: &mut [Reply]) {
        for reply in replies {
            if let ReplyBody::Stream { parts, .. } = &mut reply.body {
                parts.iter_mut().for_each(|part| self.name_part(part));
            }
        }
    }

    /// The same for the model of a sub-agent: it can't start any itself.
    fn name_without_agents(&mut self, replies: &mut [Reply]) {
        for reply in replies.iter_mut() {
            if let ReplyBody::Stream { parts, .. } = &mut reply.body {
                parts.retain(|part| !model::is_delegation(part));
            }
        }
        self.name(replies);
    }

    fn name_part(&mut self, part: &mut ReplyPart) {
        let delegates = model::is_delegation(part);
        match part {
            ReplyPart::Shell { call, .. }
            | ReplyPart::Function { call, .. }
            | ReplyPart::Custom { call, .. }
            | ReplyPart::LocalShell { call, .. } => {
                self.count += 1;
                *call = format!("call_{}", self.count);
            }
            _ => return,
        }
        match part {
            ReplyPart::Custom { name, .. } if name == "apply_patch" => self.patches += 1,
            ReplyPart::Function {
                call,
                name,
                arguments,
                ..
            } => {
                self.questions += usize::from(name == model::QUESTION);
                self.delegates |= delegates;
                if name == "spawn_agent" {
                    self.agent = Some(call.clone());
                }
                let agent = self.agent.as_deref().unwrap_or("call_1");
                *arguments = arguments
                    .replace(model::AGENT, agent)
                    .replace(model::CALL, call);
            }
            _ => self.commands += 1,
        }
    }
}

/// An act at one of these points of an agent, each with how often it is passed. There must be one at
/// least. An act that needs a point is drawn only if that one is among them.
pub fn scheduled_act(points: Arc<[(String, usize)]>) -> impl Strategy<Value = ScheduledAct> {
    let passed = |point: &str| points.iter().any(|(label, _)| label == point);
    let mut possible = Act::ALL.to_vec();
    possible.retain(|act| act.needs().is_none_or(passed));
    let acts = prop_oneof![
        4 => Just(Act::Interrupt),
        2 => Just(Act::Steer),
        2 => Just(Act::Replace),
        2 => select(possible),
    ];
    // A point is drawn first: one that is passed once is as likely as one that each event passes.
    let point = 0..points.len();
    (acts, point, any::<Index>(), 0..YIELDS).prop_map(move |(act, point, at, yields)| {
        let (label, times) = &points[point];
        ScheduledAct::at_point(act, label, at.index(*times) + 1, yields)
    })
}
