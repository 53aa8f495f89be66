//! The client's steps.

use super::{NodeReader, ScenarioReader};
use crate::ast::{Action, Await, AwaitedReason, CutPoint, DisconnectKind, LateEvent, Step};
use crate::kdl::Node;

/// The form of each step, for help lines.
fn usage(name: &str) -> &'static str {
    match name {
        "user" => "user \"text\"",
        "steer" => "steer \"text\"",
        "replace" => "replace \"text\"",
        "user-shell" => "user-shell \"ls\"",
        "review" => "review \"the last change\"",
        "compact" => "compact",
        "fork" => "fork",
        "rollback" => "rollback 1",
        "open-conversation" => "open-conversation \"id\"",
        "truncate-rollout" => "truncate-rollout 5",
        "stop-reading" => "stop-reading",
        "resume-reading" => "resume-reading",
        "deliver-late" => "deliver-late delta",
        "interrupt" => "interrupt at=\"call_1 running\"",
        "approve" => "approve call_1",
        "deny" => "deny call_1",
        "abort" => "abort call_1",
        "answer" => "answer call_1 \"text\"",
        "kill" => "kill",
        "resume" => "resume",
        "drop" => "drop reset at=\"reply 1 event 4\"",
        "shutdown" => "shutdown",
        "hold" => HOLD,
        "wait" => "wait \"50ms\"",
        _ => "await turn-complete",
    }
}

/// The form of a step that holds the agent.
const HOLD: &str = "hold at=\"point rollout.write 3\" yields=2";

/// Reads a step; nothing if what it does is not known.
pub(super) fn read(reader: &mut ScenarioReader<'_>, node: &Node) -> Option<Step> {
    let span = reader.span(node);
    let mut fields = NodeReader::new(reader, node, usage(&node.name));
    let action = action(&mut fields, &node.name);
    let mut at = None;
    match fields.prop("at") {
        Some(arg) => {
            if let Some(phrase) = fields.as_text(arg, "`at`") {
                at = fields.reader.cut_point(arg, &phrase);
            }
        }
        None if node.name == "drop" => fields.missing_prop("at"),
        None => {}
    }
    let mut yields = yields(&mut fields, at.as_ref(), action.as_ref());
    if let Some(Action::Hold { quiet }) = action {
        yields = held(&mut fields, at.as_ref(), quiet, yields);
    }
    if action.is_none() {
        // The form is not known, so neither is which arguments it takes.
        fields.reader.facts.incomplete = true;
        return None;
    }
    fields.finish();
    action.map(|action| Step {
        at,
        yields,
        action,
        span,
    })
}

/// The property `yields`, which only makes sense for what can be done as the agent passes a point.
fn yields(
    fields: &mut NodeReader<'_, '_, '_>,
    at: Option<&CutPoint>,
    action: Option<&Action>,
) -> Option<usize> {
    let arg = fields.prop("yields")?;
    let yields = fields.as_number(arg, "`yields`");
    let at_point = matches!(at, Some(CutPoint::Point { .. }));
    if !at_point || !action.is_none_or(Action::can_fire) {
        fields.problem(
            "bad-yields",
            arg.span.clone(),
            "`yields` is for what the user says or does at a named point of the agent".to_owned(),
            "this step cannot do that",
            "write it like `interrupt at=\"point abort.take\" yields=2`".to_owned(),
        );
    }
    yields
}

/// For how long a `hold` holds: there is no other end to it.
fn held(
    fields: &mut NodeReader<'_, '_, '_>,
    at: Option<&CutPoint>,
    quiet: bool,
    yields: Option<usize>,
) -> Option<usize> {
    let at_point = matches!(at, Some(CutPoint::Point { .. }));
    if !at_point || quiet == yields.is_some() {
        fields.problem(
            "bad-hold",
            fields.node_span(),
            "`hold` needs a named point of the agent, and either `yields` or `until=quiet`"
                .to_owned(),
            "where it holds, or for how long, is missing",
            format!("write it like `{HOLD}` or `hold at=\"point rollout.write 3\" until=quiet`"),
        );
    }
    yields.or(Some(0))
}

