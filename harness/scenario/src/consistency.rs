//! What only shows in a whole scenario: names that nothing defines, steps that cannot happen.

use std::ops::Range;

use crate::ast::{
    Action, CutPoint, DeltaIndex, DeltaSource, Reply, ReplyBody, ReplyPart, Scenario,
};
use crate::diagnostic::Diagnostic;
use crate::kdl::PROBLEM_LIMIT;
use crate::reader::{CutPointMention, ScenarioFacts};
use crate::suggest::{list, nearest};

/// How many calls a help line lists, and compares with a mistyped one.
const SUGGESTION_LIMIT: usize = 20;

/// Checks a scenario that has been read, as far as it could be read.
pub(crate) fn check(scenario: &Scenario, facts: &ScenarioFacts, problems: &mut Vec<Diagnostic>) {
    presence(scenario, facts, problems);
    for (call, span) in &facts.mentions {
        if problems.len() >= PROBLEM_LIMIT {
            return;
        }
        known_call(call, span, scenario, facts, problems);
    }
    for mention in &facts.points {
        point(mention, scenario, facts, problems);
    }
    process(scenario, facts, problems);
}

/// A model that answers, and a user who asks.
fn presence(scenario: &Scenario, facts: &ScenarioFacts, problems: &mut Vec<Diagnostic>) {
    if facts.incomplete {
        return;
    }
    if scenario.model.recording.is_none() && scenario.model.replies.is_empty() && !facts.open_world
    {
        let (span, message) = match &facts.model {
            Some(span) => (span.clone(), "this model answers nothing"),
            None => (facts.name.clone(), "this scenario has no model"),
        };
        problems.push(
            Diagnostic::new("empty-model", span, message, "no request would be answered").help(
                "write `model { reply { text \"Hello\" } }` or `model { recording \"name\" }`",
            ),
        );
    }
    let speaks = scenario
        .steps
        .iter()
        .any(|step| matches!(step.action, Action::User { .. }));
    if !speaks {
        problems.push(
            Diagnostic::new(
                "no-user",
                facts.name.clone(),
                "the user says nothing in this scenario",
                "it has no `user` step",
            )
            .help("add a step such as `user \"run it\"`: without input no turn begins"),
        );
    }
}

fn known_call(
    call: &str,
    span: &Range<usize>,
    scenario: &Scenario,
    facts: &ScenarioFacts,
    problems: &mut Vec<Diagnostic>,
) {
    if facts.open_world || facts.defined.contains_key(call) || is_user_command(call, scenario) {
        return;
    }
    let calls: Vec<&str> = facts
        .defined
        .keys()
        .take(SUGGESTION_LIMIT)
        .map(String::as_str)
        .collect();
    let help = match (nearest(call, &calls), calls.as_slice()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => {
            format!("no reply of this scenario makes a call; add `shell {call} \"…\"` to a reply")
        }
        (None, [only]) => format!("the only call of this scenario is `{only}`"),
        (None, some) if some.len() < SUGGESTION_LIMIT => {
            format!("the calls of this scenario are {}", list(some))
        }
        (None, some) => format!("the first calls of this scenario are {}", list(some)),
    };
    problems.push(
        Diagnostic::new(
            "unknown-call",
            span.clone(),
            format!("no reply makes a call `{call}`"),
            "unknown call",
        )
        .help(help),
    );
}

/// Whether the id is that of a command which the user runs: they are numbered from 1.
fn is_user_command(call: &str, scenario: &Scenario) -> bool {
    let is_one = |step: &&crate::ast::Step| matches!(step.action, Action::UserShell { .. });
    let number = call.strip_prefix("user-shell-");
    let number: Option<usize> = number.and_then(|number| number.parse().ok());
    number
        .is_some_and(|number| (1..=scenario.steps.iter().filter(is_one).count()).contains(&number))
}

