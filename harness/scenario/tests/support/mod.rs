//! Strategies for valid scenarios.

use std::time::Duration;

use cutpoint_scenario::ast::{
    Action, AgentEventKind, Await, AwaitedReason, Capability, CutPoint, DeltaIndex, DeltaSource,
    DisconnectKind, Expectation, ExpectationKind, ExpectedTurnEnd, LateEvent, ModelScript,
    RecordingRef, Reply, ReplyBody, ReplyEnd, ReplyPart, RuleWaiver, Scenario, ScenarioFile,
    SideConversationScript, Span, Step,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Ids that are easy to get wrong when they are printed bare.
const CALLS: [&str; 12] = [
    "call_1", "7", "-1", "true", "a-b", "_", "inf", "C2", "0x1f", "-", "running", "1e5",
];

/// Texts of every kind that has a form of its own in KDL.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9 .,:;'/?-]{1,24}",
        2 => "[a-z\"\\\\#{}= ]{1,16}",
        2 => "[a-z\"\\\\#\n ]{1,24}",
        1 => "[ \t\r\n\u{85}\u{2028}\u{b}\u{c}a]{1,8}",
        1 => any::<String>().prop_map(|text| if text.is_empty() { "x".to_owned() } else { text }),
        1 => Just("*** Begin Patch\n*** Add File: a\n+say \"hi\" \\o/\n*** End Patch".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    text().prop_filter("a name says something", |text| !text.trim().is_empty())
}

fn word() -> impl Strategy<Value = String> {
    "[A-Za-z#,:'\"0-9][A-Za-z0-9_.#-]{0,8}"
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_u64..100_000).prop_map(Duration::from_millis),
        (1_u64..86_400_000_000_000).prop_map(Duration::from_nanos),
    ]
}

/// A number of chunks that a text of that length can have.
fn chunked(text: &str, index: Index) -> usize {
    index.index(text.chars().count().max(1)) + 1
}

fn part() -> impl Strategy<Value = ReplyPart> {
    let call = || Just(String::new());
    prop_oneof![
        (text(), any::<Index>()).prop_map(|(text, index)| ReplyPart::Text {
            chunks: chunked(&text, index),
            text,
        }),
        (text(), any::<Index>()).prop_map(|(text, index)| ReplyPart::Reasoning {
            chunks: chunked(&text, index),
            text,
        }),
        (call(), text(), any::<Index>()).prop_map(|(call, command, index)| ReplyPart::Shell {
            call,
            chunks: chunked(&command, index),
            command,
        }),
        (call(), word(), text(), any::<Index>()).prop_map(|(call, name, arguments, index)| {
            ReplyPart::Function {
                call,
                name,
                chunks: chunked(&arguments, index),
                arguments,
            }
        }),
        (call(), word(), text(), any::<Index>()).prop_map(|(call, name, input, index)| {
            ReplyPart::Custom {
                call,
                name,
                chunks: chunked(&input, index),
                input,
            }
        }),
        (call(), vec(text(), 1..4))
            .prop_map(|(call, command)| ReplyPart::LocalShell { call, command }),
        text().prop_map(|text| ReplyPart::Item {
            json: serde_json::json!({"type": "message", "text": text}).to_string(),
        }),
        text().prop_map(|text| ReplyPart::Event {
            json: serde_json::to_string_pretty(&serde_json::json!({"a": [text], "type": "x"}))
                .expect("plain data"),
        }),
        text().prop_map(|text| ReplyPart::Malformed { text }),
        duration().prop_map(|duration| ReplyPart::Pause { duration }),
    ]
}

