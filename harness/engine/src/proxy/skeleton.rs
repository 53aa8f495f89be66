//! A scenario out of a recorded session.

use cutpoint_recording::{Did, Session};
use cutpoint_scenario::ast::{
    Action, Await, Conversation, CutPoint, File, Model, Reason, Recording, Reply, ReplyBody,
    Scenario, Span, Step,
};

/// The scenario file that does what the user of this session did; it has the recording's name.
///
/// Where the model used no tools and nothing was interrupted, every agent sends the recorded history,
/// and replies are matched by it. Elsewhere histories differ from agent to agent (the words of an
/// output, what is kept of a cut message), so the replies are taken in order.
pub fn scenario(name: &str, about: &str, session: &Session) -> String {
    let cut = |did: &Did| matches!(did, Did::CutStream { .. } | Did::CutCall(_));
    let by_history =
        !session.has_calls && !session.did.iter().any(cut) && session.others.is_empty();
    let replies = |numbers: &[usize]| -> Vec<Reply> {
        numbers.iter().map(|number| reply(name, *number)).collect()
    };
    let model = if by_history {
        Model {
            recording: Some(Recording {
                name: name.to_owned(),
                span: Span::default(),
            }),
            ..Model::default()
        }
    } else {
        let other = |(opening, numbers): &(String, Vec<usize>)| Conversation {
            opening: opening.clone(),
            replies: replies(numbers),
            span: Span::default(),
        };
        Model {
            recording: None,
            replies: replies(&session.main),
            others: session.others.iter().map(other).collect(),
        }
    };
    let place = |exchange: usize| {
        let at = session.main.iter().position(|number| *number == exchange);
        at.map_or(exchange, |at| at + 1)
    };
    let scenario = Scenario {
        name: name.to_owned(),
        about: Some(about.to_owned()),
        model,
        steps: session
            .did
            .iter()
            .flat_map(|did| steps(did, &place))
            .collect(),
        ..Scenario::default()
    };
    cutpoint_scenario::print(&File {
        scenarios: vec![scenario],
    })
}

fn reply(name: &str, exchange: usize) -> Reply {
    Reply {
        body: ReplyBody::Recorded {
            name: name.to_owned(),
            exchange,
        },
        lenient: false,
        span: Span::default(),
    }
}

fn steps(did: &Did, place: &dyn Fn(usize) -> usize) -> Vec<Step> {
    let interrupted = |at: CutPoint| {
        let reason = Some(Reason::Interrupted);
        let aborted = Action::Await(Await::TurnAborted { reason });
        vec![
            step(Some(at), Action::Interrupt { id: None }),
            step(None, aborted),
        ]
    };
    match did {
        Did::Prompt(text) => vec![step(
            None,
            Action::User {
                text: text.clone(),
                id: None,
                refused: false,
            },
        )],
        Did::Steer { text, call } => vec![step(
            Some(CutPoint::Running { call: call.clone() }),
            Action::Steer { text: text.clone() },
        )],
        Did::CutStream { exchange, events } => interrupted(match events {
            0 => CutPoint::Headers {
                reply: place(*exchange),
            },
            _ => CutPoint::Event {
                reply: place(*exchange),
                event: *events,
            },
        }),
        Did::CutCall(call) => interrupted(CutPoint::Running { call: call.clone() }),
        Did::Completed => vec![step(None, Action::Await(Await::TurnComplete))],
        Did::Failed => vec![step(None, Action::Await(Await::TurnEnded))],
    }
}

fn step(at: Option<CutPoint>, action: Action) -> Step {
    Step {
        at,
        yields: None,
        action,
        span: Span::default(),
    }
}