fn action(fields: &mut NodeReader<'_, '_, '_>, name: &str) -> Option<Action> {
    Some(match name {
        "user" => Action::User {
            text: fields.text("a text"),
            id: fields.prop_text("id"),
            refused: fields.prop_flag("refused"),
        },
        "user-shell" => Action::UserShell {
            command: fields.text("a command"),
        },
        "review" => Action::Review {
            text: fields.text("what is to be reviewed"),
        },
        "compact" => Action::Compact,
        "fork" => Action::Fork,
        "rollback" => Action::Rollback {
            turns: fields.position("the number of turns"),
            refused: fields.prop_flag("refused"),
        },
        "open-conversation" => Action::OpenConversation {
            id: fields.text("an id"),
            refused: fields.prop_flag("refused"),
        },
        "truncate-rollout" => Action::TruncateRollout {
            bytes: fields.position("the number of bytes"),
        },
        "stop-reading" => Action::StopReading,
        "resume-reading" => Action::ResumeReading,
        "deliver-late" => Action::DeliverLate(late_event(fields)?),
        "steer" => Action::Steer {
            text: fields.text("a text"),
        },
        "replace" => Action::Replace {
            text: fields.text("a text"),
        },
        "interrupt" => Action::Interrupt {
            id: fields.prop_text("id"),
        },
        "approve" => Action::Approve {
            call: fields.call_that_waits(1),
        },
        "deny" => Action::Deny {
            call: fields.call_that_waits(1),
        },
        "abort" => Action::Abort {
            call: fields.call_that_waits(1),
        },
        "answer" => Action::Answer {
            call: fields.call_that_waits(2),
            text: fields.text("a text"),
        },
        "kill" => Action::Kill,
        "resume" => Action::Resume,
        "drop" => Action::Drop(drop_way(fields)),
        "shutdown" => Action::Shutdown,
        "hold" => Action::Hold {
            quiet: until_quiet(fields),
        },
        "wait" => Action::Wait {
            duration: fields.duration("a duration"),
        },
        _ => Action::Await(event(fields)?),
    })
}

/// The optional argument of `drop`.
pub(super) fn drop_way(fields: &mut NodeReader<'_, '_, '_>) -> DisconnectKind {
    fields
        .optional()
        .and_then(|arg| {
            fields.as_choice(
                arg,
                "way to drop a connection",
                &DisconnectKind::ALL.map(|way| (way.name(), way)),
            )
        })
        .unwrap_or_default()
}

/// The property `until` of `hold`.
fn until_quiet(fields: &mut NodeReader<'_, '_, '_>) -> bool {
    let arg = fields.prop("until");
    let chosen = arg.and_then(|arg| fields.as_choice(arg, "end of a hold", &[("quiet", true)]));
    chosen.unwrap_or(false)
}

/// The argument of `deliver-late`.
fn late_event(fields: &mut NodeReader<'_, '_, '_>) -> Option<LateEvent> {
    let arg = fields.required("an event")?;
    let choices = LateEvent::ALL.map(|event| (event.name(), event));
    fields.as_choice(arg, "event", &choices)
}

/// The forms of `await`, with how each is written.
const EVENTS: [(&str, &str); 13] = [
    ("turn-started", "await turn-started"),
    ("turn-complete", "await turn-complete"),
    ("turn-aborted", "await turn-aborted reason=interrupted"),
    ("turn-failed", "await turn-failed"),
    ("turn-ended", "await turn-ended"),
    ("request", "await request 2"),
    ("running", "await running call_1"),
    ("exited", "await exited call_1"),
    ("approval", "await approval call_1"),
    ("question", "await question call_1"),
    ("compacted", "await compacted"),
    ("output", "await output call_1 \"first\""),
    ("text", "await text \"Hel\""),
];

fn event(fields: &mut NodeReader<'_, '_, '_>) -> Option<Await> {
    let choices: Vec<(&'static str, usize)> = EVENTS
        .iter()
        .enumerate()
        .map(|(index, (name, _))| (*name, index))
        .collect();
    let arg = fields.required("an event to wait for")?;
    let index = fields.as_choice(arg, "event", &choices)?;
    let (name, usage) = EVENTS[index];
    fields.form(format!("await {name}"), usage);
    Some(match name {
        "turn-started" => Await::TurnStarted,
        "turn-complete" => Await::TurnComplete,
        "turn-aborted" => Await::TurnAborted {
            reason: reason(fields),
        },
        "turn-failed" => Await::TurnFailed,
        "turn-ended" => Await::TurnEnded,
        "request" => Await::Request {
            number: fields.position("the number of a request"),
        },
        "running" => Await::Running {
            call: fields.call(),
        },
        "exited" => Await::Exited {
            call: fields.call(),
        },
        "approval" => Await::Approval {
            call: fields.call(),
        },
        "question" => Await::Question {
            call: fields.call(),
        },
        "compacted" => Await::Compacted,
        "output" => Await::Output {
            call: fields.call(),
            containing: fields.needle("a text"),
        },
        _ => Await::Text {
            containing: fields.needle("a text"),
        },
    })
}

fn reason(fields: &mut NodeReader<'_, '_, '_>) -> Option<AwaitedReason> {
    let arg = fields.prop("reason")?;
    fields.as_choice(
        arg,
        "reason",
        &AwaitedReason::ALL.map(|reason| (reason.name(), reason)),
    )
}
