//! The steps of a scenario that are done by themselves when the agent passes a point.

use cutpoint_protocol::ids::TurnId;
use cutpoint_scenario::ast::{Action, CutPoint, Step};
use cutpoint_trace::{ClientOp, Decision, InputMode, Observation};

use crate::driver::kit::points::{InjectedOp, InjectedStep};

/// What the user says, as an op.
pub(crate) fn input(text: &str, mode: InputMode, turn_id: Option<TurnId>) -> ClientOp {
    let text = text.to_owned();
    ClientOp::Input {
        text,
        mode,
        turn_id,
    }
}

/// What such a step does.
fn injected_op(action: &Action) -> Option<InjectedOp> {
    let decide = |call: &Option<String>, decision| match call.clone() {
        Some(call_id) => InjectedOp::Send(ClientOp::Approval {
            call_id: call_id.into(),
            decision,
        }),
        None => InjectedOp::Decide(decision),
    };
    Some(match action {
        Action::User { text, id, .. } => InjectedOp::Send(input(
            text,
            InputMode::Start,
            id.as_deref().map(TurnId::from),
        )),
        Action::Steer { text } => InjectedOp::Send(input(text, InputMode::Steer, None)),
        Action::Replace { text } => InjectedOp::Send(input(text, InputMode::Replace, None)),
        Action::Interrupt { id } => InjectedOp::Send(ClientOp::Interrupt {
            turn_id: id.as_deref().map(TurnId::from),
        }),
        Action::Approve { call } => decide(call, Decision::Approve),
        Action::Deny { call } => decide(call, Decision::Deny),
        Action::Abort { call } => decide(call, Decision::Abort),
        Action::Answer { call, text } => match call.clone() {
            Some(call_id) => InjectedOp::Send(ClientOp::Answer {
                call_id: call_id.into(),
                text: text.clone(),
            }),
            None => InjectedOp::Answer(text.clone()),
        },
        Action::Drop(kind) => InjectedOp::Disconnect(*kind),
        Action::Shutdown => InjectedOp::Shutdown,
        Action::Kill => InjectedOp::Kill,
        Action::Hold { quiet } => InjectedOp::Hold { quiet: *quiet },
        _ => return None,
    })
}

/// The steps that are done by themselves at a point of the agent.
pub fn of(steps: &[Step]) -> Vec<InjectedStep> {
    let injected = |(at, step): (usize, &Step)| {
        let (yields, Some(CutPoint::Point { label, nth })) = (step.yields?, &step.at) else {
            return None;
        };
        Some(InjectedStep {
            label: label.clone(),
            nth: *nth,
            yields,
            number: at + 1,
            op: injected_op(&step.action)?,
            step: Observation::Step {
                number: at + 1,
                line: step.span.line,
                text: step.to_string(),
            },
        })
    };
    steps.iter().enumerate().filter_map(injected).collect()
}
