//! What a user did in a recorded session, read off its requests and answers.

use std::collections::HashMap;

use cutpoint_protocol::{EventKind, Item, ItemKind, StreamEvent, marker};

use crate::matching::{remember, whole_history};
use crate::model::{Exchange, Recording, Response};
use crate::normal::message_parts;

/// One thing that happened between user and agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// The user began a turn.
    Prompt(String),
    /// The user wrote while this call ran, and the turn went on.
    Steer {
        /// What was written.
        text: String,
        /// The call's id.
        call: String,
    },
    /// The user cut off the stream of this exchange.
    CutStream {
        /// The exchange's number.
        exchange: usize,
        /// How many of its events had come.
        events: usize,
    },
    /// The user interrupted while this call ran.
    CutCall(String),
    /// The turn completed.
    Completed,
    /// The turn ended without a whole answer.
    Failed,
}

/// A recorded session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// What happened, in order.
    pub did: Vec<Did>,
    /// The exchanges of the main conversation, by number.
    pub main: Vec<usize>,
    /// Those of others, such as sub-agents, by what the first message of each says.
    pub others: Vec<(String, Vec<usize>)>,
    /// Whether the model called tools.
    pub has_calls: bool,
}

/// How things stand in the main conversation.
enum State {
    /// No turn runs.
    Idle,
    /// The model's answer called these tools.
    Calls(Vec<String>),
    /// The client left this stream.
    Left { exchange: usize, events: usize },
    /// The answer was an error or was cut off by the server.
    Broken,
    /// The answer was whole.
    Whole,
}

/// Reads what a user did off a recording. The first conversation is the main one.
pub fn turns(recording: &Recording) -> Session {
    let mut reader = Reader::default();
    let mut known = HashMap::new();
    for exchange in &recording.exchanges {
        let history = whole_history(exchange, &known);
        let asks = exchange
            .request
            .as_ref()
            .is_some_and(|request| request.is_responses());
        if let Some(history) = history.filter(|_| asks) {
            reader.exchange(exchange, &history);
            remember(exchange, history, &mut known);
        }
    }
    reader.end();
    reader.session
}

struct Reader {
    session: Session,
    opening: Option<String>,
    state: State,
    prompts: usize,
    markers: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            session: Session::default(),
            opening: None,
            state: State::Idle,
            prompts: 0,
            markers: 0,
        }
    }
}

impl Reader {
    fn exchange(&mut self, exchange: &Exchange, history: &[Item]) {
        let prompts: Vec<String> = history.iter().filter_map(prompt).collect();
        let opening = prompts.first().cloned().unwrap_or_default();
        let main = self.opening.get_or_insert_with(|| opening.clone()).clone();
        if !prompts.contains(&main) && opening != main {
            let others = &mut self.session.others;
            match others.iter_mut().find(|(known, _)| prompts.contains(known)) {
                Some((_, numbers)) => numbers.push(exchange.number),
                None => others.push((opening, vec![exchange.number])),
            }
            return;
        }
        self.session.main.push(exchange.number);
        let markers = history
            .iter()
            .filter(|item| marker::is_marker(item))
            .count();
        // A compacted history has fewer of both.
        let new = prompts
            .get(self.prompts..)
            .and_then(<[String]>::last)
            .cloned();
        let interrupted = markers > self.markers;
        self.before_request(new, interrupted);
        (self.prompts, self.markers) = (prompts.len(), markers);
        self.state = state_after(exchange);
        self.session.has_calls |= matches!(self.state, State::Calls(_));
    }

    /// What must have happened since the answer before, now that this request came.
    fn before_request(&mut self, new: Option<String>, interrupted: bool) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        let did = &mut self.session.did;
        match (state, new) {
            (State::Calls(calls), new) if interrupted => {
                did.extend(calls.into_iter().next_back().map(Did::CutCall));
                did.extend(new.map(Did::Prompt));
            }
            (State::Calls(calls), Some(text)) => {
                let call = calls.into_iter().next_back().unwrap_or_default();
                did.push(Did::Steer { text, call });
            }
            (State::Left { exchange, events }, new) if interrupted || new.is_some() => {
                did.push(Did::CutStream { exchange, events });
                did.extend(new.map(Did::Prompt));
            }
            (State::Whole, Some(text)) => did.extend([Did::Completed, Did::Prompt(text)]),
            (State::Broken, Some(text)) => did.extend([Did::Failed, Did::Prompt(text)]),
            (State::Idle, Some(text)) => did.push(Did::Prompt(text)),
            // The same request once more, or the next one of the same turn.
            (_, _) => {}
        }
    }

    fn end(&mut self) {
        let last = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => None,
            State::Whole => Some(Did::Completed),
            State::Broken => Some(Did::Failed),
            State::Calls(calls) => calls.into_iter().next_back().map(Did::CutCall),
            State::Left { exchange, events } => Some(Did::CutStream { exchange, events }),
        };
        self.session.did.extend(last);
    }
}

/// What a user wrote; `None` for everything else, and for what only describes the machine.
fn prompt(item: &Item) -> Option<String> {
    let is_user = item.kind() == Some(ItemKind::Message) && item.role() == Some("user");
    if !is_user || marker::is_marker(item) {
        return None;
    }
    let mut parts = message_parts(item);
    parts.retain(|part| !part.is_empty());
    (!parts.is_empty()).then(|| parts.join("\n"))
}

fn state_after(exchange: &Exchange) -> State {
    let document = match &exchange.response {
        Response::Stream(document) => document,
        Response::Body { status, body, .. } => {
            let items = body["output"].as_array().cloned().unwrap_or_default();
            let items = items
                .into_iter()
                .filter_map(|item| Item::from_value(item).ok());
            return match status {
                200..=299 => after_items(items),
                _ => State::Broken,
            };
        }
    };
    let events: Vec<StreamEvent> = document
        .frames
        .iter()
        .filter_map(|frame| StreamEvent::parse(&frame.event.as_ref()?.data).ok())
        .collect();
    let done = |event: &StreamEvent| event.kind() == Some(EventKind::OutputItemDone);
    if events
        .iter()
        .any(|event| event.kind() == Some(EventKind::Completed))
    {
        let done = events.iter().filter(|event| done(event));
        return after_items(done.filter_map(StreamEvent::item));
    }
    if document.setting("end") == Some("stall") {
        return State::Left {
            exchange: exchange.number,
            events: events.len(),
        };
    }
    State::Broken
}

fn after_items(items: impl Iterator<Item = Item>) -> State {
    let call = |item: Item| item.call_kind().and(item.call_id().map(str::to_owned));
    let calls: Vec<String> = items.filter_map(call).collect();
    if calls.is_empty() {
        State::Whole
    } else {
        State::Calls(calls)
    }
}
