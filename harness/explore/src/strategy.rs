//! What is drawn at random: streams of a model, a user's behaviour, and what is done at points.
//!
//! These are proptest strategies, and so of use in any test of an agent. What they give is valid:
//! every scenario prints as a file that can be read, and nothing in it waits for what may not come.

use std::collections::BTreeMap;
use std::time::Duration;

use cutpoint_scenario::ast::{
    Action, Await, Capability, CutPoint, Drop as DropKind, End, Model, Part, Reply, ReplyBody,
    Scenario, Span, Step,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::schedule::{Act, Injection};

/// Most injections yield no more often: an agent's step from one point to the next takes fewer.
const YIELDS: usize = 6;

/// Command lines that the lab understands: what is printed, for how long it runs, how it exits, and
/// what it leaves behind.
pub fn command() -> impl Strategy<Value = String> {
    let commands = [
        "echo first light",
        "printf 'no line break'",
        "true",
        "false",
        "exit 3",
        "sleep 0.2; echo late",
        "echo one; sleep 0.05; echo two",
        "sleep 60",
        "echo early; sleep 60",
        "sleep 61 & echo left behind",
        "trap '' TERM; sleep 60",
    ];
    select(commands.to_vec()).prop_map(str::to_owned)
}

/// One part of a stream. Calls get their ids when the whole model is put together.
pub fn part() -> impl Strategy<Value = Part> {
    let texts = select(vec!["Let me see.", "Done, all of it.", "Grüße, 世界 😀!"]);
    prop_oneof![
        4 => (texts.clone(), 1_usize..6).prop_map(|(text, chunks)| Part::Text {
            text: text.to_owned(),
            chunks,
        }),
        1 => (texts, 1_usize..4).prop_map(|(text, chunks)| Part::Reasoning {
            text: text.to_owned(),
            chunks,
        }),
        4 => (command(), 1_usize..5).prop_map(|(command, chunks)| Part::Shell {
            call: String::new(),
            command,
            chunks,
        }),
        1 => select(vec![1_u64, 40, 300]).prop_map(|ms| Part::Pause {
            duration: Duration::from_millis(ms),
        }),
    ]
}

/// How a stream ends: mostly well.
pub fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        12 => Just(End::Completed),
        2 => select(DropKind::ALL.to_vec()).prop_map(End::Drop),
        1 => Just(End::Incomplete { reason: "max_output_tokens".to_owned() }),
        1 => Just(End::Failed { code: "server_error".to_owned(), message: None }),
    ]
}

/// One reply: mostly a stream, now and then a refusal that is to be tried again.
pub fn reply() -> impl Strategy<Value = Reply> {
    let stream =
        (vec(part(), 1..4), end()).prop_map(|(parts, end)| ReplyBody::Stream { parts, end });
    let status = (select(vec![429, 500, 503]), option::of(Just(1_u64))).prop_map(
        |(status, retry_after_s)| ReplyBody::Status {
            status,
            retry_after_s,
            headers: Vec::new(),
            body: None,
        },
    );
    prop_oneof![12 => stream, 1 => status].prop_map(|body| Reply {
        body,
        lenient: false,
        span: Span::default(),
    })
}

/// What a user does between two turns.
fn between() -> impl Strategy<Value = Vec<Action>> {
    let ended = || Action::Await(Await::TurnEnded);
    prop_oneof![
        8 => Just(Vec::new()),
        1 => Just(vec![Action::Kill, Action::Resume]),
        1 => command().prop_map(move |command| vec![Action::UserShell { command }, ended()]),
        1 => Just(vec![Action::Compact, ended()]),
    ]
}

/// A scenario: a model, a user who speaks up to three times, and, if commands need the user's
/// approval, a decision on each.
pub fn scenario() -> impl Strategy<Value = Scenario> {
    let decisions = prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(select(vec![Act::Approve, Act::Approve, Act::Deny, Act::Abort]), 12),
    ];
    (vec(reply(), 1..5), vec(between(), 1..4), decisions)
        .prop_map(|(replies, turns, decisions)| put_together(replies, turns, &decisions))
}

fn put_together(mut replies: Vec<Reply>, turns: Vec<Vec<Action>>, decisions: &[Act]) -> Scenario {
    let calls = name_calls(&mut replies);
    let step = |action| Step {
        at: None,
        yields: None,
        action,
        span: Span::default(),
    };
    let mut steps = Vec::new();
    for (at, between) in turns.into_iter().enumerate() {
        if at > 0 {
            steps.extend(between.into_iter().map(step));
        }
        steps.push(step(Action::User {
            text: format!("question {}", at + 1),
            id: None,
            refused: false,
        }));
        if at == 0 {
            let asked = decisions.iter().take(calls).enumerate();
            steps.extend(asked.map(|(at, act)| Step {
                at: Some(CutPoint::Point {
                    label: "approval.asked".to_owned(),
                    nth: at + 1,
                }),
                yields: Some(1),
                ..step(act.action(at + 1))
            }));
        }
        steps.push(step(Action::Await(Await::TurnEnded)));
    }
    let needs = (calls > 0 && !decisions.is_empty()).then_some(Capability::Approvals);
    Scenario {
        name: "generated".to_owned(),
        needs: needs.into_iter().collect(),
        // Whatever a command of these takes ends within it.
        limit: Some(Duration::from_secs(120)),
        model: Model {
            recording: None,
            replies,
            others: Vec::new(),
        },
        steps,
        ..Scenario::default()
    }
}

/// Numbers the calls through; gives how many there are.
fn name_calls(replies: &mut [Reply]) -> usize {
    let mut calls = 0;
    for reply in replies {
        let ReplyBody::Stream { parts, .. } = &mut reply.body else {
            continue;
        };
        for part in parts {
            if let Part::Shell { call, .. } = part {
                calls += 1;
                *call = format!("call_{calls}");
            }
        }
    }
    calls
}

/// An act at one of these points of an agent, each with the time that it is passed. There must be
/// one at least. An act that needs a point is drawn only if that one is among them.
pub fn injection(anchors: Vec<(String, usize)>) -> impl Strategy<Value = Injection> {
    let passed = |point: &str| anchors.iter().any(|(label, _)| label == point);
    let mut possible = Act::ALL.to_vec();
    possible.retain(|act| act.needs().is_none_or(passed));
    let acts = prop_oneof![
        4 => Just(Act::Interrupt),
        2 => Just(Act::Steer),
        2 => Just(Act::Replace),
        2 => select(possible),
    ];
    // A label is drawn first: what is passed but once is as likely as what each event passes.
    let mut by_label: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (label, nth) in anchors {
        by_label.entry(label).or_default().push(nth);
    }
    let point = select(by_label.into_iter().collect::<Vec<_>>());
    (acts, point, any::<Index>(), 0..YIELDS).prop_map(|(act, (label, times), at, yields)| {
        Injection {
            yields,
            act,
            label,
            nth: *at.get(&times),
            lost_bytes: 0,
        }
    })
}
