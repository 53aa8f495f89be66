//! What a user does.

use std::time::Duration;

use cutpoint_scenario::ast::{Action, Await, CutPoint, Span, Step};
use proptest::prelude::*;
use proptest::sample::select;

use super::model::command;
use crate::schedule::Act;

/// What a review is about; it opens the reviewer's conversation.
const REVIEWED: &str = "the last commit";

pub(super) fn step(action: Action) -> Step {
    Step {
        at: None,
        yields: None,
        action,
        span: Span::default(),
    }
}

fn steps<const N: usize>(actions: [Action; N]) -> Vec<Step> {
    actions.map(step).into()
}

/// A user message; its text is set when all turns are known.
fn said() -> Action {
    Action::User {
        text: String::new(),
        id: None,
        refused: false,
    }
}

fn ended() -> Action {
    Action::Await(Await::TurnEnded)
}

/// What a user does from a message to the end of its turn: mostly wait.
pub fn turn() -> impl Strategy<Value = Vec<Step>> {
    let acts = select(vec![
        Act::Interrupt,
        Act::Interrupt,
        Act::Steer,
        Act::Replace,
        Act::Drop,
    ]);
    let labels = select(vec!["request.send", "stream.event", "tool.spawn"]);
    let during = (acts, labels, 1_usize..8, 0_usize..4).prop_map(|(act, label, nth, yields)| {
        let at = CutPoint::Point {
            label: label.to_owned(),
            nth,
        };
        let act = Step {
            at: Some(at),
            yields: Some(yields),
            ..step(act.action(nth))
        };
        vec![step(said()), act, step(ended())]
    });
    let pause = Action::Wait {
        duration: Duration::from_secs(1),
    };
    let slow = steps([
        Action::StopReading,
        said(),
        pause,
        Action::ResumeReading,
        ended(),
    ]);
    prop_oneof![
        12 => Just(steps([said(), ended()])),
        4 => during,
        1 => Just(slow),
    ]
}

/// What a user does between two turns: mostly nothing.
pub fn between() -> impl Strategy<Value = Vec<Step>> {
    let text = REVIEWED.to_owned();
    let steer = Action::Steer {
        text: "by the way".to_owned(),
    };
    let rollback = Action::Rollback {
        turns: 1,
        refused: false,
    };
    let tear = |bytes| {
        steps([
            Action::Kill,
            Action::TruncateRollout { bytes },
            Action::Resume,
        ])
    };
    prop_oneof![
        16 => Just(Vec::new()),
        2 => Just(steps([Action::Kill, Action::Resume])),
        1 => (2_usize..200).prop_map(tear),
        1 => Just(steps([Action::Shutdown, Action::Resume])),
        2 => command().prop_map(|command| steps([Action::UserShell { command }, ended()])),
        2 => Just(steps([Action::Compact, ended()])),
        1 => Just(steps([Action::Review { text }, ended()])),
        1 => Just(steps([Action::Fork])),
        1 => prop_oneof![Just(steps([rollback])), Just(steps([steer, ended()]))],
        1 => Just(steps([Action::Interrupt { id: None }])),
    ]
}

/// One turn after another, with the steps before each but the first.
pub(super) fn numbered(turns: Vec<(Vec<Step>, Vec<Step>)>) -> Vec<Step> {
    let mut all = Vec::new();
    for (at, (before, turn)) in turns.into_iter().enumerate() {
        if at > 0 {
            all.extend(before.into_iter().map(|mut step| {
                // A conversation is known by its opening text.
                if let Action::Review { text } = &mut step.action {
                    *text = format!("{REVIEWED} ({at})");
                }
                step
            }));
        }
        all.extend(turn.into_iter().map(|mut step| {
            if let Action::User { text, .. } = &mut step.action {
                *text = format!("question {}", at + 1);
            }
            step
        }));
    }
    all
}
