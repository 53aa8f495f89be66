//! Rewrites a scenario in plainer words, as a person would have written it.

use std::collections::BTreeMap;

use cutpoint_scenario::ast::{Action, CutPoint, ReplyBody, ReplyPart, Scenario};

/// What a user says, in this order: to start turns, to join running turns, and to replace them. Each
/// comes with the beginning of the drawn words that it stands for.
const WORDS: [(&str, [&str; 3]); 3] = [
    ("question ", ["go ahead", "and now?", "go on"]),
    (
        "one more thing (",
        ["one more thing", "and another", "and that one"],
    ),
    (
        "do this instead (",
        ["do this instead", "no, do that", "or rather this"],
    ),
];

/// Scenarios of the same length that read better. None of them leads back.
pub(super) fn plainer(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = vec![with_words(scenario)];
    found.extend(with_calls_in_order(scenario));
    for at in 0..scenario.steps.len() {
        found.extend(without_number(scenario, at));
        found.extend(at_plainer_points(scenario, at));
    }
    found
}

fn texts(scenario: &Scenario) -> Vec<&str> {
    let steps = scenario.steps.iter();
    let texts = steps.filter_map(|step| match &step.action {
        Action::User { text, .. }
        | Action::Steer { text }
        | Action::Replace { text }
        | Action::Answer { text, .. }
        | Action::Review { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// With a user's words instead of drawn ones, in their order.
fn with_words(scenario: &Scenario) -> Scenario {
    let mut plain = scenario.clone();
    for (drawn, words) in WORDS {
        let mut left = words.into_iter();
        for step in &mut plain.steps {
            if let Action::User { text, .. } | Action::Steer { text } | Action::Replace { text } =
                &mut step.action
                && (text.starts_with(drawn) || words.contains(&text.as_str()))
                && let Some(word) = left.next()
            {
                word.clone_into(text);
            }
        }
    }
    plain
}

/// Without the number that makes a text unique, if it is unique without it.
fn without_number(scenario: &Scenario, at: usize) -> Option<Scenario> {
    let mut plain = scenario.clone();
    let (Action::User { text, .. } | Action::Answer { text, .. } | Action::Review { text }) =
        &mut plain.steps[at].action
    else {
        return None;
    };
    let (words, number) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let numbered = number.chars().all(|c| c.is_ascii_digit());
    if !numbered || texts(scenario).contains(&words) {
        return None;
    }
    *text = words.to_owned();
    Some(plain)
}

/// With calls numbered in the order in which the model makes them.
fn with_calls_in_order(scenario: &Scenario) -> Option<Scenario> {
    let calls = calls(scenario);
    let names: BTreeMap<&str, String> = (calls.iter().enumerate())
        .map(|(at, call)| (*call, format!("call_{}", at + 1)))
        .collect();
    // Steps, cut points, arguments and expectations name calls as well: the text has them all.
    let mut text = String::new();
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    for word in scenario.to_string().split_inclusive(|c| !in_word(c)) {
        let bare = word.trim_end_matches(|c| !in_word(c));
        text += names.get(bare).map_or(bare, String::as_str);
        text += &word[bare.len()..];
    }
    let mut file = cutpoint_scenario::parse("plain.kdl", &text).ok()?;
    file.scenarios.pop()
}

/// The calls of the model, in the order of the file.
fn calls(scenario: &Scenario) -> Vec<&str> {
    let others = scenario
        .model
        .side_conversations
        .iter()
        .flat_map(|it| &it.replies);
    let replies = scenario.model.replies.iter().chain(others);
    let parts = replies.flat_map(|reply| match &reply.body {
        ReplyBody::Stream { parts, .. } => parts.as_slice(),
        ReplyBody::Status { .. } | ReplyBody::Recorded { .. } => &[],
    });
    let calls = parts.filter_map(|part| match part {
        ReplyPart::Shell { call, .. }
        | ReplyPart::Function { call, .. }
        | ReplyPart::Custom { call, .. }
        | ReplyPart::LocalShell { call, .. } => Some(call.as_str()),
        _ => None,
    });
    calls.collect()
}

/// With the step at a cut point that a client can see, or, if none of those will do, at the agent's own
/// point while that is held.
fn at_plainer_points(scenario: &Scenario, at: usize) -> Vec<Scenario> {
    let step = &scenario.steps[at];
    let Some(own @ CutPoint::Point { .. }) = &step.at else {
        return Vec::new();
    };
    // A client cannot hold a task.
    if matches!(step.action, Action::Hold { .. }) {
        return Vec::new();
    }
    let mut points = vec![CutPoint::Started, CutPoint::Aborting];
    for call in calls(scenario) {
        let call = call.to_owned();
        points.extend([
            CutPoint::Running { call: call.clone() },
            CutPoint::Approval { call: call.clone() },
            CutPoint::Question { call },
        ]);
    }
    points.extend((1..=scenario.model.replies.len()).map(|reply| CutPoint::End { reply }));
    points.push(own.clone());
    let held = |point| {
        let mut plain = scenario.clone();
        let step = &mut plain.steps[at];
        if let (
            CutPoint::Approval { call: asks } | CutPoint::Question { call: asks },
            Action::Approve { call }
            | Action::Deny { call }
            | Action::Abort { call }
            | Action::Answer { call, .. },
        ) = (&point, &mut step.action)
        {
            *call = Some(asks.clone());
        }
        step.at = Some(point);
        step.yields = None;
        plain
    };
    points.into_iter().map(held).collect()
}

#[cfg(test)]
mod tests;