fn point(
    mention: &CutPointMention,
    scenario: &Scenario,
    facts: &ScenarioFacts,
    problems: &mut Vec<Diagnostic>,
) {
    if let (Some(call), Some(span)) = (point_call(&mention.point), &mention.call) {
        known_call(call, span, scenario, facts, problems);
    }
    let Some(number) = point_reply(&mention.point) else {
        return deltas_of_call(mention, facts, problems);
    };
    let span = mention.reply.as_ref().unwrap_or(&mention.span);
    let replies = &scenario.model.replies;
    if scenario.model.recording.is_some() || replies.is_empty() {
        return;
    }
    let Some(reply) = replies.get(number - 1) else {
        problems.push(
            Diagnostic::new(
                "unknown-reply",
                span.clone(),
                format!("there is no reply {number}"),
                match replies.len() {
                    1 => "the model has one reply only".to_owned(),
                    count => format!("the model has {count} replies"),
                },
            )
            .help(match replies.len() {
                1 => "write 1, or add a reply to the model".to_owned(),
                count => format!("write a number from 1 to {count}, or add a reply to the model"),
            }),
        );
        return;
    };
    let in_stream = !matches!(
        mention.point,
        CutPoint::Request { .. } | CutPoint::Headers { .. }
    );
    if in_stream && let ReplyBody::Status { status, .. } = reply.body {
        problems.push(
            Diagnostic::new(
                "no-stream",
                span.clone(),
                format!("reply {number} is not a stream, so it has no events"),
                format!("this reply is the HTTP status {status}"),
            )
            .help(format!(
                "only `request {number}` and `headers of reply {number}` are points of it"
            )),
        );
        return;
    }
    deltas_of_reply(mention, reply, problems);
}

/// The call that a cut point names.
fn point_call(point: &CutPoint) -> Option<&str> {
    match point {
        CutPoint::Added { call }
        | CutPoint::Done { call }
        | CutPoint::Running { call }
        | CutPoint::Exited { call }
        | CutPoint::Approval { call }
        | CutPoint::Question { call }
        | CutPoint::Delta {
            of: DeltaSource::Call(call),
            ..
        } => Some(call),
        _ => None,
    }
}

/// The reply that a cut point names.
fn point_reply(point: &CutPoint) -> Option<usize> {
    match point {
        CutPoint::Request { reply }
        | CutPoint::Headers { reply }
        | CutPoint::StreamEvent { reply, .. }
        | CutPoint::Byte { reply, .. }
        | CutPoint::End { reply }
        | CutPoint::Delta {
            of: DeltaSource::Reply(reply),
            ..
        } => Some(*reply),
        _ => None,
    }
}

fn deltas_of_call(
    mention: &CutPointMention,
    facts: &ScenarioFacts,
    problems: &mut Vec<Diagnostic>,
) {
    let CutPoint::Delta {
        nth,
        of: DeltaSource::Call(call),
    } = &mention.point
    else {
        return;
    };
    // A raw event can be one more delta of any call.
    if facts.open_world {
        return;
    }
    if let Some(known) = facts.defined.get(call) {
        enough_deltas(mention, *nth, known.deltas, &format!("`{call}`"), problems);
    }
}

fn deltas_of_reply(mention: &CutPointMention, reply: &Reply, problems: &mut Vec<Diagnostic>) {
    let CutPoint::Delta {
        nth,
        of: DeltaSource::Reply(number),
    } = &mention.point
    else {
        return;
    };
    let ReplyBody::Stream { parts, .. } = &reply.body else {
        return;
    };
    let mut deltas = 0_usize;
    for part in parts {
        deltas += match part {
            ReplyPart::Text { chunks, .. }
            | ReplyPart::Reasoning { chunks, .. }
            | ReplyPart::Shell { chunks, .. }
            | ReplyPart::Function { chunks, .. }
            | ReplyPart::Custom { chunks, .. } => *chunks,
            ReplyPart::Event { .. } => return,
            ReplyPart::LocalShell { .. }
            | ReplyPart::Item { .. }
            | ReplyPart::Malformed { .. }
            | ReplyPart::Pause { .. } => 0,
        };
    }
    enough_deltas(mention, *nth, deltas, &format!("reply {number}"), problems);
}