fn end() -> impl Strategy<Value = ReplyEnd> {
    prop_oneof![
        4 => Just(ReplyEnd::Completed),
        1 => Just(ReplyEnd::Stall),
        1 => select(DisconnectKind::ALL.to_vec()).prop_map(ReplyEnd::Drop),
        1 => text().prop_map(|reason| ReplyEnd::Incomplete { reason }),
        1 => (text(), option::of(text()))
            .prop_map(|(code, message)| ReplyEnd::Failed { code, message }),
        1 => (text(), option::of(text()), any::<bool>())
            .prop_map(|(code, message, nested)| ReplyEnd::Error { code, message, nested }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let body = prop_oneof![
        6 => (vec(part(), 0..4), end()).prop_map(|(parts, end)| ReplyBody::Stream { parts, end }),
        1 => (
            200_u16..600,
            option::of(0_u64..1000),
            vec(("[a-z-]{1,8}", "[ -~]{0,12}"), 0..3),
            option::of(text()),
        )
            .prop_map(|(status, retry_after_s, headers, body)| ReplyBody::Status {
                status,
                retry_after_s,
                headers,
                body,
            }),
        1 => (text(), 1_usize..9)
            .prop_map(|(name, exchange)| ReplyBody::Recorded { name, exchange }),
    ];
    (body, any::<bool>()).prop_map(|(body, lenient)| Reply {
        body,
        lenient,
        span: Span::default(),
    })
}

/// Gives the calls of a model ids of their own, and returns them.
fn name_calls(model: &mut ModelScript) -> Vec<String> {
    let mut calls = Vec::new();
    for reply in &mut model.replies {
        let ReplyBody::Stream { parts, .. } = &mut reply.body else {
            continue;
        };
        for part in parts {
            if let ReplyPart::Shell { call, .. }
            | ReplyPart::Function { call, .. }
            | ReplyPart::Custom { call, .. }
            | ReplyPart::LocalShell { call, .. } = part
            {
                let number = calls.len();
                *call = CALLS
                    .get(number)
                    .map_or_else(|| format!("call-{number}"), ToString::to_string);
                calls.push(call.clone());
            }
        }
    }
    if calls.is_empty() {
        // A raw item can make any call, so that steps have one to name.
        model.replies.push(Reply {
            body: ReplyBody::Stream {
                parts: vec![ReplyPart::Item {
                    json: r#"{"type":"function_call"}"#.to_owned(),
                }],
                end: ReplyEnd::Completed,
            },
            lenient: false,
            span: Span::default(),
        });
        calls.push("raw".to_owned());
    }
    calls
}

fn cut_point(calls: Vec<String>, replies: usize) -> impl Strategy<Value = CutPoint> {
    let call = || select(calls.clone());
    let nth = prop_oneof![
        Just(DeltaIndex::At(1)),
        Just(DeltaIndex::Middle),
        Just(DeltaIndex::Last)
    ];
    prop_oneof![
        (1..=replies).prop_map(|reply| CutPoint::Request { reply }),
        (1..=replies).prop_map(|reply| CutPoint::Headers { reply }),
        (1..=replies, 1_usize..99)
            .prop_map(|(reply, event)| CutPoint::StreamEvent { reply, event }),
        (1..=replies, 1_usize..99, 1_usize..99).prop_map(|(reply, event, byte)| CutPoint::Byte {
            reply,
            event,
            byte
        }),
        (nth.clone(), call()).prop_map(|(nth, call)| CutPoint::Delta {
            nth,
            of: DeltaSource::Call(call)
        }),
        (nth, 1..=replies).prop_map(|(nth, reply)| CutPoint::Delta {
            nth,
            of: DeltaSource::Reply(reply)
        }),
        call().prop_map(|call| CutPoint::Added { call }),
        call().prop_map(|call| CutPoint::Done { call }),
        (1..=replies).prop_map(|reply| CutPoint::End { reply }),
        call().prop_map(|call| CutPoint::Running { call }),
        call().prop_map(|call| CutPoint::Exited { call }),
        call().prop_map(|call| CutPoint::Approval { call }),
        call().prop_map(|call| CutPoint::Question { call }),
        Just(CutPoint::Started),
        Just(CutPoint::Aborting),
        Just(CutPoint::Idle),
        (select(&AgentEventKind::ALL[..]), 1_usize..4)
            .prop_map(|(event, nth)| CutPoint::AgentEvent { event, nth }),
        ("[a-z][a-z._-]{0,9}", 1_usize..4).prop_map(|(label, nth)| CutPoint::Point { label, nth }),
    ]
}

fn awaited(calls: Vec<String>) -> impl Strategy<Value = Await> {
    let call = || select(calls.clone());
    prop_oneof![
        Just(Await::TurnStarted),
        Just(Await::TurnComplete),
        option::of(select(AwaitedReason::ALL.to_vec()))
            .prop_map(|reason| Await::TurnAborted { reason }),
        Just(Await::TurnFailed),
        Just(Await::TurnEnded),
        (1_usize..9).prop_map(|number| Await::Request { number }),
        call().prop_map(|call| Await::Running { call }),
        call().prop_map(|call| Await::Exited { call }),
        call().prop_map(|call| Await::Approval { call }),
        call().prop_map(|call| Await::Question { call }),
        Just(Await::Compacted),
        (call(), text()).prop_map(|(call, containing)| Await::Output { call, containing }),
        text().prop_map(|containing| Await::Text { containing }),
    ]
}

fn action(calls: Vec<String>) -> impl Strategy<Value = Action> {
    let call = || select(calls.clone());
    prop_oneof![
        (text(), option::of(text()), any::<bool>()).prop_map(|(text, id, refused)| Action::User {
            text,
            id,
            refused
        }),
        text().prop_map(|command| Action::UserShell { command }),
        text().prop_map(|text| Action::Review { text }),
        Just(Action::Compact),
        Just(Action::Fork),
        (1_usize..9, any::<bool>())
            .prop_map(|(turns, refused)| Action::Rollback { turns, refused }),
        (text(), any::<bool>()).prop_map(|(id, refused)| Action::OpenConversation { id, refused }),
        (1_usize..99).prop_map(|bytes| Action::TruncateRollout { bytes }),
        Just(Action::StopReading),
        Just(Action::ResumeReading),
        select(LateEvent::ALL.to_vec()).prop_map(Action::DeliverLate),
        text().prop_map(|text| Action::Steer { text }),
        text().prop_map(|text| Action::Replace { text }),
        option::of(text()).prop_map(|id| Action::Interrupt { id }),
        option::of(call()).prop_map(|call| Action::Approve { call }),
        option::of(call()).prop_map(|call| Action::Deny { call }),
        option::of(call()).prop_map(|call| Action::Abort { call }),
        (option::of(call()), text()).prop_map(|(call, text)| Action::Answer { call, text }),
        Just(Action::Kill),
        Just(Action::Shutdown),
        any::<bool>().prop_map(|quiet| Action::Hold { quiet }),
        select(DisconnectKind::ALL.to_vec()).prop_map(Action::Drop),
        duration().prop_map(|duration| Action::Wait { duration }),
        awaited(calls.clone()).prop_map(Action::Await),
    ]
}

/// Makes a list of steps possible: a `resume` after each end, a cut point for each drop, and only
/// those cut points that the parser cannot refuse for the model at hand.
fn possible(steps: Vec<(Option<CutPoint>, Action)>, model: &ModelScript) -> Vec<Step> {
    let step = |at: Option<CutPoint>, action: Action| Step {
        yields: match action {
            Action::Hold { quiet: true } => Some(0),
            _ => fires(at.as_ref(), &action).then_some(2),
        },
        at,
        action,
        span: Span::default(),
    };
    let mut out = vec![step(
        None,
        Action::User {
            text: "begin".to_owned(),
            id: None,
            refused: false,
        },
    )];
    for (at, action) in steps {
        let at = at.filter(|point| is_possible(point, model));
        if names_no_call(&action) && !fires(at.as_ref(), &action) {
            continue;
        }
        let tears = matches!(action, Action::TruncateRollout { .. });
        let ends = tears || matches!(action, Action::Kill | Action::Shutdown);
        if tears {
            out.push(step(None, Action::Kill));
        }
        let at = match (&action, at) {
            (Action::Drop(_), None) => Some(CutPoint::Started),
            (_, at) => at,
        };
        out.push(step(at, action));
        if ends {
            out.push(step(None, Action::Resume));
        }
    }
    out
}

fn fires(at: Option<&CutPoint>, action: &Action) -> bool {
    action.can_fire() && matches!(at, Some(CutPoint::Point { .. }))
}

/// Whether the step is about whichever call waits, or whichever task passes: only a step that is done by itself can be.
fn names_no_call(action: &Action) -> bool {
    matches!(
        action,
        Action::Approve { call: None }
            | Action::Deny { call: None }
            | Action::Abort { call: None }
            | Action::Answer { call: None, .. }
            | Action::Hold { .. }
    )
}

fn is_possible(point: &CutPoint, model: &ModelScript) -> bool {
    let (CutPoint::StreamEvent { reply, .. }
    | CutPoint::Byte { reply, .. }
    | CutPoint::End { reply }
    | CutPoint::Delta {
        of: DeltaSource::Reply(reply),
        ..
    }) = point
    else {
        return !matches!(
            point,
            CutPoint::Delta {
                of: DeltaSource::Call(call),
                ..
            } if is_local_shell(call, model)
        );
    };
    match model.replies.get(reply - 1).map(|reply| &reply.body) {
        Some(ReplyBody::Status { .. }) => false,
        Some(ReplyBody::Stream { parts, .. }) if matches!(point, CutPoint::Delta { .. }) => {
            parts.iter().any(|part| {
                matches!(
                    part,
                    ReplyPart::Text { .. } | ReplyPart::Reasoning { .. } | ReplyPart::Shell { .. }
                )
            })
        }
        _ => true,
    }
}

fn is_local_shell(id: &str, model: &ModelScript) -> bool {
    model.replies.iter().any(|reply| {
        matches!(&reply.body, ReplyBody::Stream { parts, .. }
            if parts.iter().any(|part| matches!(part, ReplyPart::LocalShell { call, .. } if call == id)))
    })
}

fn expectation(calls: Vec<String>) -> impl Strategy<Value = ExpectationKind> {
    let call = || select(calls.clone());
    prop_oneof![
        (call(), option::of(1_usize..9), option::of(text())).prop_map(
            |(call, in_request, containing)| ExpectationKind::Answered {
                call,
                in_request,
                containing
            }
        ),
        call().prop_map(|call| ExpectationKind::NoCall { call }),
        text().prop_map(|command| ExpectationKind::NoProcess { command }),
        (0_usize..9).prop_map(|count| ExpectationKind::Requests { count }),
        (0_usize..9, 1_usize..9)
            .prop_map(|(count, in_request)| ExpectationKind::Markers { count, in_request }),
        (1_usize..9, text(), option::of(text()), any::<bool>()).prop_map(
            |(number, one, other, swap)| {
                let (containing, not_containing) = if swap {
                    (other, Some(one))
                } else {
                    (Some(one), other)
                };
                ExpectationKind::Request {
                    number,
                    containing,
                    not_containing,
                }
            }
        ),
        vec(select(ExpectedTurnEnd::ALL.to_vec()), 1..4)
            .prop_map(|outcomes| ExpectationKind::Turns { outcomes }),
        text().prop_map(|containing| ExpectationKind::Shown { containing }),
        text().prop_map(|containing| ExpectationKind::NotShown { containing }),
        (0_usize..9).prop_map(|count| ExpectationKind::Refused { count }),
    ]
}

fn model_name() -> impl Strategy<Value = String> {
    "[a-z][ -~é]{0,12}"
}

fn model() -> impl Strategy<Value = ModelScript> {
    prop_oneof![
        5 => (option::of(model_name()), any::<bool>(), vec(reply(), 1..4), vec(conversation(), 0..3)).prop_map(|(name, substitute_tools, replies, others)| ModelScript {
            name,
            substitute_tools,
            recording: None,
            replies,
            side_conversations: others,
        }),
        1 => (option::of(model_name()), any::<bool>(), text()).prop_map(|(model, substitute_tools, name)| ModelScript {
            name: model,
            substitute_tools,
            recording: Some(RecordingRef { name, span: Span::default() }),
            replies: Vec::new(),
            side_conversations: Vec::new(),
        }),
    ]
}

/// A conversation beside the main one; its replies make no calls, as these would need ids.
fn conversation() -> impl Strategy<Value = SideConversationScript> {
    let reply = text().prop_map(|text| Reply {
        body: ReplyBody::Stream {
            parts: vec![ReplyPart::Text { text, chunks: 1 }],
            end: ReplyEnd::Completed,
        },
        lenient: false,
        span: Span::default(),
    });
    (text(), vec(reply, 1..3)).prop_map(|(opening, replies)| SideConversationScript {
        opening,
        replies,
        span: Span::default(),
    })
}

/// A valid scenario.
pub fn scenario() -> impl Strategy<Value = Scenario> {
    let head = (
        name(),
        option::of(text()),
        proptest::sample::subsequence(Capability::ALL.to_vec(), 0..4),
        (option::of(duration()), option::of(duration())),
        vec(text(), 0..3),
    );
    (head, model()).prop_flat_map(
        |((name, about, needs, (limit, abort_within), waive), mut model)| {
            let calls = if model.recording.is_some() {
                vec!["any".to_owned()]
            } else {
                name_calls(&mut model)
            };
            let point = cut_point(calls.clone(), model.replies.len().max(1));
            let steps = vec((option::of(point), action(calls.clone())), 0..6);
            let expect = vec(expectation(calls), 0..5);
            (steps, expect).prop_map(move |(steps, expect)| Scenario {
                name: name.clone(),
                about: about.clone(),
                needs: needs.clone(),
                limit,
                abort_within,
                model: model.clone(),
                steps: possible(steps, &model),
                expectations: expect
                    .into_iter()
                    .map(|kind| Expectation {
                        kind,
                        span: Span::default(),
                    })
                    .collect(),
                waivers: waive
                    .iter()
                    .enumerate()
                    .map(|(number, because)| RuleWaiver {
                        rule: format!("CALL-{number}"),
                        rule_span: Span::default(),
                        because: format!("because {because}"),
                        span: Span::default(),
                    })
                    .collect(),
                span: Span::default(),
            })
        },
    )
}

/// A valid file.
pub fn file() -> impl Strategy<Value = ScenarioFile> {
    vec(scenario(), 1..3).prop_map(|mut scenarios| {
        if let [first, second] = scenarios.as_mut_slice()
            && first.name == second.name
        {
            second.name.push_str(" again");
        }
        ScenarioFile { scenarios }
    })
}
