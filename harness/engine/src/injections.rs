//! The steps of a scenario that are done by themselves as the agent passes a point.

use cutpoint_protocol::ids::TurnId;
use cutpoint_scenario::ast::{Action, CutPoint, Step};
use cutpoint_trace::{ClientOp, Decision, InputMode, Observation};

use crate::driver::points::{Deed, Injection};

/// What the user says, as an op.
pub(crate) fn input(text: &str, mode: InputMode, turn_id: Option<TurnId>) -> ClientOp {
    let text = text.to_owned();
    ClientOp::Input {
        text,
        mode,
        turn_id,
    }
}

/// What a step does that is done by itself.
fn deed(action: &Action) -> Option<Deed> {
    let decide = |call: &Option<String>, decision| match call.clone() {
        Some(call_id) => Deed::Send(ClientOp::Approval {
            call_id: call_id.into(),
            decision,
        }),
        None => Deed::Decide(decision),
    };
    Some(match action {
        Action::User { text, id, .. } => Deed::Send(input(
            text,
            InputMode::Start,
            id.as_deref().map(TurnId::from),
        )),
        Action::Steer { text } => Deed::Send(input(text, InputMode::Steer, None)),
        Action::Replace { text } => Deed::Send(input(text, InputMode::Replace, None)),
        Action::Interrupt { id } => Deed::Send(ClientOp::Interrupt {
            turn_id: id.as_deref().map(TurnId::from),
        }),
        Action::Approve { call } => decide(call, Decision::Approve),
        Action::Deny { call } => decide(call, Decision::Deny),
        Action::Abort { call } => decide(call, Decision::Abort),
        Action::Answer { call, text } => match call.clone() {
            Some(call_id) => Deed::Send(ClientOp::Answer {
                call_id: call_id.into(),
                text: text.clone(),
            }),
            None => Deed::Answer(text.clone()),
        },
        Action::Drop(kind) => Deed::Drop(*kind),
        Action::Shutdown => Deed::Shutdown,
        Action::Kill => Deed::Kill,
        Action::Hold { quiet } => Deed::Hold { quiet: *quiet },
        _ => return None,
    })
}

/// The steps that are done by themselves at a point of the agent.
pub fn of(steps: &[Step]) -> Vec<Injection> {
    let injection = |(at, step): (usize, &Step)| {
        let (yields, Some(CutPoint::Point { label, nth })) = (step.yields?, &step.at) else {
            return None;
        };
        Some(Injection {
            label: label.clone(),
            nth: *nth,
            yields,
            number: at + 1,
            deed: deed(&step.action)?,
            step: Observation::Step {
                number: at + 1,
                line: step.span.line,
                text: step.to_string(),
            },
        })
    };
    steps.iter().enumerate().filter_map(injection).collect()
}
