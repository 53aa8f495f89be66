//! A scenario out of a recorded session.

use cutpoint_recording::session::{
    CutPlace, SessionOutline, SteerTime, TurnCut, TurnEndKind, UserAction,
};
use cutpoint_scenario::ast::{
    Action, Await, AwaitedReason, CutPoint, Expectation, ExpectationKind, ExpectedTurnEnd,
    ModelScript, RecordingRef, Reply, ReplyBody, Scenario, SideConversationScript, Span, Step,
};

/// Where the model's replies come from.
#[derive(Debug, Clone, Copy)]
pub enum ReplySource<'a> {
    /// From this recording, a name or a path: each request finds its exchange.
    ByContent(&'a str),
    /// From the recording of this name, in order.
    InOrder(&'a str),
}

impl<'a> ReplySource<'a> {
    /// What suits a session that a client and a model had.
    ///
    /// Where the model used no tools and nothing was interrupted, every agent sends the recorded history,
    /// and replies are found by it. Elsewhere histories differ from agent to agent (the words of an
    /// output, what is kept of a cut message), so the replies are taken in order.
    pub fn of(recording: &'a str, session: &SessionOutline) -> Self {
        let cut = |did: &UserAction| {
            matches!(
                did,
                UserAction::Interrupt(_) | UserAction::Replace { .. } | UserAction::Kill(_)
            )
        };
        let cut = session.actions.iter().any(cut);
        if session.has_calls || cut || !session.others.is_empty() {
            Self::InOrder(recording)
        } else {
            Self::ByContent(recording)
        }
    }

    fn model(self, session: &SessionOutline) -> ModelScript {
        match self {
            Self::ByContent(name) => ModelScript {
                name: session.model.clone(),
                substitute_tools: !session.substitutes.is_empty(),
                recording: Some(RecordingRef {
                    name: name.to_owned(),
                    span: Span::default(),
                }),
                ..ModelScript::default()
            },
            Self::InOrder(name) => {
                let replies = |numbers: &[usize]| -> Vec<Reply> {
                    numbers.iter().map(|number| reply(name, *number)).collect()
                };
                let other = |(opening, numbers): &(String, Vec<usize>)| SideConversationScript {
                    opening: opening.clone(),
                    replies: replies(numbers),
                    span: Span::default(),
                };
                ModelScript {
                    name: session.model.clone(),
                    substitute_tools: !session.substitutes.is_empty(),
                    recording: None,
                    replies: replies(&session.main),
                    side_conversations: session.others.iter().map(other).collect(),
                }
            }
        }
    }

    /// The number that the reply of an exchange has in the scenario.
    fn number(self, session: &SessionOutline, exchange: usize) -> usize {
        let mut main = session.main.iter();
        match self {
            Self::ByContent(_) => exchange,
            Self::InOrder(_) => main
                .position(|number| *number == exchange)
                .map_or(exchange, |at| at + 1),
        }
    }
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

/// The scenario in which a user does again what was recorded.
pub fn scenario(
    name: &str,
    about: &str,
    replies: ReplySource<'_>,
    session: &SessionOutline,
) -> Scenario {
    let number = |exchange: usize| replies.number(session, exchange);
    let mut steps = Vec::new();
    for did in &session.actions {
        match did {
            UserAction::Prompt(text) => steps.push(plain(Action::User {
                text: text.clone(),
                id: None,
                refused: false,
            })),
            UserAction::Steer { text, at } => {
                let at = match at {
                    SteerTime::Start => None,
                    SteerTime::Answer(exchange) => Some(CutPoint::End {
                        reply: number(*exchange),
                    }),
                    SteerTime::Running(call) => Some(CutPoint::Running { call: call.clone() }),
                };
                steps.push(step(at, Action::Steer { text: text.clone() }));
            }
            UserAction::Interrupt(cut) => {
                cut_by(&mut steps, cut, &number, Action::Interrupt { id: None })
            }
            UserAction::Replace { text, cut } => {
                let text = text.clone();
                cut_by(&mut steps, cut, &number, Action::Replace { text });
            }
            UserAction::Kill(cut) => {
                cut_by(&mut steps, cut, &number, Action::Kill);
                steps.push(plain(Action::Resume));
            }
            UserAction::Ended(how) => steps.push(plain(Action::Await(awaited(*how)))),
        }
    }
    Scenario {
        name: name.to_owned(),
        about: Some(about.to_owned()),
        model: replies.model(session),
        steps,
        ..Scenario::default()
    }
}

/// How the turns have to end for the session to be the recorded one.
pub fn expected(session: &SessionOutline) -> Vec<Expectation> {
    let outcome = |did: &UserAction| match did {
        UserAction::Ended(TurnEndKind::Complete) => Some(ExpectedTurnEnd::Complete),
        UserAction::Ended(TurnEndKind::Interrupted | TurnEndKind::Killed) => {
            Some(ExpectedTurnEnd::Aborted)
        }
        UserAction::Ended(TurnEndKind::Replaced) => Some(ExpectedTurnEnd::Replaced),
        UserAction::Ended(TurnEndKind::Failed) => Some(ExpectedTurnEnd::Failed),
        _ => None,
    };
    if session
        .actions
        .iter()
        .any(|did| matches!(did, UserAction::Kill(_)))
    {
        // What a killed agent makes of its turn is up to the rules.
        return Vec::new();
    }
    let outcomes = session.actions.iter().filter_map(outcome).collect();
    vec![Expectation {
        kind: ExpectationKind::Turns { outcomes },
        span: Span::default(),
    }]
}

fn awaited(how: TurnEndKind) -> Await {
    let aborted = |reason| Await::TurnAborted {
        reason: Some(reason),
    };
    match how {
        TurnEndKind::Complete => Await::TurnComplete,
        TurnEndKind::Interrupted | TurnEndKind::Killed => aborted(AwaitedReason::Interrupted),
        TurnEndKind::Replaced => aborted(AwaitedReason::Replaced),
        // Agents differ in what they make of a broken answer.
        TurnEndKind::Failed => Await::TurnEnded,
    }
}

fn cut_by(steps: &mut Vec<Step>, cut: &TurnCut, number: &dyn Fn(usize) -> usize, action: Action) {
    for call in &cut.exited {
        let call = call.clone();
        steps.push(plain(Action::Await(Await::Exited { call })));
    }
    let at = match &cut.place {
        CutPlace::Call {
            call,
            shown: Some(shown),
        } => {
            // What the user had read by then, the model may learn of: so it is waited for.
            let (call, containing) = (call.clone(), shown.clone());
            steps.push(plain(Action::Await(Await::Output { call, containing })));
            None
        }
        CutPlace::Call { call, shown: None } => Some(CutPoint::Running { call: call.clone() }),
        CutPlace::Stream {
            exchange,
            events: 0,
        } => Some(CutPoint::Headers {
            reply: number(*exchange),
        }),
        CutPlace::Stream { exchange, events } => Some(CutPoint::StreamEvent {
            reply: number(*exchange),
            event: *events,
        }),
    };
    steps.push(step(at, action));
}

fn plain(action: Action) -> Step {
    step(None, action)
}

fn step(at: Option<CutPoint>, action: Action) -> Step {
    Step {
        at,
        yields: None,
        action,
        span: Span::default(),
    }
}