fn enough_deltas(
    mention: &CutPointMention,
    nth: DeltaIndex,
    deltas: usize,
    whose: &str,
    problems: &mut Vec<Diagnostic>,
) {
    let (message, help) = match (nth, deltas) {
        (_, 0) => (
            format!("{whose} is sent without any delta"),
            "cut it at another point, such as `reply 1 event 4`".to_owned(),
        ),
        (DeltaIndex::At(number), _) if number > deltas => (
            format!("{whose} has no delta {number}"),
            format!("write a number from 1 to {deltas}, or raise `chunks`"),
        ),
        _ => return,
    };
    let span = match (&mention.nth, deltas) {
        (Some(span), 1..) => span.clone(),
        _ => mention
            .call
            .clone()
            .or_else(|| mention.reply.clone())
            .unwrap_or_else(|| mention.span.clone()),
    };
    let label = match deltas {
        0 => "there are no deltas".to_owned(),
        1 => "it is sent in one delta".to_owned(),
        _ => format!("it is sent in {deltas} deltas"),
    };
    problems.push(Diagnostic::new("unknown-delta", span, message, label).help(help));
}

/// Steps that need a running agent, and `resume`, which needs one that has ended.
fn process(scenario: &Scenario, facts: &ScenarioFacts, problems: &mut Vec<Diagnostic>) {
    let mut gone: Option<(&str, usize)> = None;
    for (step, span) in scenario.steps.iter().zip(&facts.steps) {
        let name = match &step.action {
            Action::TruncateRollout { .. } if gone.is_some() => continue,
            Action::TruncateRollout { .. } => {
                problems.push(
                    Diagnostic::new(
                        "truncate-while-running",
                        span.clone(),
                        "the agent is running here, so its rollout cannot be truncated",
                        "there is no `kill` or `shutdown` before this",
                    )
                    .help("put it between a `kill` and a `resume`"),
                );
                continue;
            }
            Action::Resume => {
                if gone.take().is_none() {
                    problems.push(
                        Diagnostic::new(
                            "resume-while-running",
                            span.clone(),
                            "the agent is running here, so it cannot be resumed",
                            "there is no `kill` or `shutdown` before this",
                        )
                        .help("end it first with a `kill` or `shutdown` step"),
                    );
                }
                continue;
            }
            // Waiting is possible without an agent: events it has sent can still be looked at.
            Action::Wait { .. } | Action::Await(_) | Action::DeliverLate(_) => continue,
            Action::User { .. } => "user",
            Action::UserShell { .. } => "user-shell",
            Action::Review { .. } => "review",
            Action::Compact => "compact",
            Action::Fork => "fork",
            Action::Rollback { .. } => "rollback",
            Action::OpenConversation { .. } => "open-conversation",
            Action::StopReading => "stop-reading",
            Action::ResumeReading => "resume-reading",
            Action::Steer { .. } => "steer",
            Action::Replace { .. } => "replace",
            Action::Interrupt { .. } => "interrupt",
            Action::Approve { .. } => "approve",
            Action::Deny { .. } => "deny",
            Action::Abort { .. } => "abort",
            Action::Answer { .. } => "answer",
            Action::Drop(_) => "drop",
            Action::Hold { .. } => "hold",
            Action::Kill => "kill",
            Action::Shutdown => "shutdown",
        };
        // What is done by itself is done while the agent runs, wherever it stands.
        if let (None, Some((ender, line))) = (step.yields, gone) {
            problems.push(
                Diagnostic::new(
                    "agent-not-running",
                    span.clone(),
                    format!("the agent is not running here, so `{name}` cannot reach it"),
                    format!("`{ender}` on line {line} ended it"),
                )
                .help("add a `resume` step in between"),
            );
            // One report is enough: the steps after this one have the same cause.
            return;
        }
        if step.action.ends_agent() {
            gone = Some((name, step.span.line));
        }
    }
}
