//! What a scenario needs of an agent: what it says, and what its steps imply.

use std::collections::BTreeSet;

use cutpoint_scenario::ast::{
    Action, Await, Capability, CutPoint, Expectation, ExpectationKind, ReplyBody, ReplyPart,
    Scenario,
};

/// Everything that the scenario needs.
pub fn of(scenario: &Scenario) -> BTreeSet<Capability> {
    let mut needs: BTreeSet<Capability> = scenario.needs.iter().copied().collect();
    for reply in &scenario.model.replies {
        if let ReplyBody::Stream { parts, .. } = &reply.body {
            needs.extend(parts.iter().filter_map(of_part));
        }
    }
    needs.extend(scenario.expectations.iter().filter_map(of_expectation));
    for step in &scenario.steps {
        needs.extend(of_action(&step.action));
        needs.extend(step.at.as_ref().and_then(of_point));
    }
    needs
}

/// Whether the scenario ends the agent's process, so that it can't be shared.
pub fn own_process(scenario: &Scenario) -> bool {
    let ends = |action: &Action| matches!(action, Action::Kill | Action::Resume | Action::Shutdown);
    scenario.steps.iter().any(|step| ends(&step.action))
}

fn of_part(part: &ReplyPart) -> Option<Capability> {
    match part {
        ReplyPart::Shell { .. } => Some(Capability::Shell),
        ReplyPart::Custom { name, .. } if name == "apply_patch" => Some(Capability::Patches),
        ReplyPart::Custom { .. } => Some(Capability::CustomTools),
        ReplyPart::LocalShell { .. } => Some(Capability::LocalShell),
        _ => None,
    }
}

fn of_action(action: &Action) -> Option<Capability> {
    match action {
        Action::Steer { .. } => Some(Capability::Steer),
        Action::Replace { .. } => Some(Capability::Replace),
        Action::Resume => Some(Capability::Resume),
        Action::UserShell { .. } => Some(Capability::UserShell),
        Action::Review { .. } => Some(Capability::Review),
        Action::Compact | Action::Await(Await::Compacted) => Some(Capability::Compact),
        Action::Fork => Some(Capability::Fork),
        Action::Rollback { .. } => Some(Capability::Rollback),
        Action::User { id: Some(_), .. }
        | Action::Interrupt { id: Some(_) }
        | Action::OpenConversation { .. } => Some(Capability::JsonRpc),
        Action::StopReading | Action::ResumeReading => Some(Capability::SlowClient),
        Action::DeliverLate(_) => Some(Capability::Transcript),
        Action::Answer { .. } | Action::Await(Await::Question { .. }) => {
            Some(Capability::Questions)
        }
        Action::Approve { .. }
        | Action::Deny { .. }
        | Action::Abort { .. }
        | Action::Await(Await::Approval { .. }) => Some(Capability::Approvals),
        Action::Await(Await::Output { .. }) => Some(Capability::ShownOutput),
        _ => None,
    }
}

fn of_expectation(expect: &Expectation) -> Option<Capability> {
    let shown = matches!(
        expect.kind,
        ExpectationKind::Shown { .. } | ExpectationKind::NotShown { .. }
    );
    shown.then_some(Capability::Transcript)
}

fn of_point(point: &CutPoint) -> Option<Capability> {
    match point {
        CutPoint::Point { .. } | CutPoint::Aborting => Some(Capability::Points),
        CutPoint::Approval { .. } => Some(Capability::Approvals),
        CutPoint::Question { .. } => Some(Capability::Questions),
        _ => None,
    }
}
