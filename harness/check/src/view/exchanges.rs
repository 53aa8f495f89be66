//! Model requests and what became of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cutpoint_protocol::field::{field, text};
use cutpoint_protocol::item::all_text;
use cutpoint_protocol::pairing::{self, PairingFault, PairingRole};
use cutpoint_protocol::{ItemKind, marker};
use serde_json::Value;

use super::At;
use super::turns::Turns;
use crate::fast_hash::HashMap;
use cutpoint_trace::{Observation, StreamEnd};

/// What an item of a history is to the rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role<'a> {
    /// A call, with its call id and the item as the request has it.
    Call(&'a str, &'a Value),
    /// A call's output, with its call id.
    Output(&'a str),
    /// A message of the user; the input that it carries, as an index into the view's inputs.
    User(Option<usize>),
    /// The marker of an interrupted turn.
    Marker,
    /// A message of the model.
    Assistant,
    /// A summary that stands for items which are gone.
    Compaction,
    /// Anything else.
    Other,
}

/// The event that ends a response's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTerminal {
    /// Where it was sent.
    pub at: At,
    /// Whether it is `response.completed`.
    pub completed: bool,
}

/// A model request and its response.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The exchange's number.
    pub number: usize,
    /// The request.
    pub at: At,
    /// The conversation that it belongs to.
    pub conversation: usize,
    /// The headers that say something of the agent's state.
    pub headers: &'a BTreeMap<String, String>,
    /// The conversation's request before this one, as an index into the view's exchanges.
    pub previous: Option<usize>,
    /// The whole history, item by item; what is no item is left out.
    pub history: Vec<&'a Value>,
    /// What each item of the history is.
    pub roles: Vec<Role<'a>>,
    /// What is wrong with the pairing of its calls and outputs; places count those alone.
    pub faults: Vec<PairingFault>,
    /// Whether the request asks for a response: one that only warms a connection up does not.
    pub generates: bool,
    /// Whether the answer is to be a stream.
    pub streams: bool,
    /// The newest turn that was active on its arrival.
    pub turn: Option<usize>,
    /// Whether input was on its way to the agent that can only begin a turn.
    pub in_flight: bool,
    /// How many inputs had been sent before.
    pub inputs_before: usize,
    /// The number of the conversation's first session.
    pub lineage: usize,
    /// Whether the API refused it, or no reply was left for it.
    pub refused: Option<At>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Where the response's headers were sent.
    pub headed: Option<At>,
    /// How long the server asked to be left alone.
    pub retry_after_ms: Option<u64>,
    /// Where the response's first event, `response.created`, was sent.
    pub created: Option<At>,
    /// The events that were sent whole.
    pub sent: Vec<At>,
    /// The event that ended the stream.
    pub terminal: Option<StreamTerminal>,
    /// A body that is no stream.
    pub body: Option<At>,
    /// Whether something was sent that is no valid event.
    pub malformed: bool,
    /// How the server ended the response.
    pub end: Option<(At, StreamEnd)>,
    /// Where the client closed the connection before the end.
    pub disconnected: Option<At>,
}

impl Exchange<'_> {
    /// Where the response was over, however it ended.
    pub fn over(&self) -> Option<At> {
        let terminal = self.terminal.map(|terminal| terminal.at);
        let end = self.end.map(|(at, _)| at);
        [terminal, self.body, self.refused, end]
            .into_iter()
            .flatten()
            .min()
    }

    /// Where the server began to answer from this request: its first event, or a body that is no
    /// error.
    pub fn answered(&self) -> Option<At> {
        let body = self
            .body
            .filter(|_| self.status.is_none_or(|status| status < 400));
        let first = self.sent.first().copied().filter(|_| !self.malformed);
        self.created.or(first).or(body)
    }

    /// Where the response was over as the model meant it to be.
    pub fn completed(&self) -> Option<At> {
        let terminal = self.terminal.filter(|terminal| terminal.completed);
        terminal.map(|terminal| terminal.at).or(self.body)
    }

    /// Whether the response failed before an entry, so that a retry is in order.
    pub fn failed_before(&self, at: At) -> bool {
        if self.malformed || self.status.is_some_and(|status| status >= 400) {
            return true;
        }
        // Whoever has asked for a stream may take a body for an answer, or not.
        let no_stream = self.streams && self.body.is_some() && self.terminal.is_none();
        let refused = self.refused.is_some() || no_stream;
        let over = self.over().or(self.disconnected);
        over.is_some_and(|over| over < at)
            && (refused || self.completed().is_none_or(|completed| completed > at))
    }

    /// Where the response was over, if it had failed then.
    pub fn failed(&self) -> Option<At> {
        self.over().filter(|over| self.failed_before(over + 1))
    }

    /// The text of an item of the history.
    pub fn text(&self, place: usize) -> Option<Cow<'_, str>> {
        text_of(self.history.get(place)?)
    }

    /// The ids of the history's outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter_map(|role| match role {
            Role::Output(id) => Some(*id),
            _ => None,
        })
    }

    /// The ids of the history's calls.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter_map(|role| match role {
            Role::Call(id, _) => Some(*id),
            _ => None,
        })
    }

    /// The inputs of the user that the history carries, as indexes into the view's inputs.
    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        self.roles.iter().filter_map(|role| match role {
            Role::User(input) => *input,
            _ => None,
        })
    }

    /// Whether the conversation is the user's, and not one that the agent holds beside it.
    pub fn is_the_users(&self) -> bool {
        self.conversation == 0 || self.inputs().next().is_some()
    }

    /// The texts of the model's messages in the history, in order.
    pub fn assistant_texts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let places = self.roles.iter().enumerate();
        let places = places.filter(|(_, role)| **role == Role::Assistant);
        places.filter_map(|(place, _)| self.text(place))
    }

    /// Whether the history has a summary in place of items.
    pub fn has_compaction(&self) -> bool {
        self.roles.contains(&Role::Compaction)
    }
}

/// Follows model requests through a trace.
#[derive(Debug, Default)]
pub(super) struct Exchanges<'a> {
    pub(super) exchanges: Vec<Exchange<'a>>,
    by_number: HashMap<usize, usize>,
    last_of: HashMap<usize, usize>,
}

impl<'a> Exchanges<'a> {
    /// Takes an entry; a request is returned as an index into the exchanges.
    pub(super) fn entry(
        &mut self,
        at: At,
        what: &'a Observation,
        turns: &Turns<'a>,
    ) -> Option<usize> {
        if let Observation::Request { .. } = what {
            return self.request(at, what, turns);
        }
        let number = match what {
            Observation::Refused { exchange, .. }
            | Observation::Unscripted { exchange, .. }
            | Observation::ResponseHead { exchange, .. }
            | Observation::ResponseBody { exchange, .. }
            | Observation::Sent { exchange, .. }
            | Observation::StreamEnd { exchange, .. }
            | Observation::Disconnected { exchange } => exchange,
            _ => return None,
        };
        let index = self.by_number.get(number)?;
        note(&mut self.exchanges[*index], at, what);
        None
    }

    fn request(&mut self, at: At, what: &'a Observation, turns: &Turns<'a>) -> Option<usize> {
        let Observation::Request {
            exchange: number,
            conversation,
            headers,
            body,
            history,
            ..
        } = what
        else {
            return None;
        };
        let (items, roles) = read_history(body, history.as_deref(), turns);
        let index = self.exchanges.len();
        self.exchanges.push(Exchange {
            number: *number,
            at,
            conversation: *conversation,
            headers,
            previous: self.last_of.insert(*conversation, index),
            faults: faults(&items),
            history: items,
            roles,
            generates: field(body, "generate") != Some(&Value::Bool(false)),
            streams: field(body, "stream") == Some(&Value::Bool(true)),
            turn: turns.active(),
            in_flight: turns.in_flight(),
            inputs_before: turns.inputs.len(),
            lineage: turns.lineage(),
            refused: None,
            status: None,
            headed: None,
            retry_after_ms: None,
            created: None,
            sent: Vec::new(),
            terminal: None,
            body: None,
            malformed: false,
            end: None,
            disconnected: None,
        });
        self.by_number.insert(*number, index);
        Some(index)
    }
}

fn note(exchange: &mut Exchange<'_>, at: At, what: &Observation) {
    match what {
        Observation::Refused { .. } | Observation::Unscripted { .. } => {
            exchange.refused.get_or_insert(at);
        }
        Observation::ResponseHead {
            status,
            retry_after_ms,
            ..
        } => {
            exchange.status = Some(*status);
            exchange.headed.get_or_insert(at);
            exchange.retry_after_ms = *retry_after_ms;
        }
        Observation::ResponseBody { .. } => {
            exchange.body.get_or_insert(at);
        }
        Observation::StreamEnd { how, .. } => {
            exchange.end.get_or_insert((at, *how));
        }
        Observation::Disconnected { .. } => {
            exchange.disconnected.get_or_insert(at);
        }
        Observation::Sent { data, .. } => {
            exchange.sent.push(at);
            let kind = text(data, "type");
            exchange.malformed |= kind.is_none();
            if kind == Some("response.created") {
                exchange.created.get_or_insert(at);
            }
            if let Some(
                "response.completed" | "response.failed" | "response.incomplete" | "error",
            ) = kind
            {
                exchange.terminal.get_or_insert(StreamTerminal {
                    at,
                    completed: kind == Some("response.completed"),
                });
            }
        }
        _ => {}
    }
}

fn read_history<'a>(
    body: &'a Value,
    history: Option<&'a [Value]>,
    turns: &Turns<'a>,
) -> (Vec<&'a Value>, Vec<Role<'a>>) {
    let mut matcher = Matcher::new(turns);
    let values = match (history, field(body, "input")) {
        (Some(values), _) => values,
        (None, Some(Value::Array(values))) => values,
        (None, Some(input @ Value::String(text))) => {
            return (vec![input], vec![Role::User(matcher.input(text.trim()))]);
        }
        _ => &[],
    };
    values
        .iter()
        .filter_map(|value| Some((value, role(value, &mut matcher)?)))
        .unzip()
}

/// What a value of a history is to the rules; `None` if it is no item.
///
/// Histories repeat, so a trace has far more items than anything else: this reads them in place.
fn role<'a>(value: &'a Value, matcher: &mut Matcher<'_, 'a>) -> Option<Role<'a>> {
    let text = |name: &str| text(value, name);
    let id = || text("call_id").unwrap_or_default();
    let kind = match field(value, "type") {
        Some(kind) => kind.as_str()?,
        None => field(value, "role").map(|_| "message")?,
    };
    let role = match ItemKind::from_name(kind) {
        Some(ItemKind::Message) => message(value, text("role"), matcher),
        Some(ItemKind::FunctionCall | ItemKind::CustomToolCall | ItemKind::LocalShellCall) => {
            Role::Call(id(), value)
        }
        Some(ItemKind::FunctionCallOutput | ItemKind::CustomToolCallOutput) => Role::Output(id()),
        // As in `Item::call_id`: such an output may have its call's id in `id` alone.
        Some(ItemKind::LocalShellCallOutput) => {
            Role::Output(text("call_id").or(text("id")).unwrap_or_default())
        }
        Some(ItemKind::Compaction) => Role::Compaction,
        _ => Role::Other,
    };
    Some(role)
}

fn message<'a>(value: &Value, role: Option<&str>, matcher: &mut Matcher<'_, 'a>) -> Role<'a> {
    let text = marker::may_mark(role).then(|| text_of(value)).flatten();
    match (role, text) {
        (_, Some(text)) if marker::is_marker_text(&text) => Role::Marker,
        (Some("user"), Some(text)) => Role::User(matcher.input(text.trim())),
        (Some("assistant"), _) => Role::Assistant,
        _ => Role::Other,
    }
}

/// The text of an item; copied only if it is in pieces.
fn text_of(item: &Value) -> Option<Cow<'_, str>> {
    match item {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Object(map) => {
            Some(plain_text(item).map_or_else(|| all_text(map).into(), Cow::Borrowed))
        }
        _ => None,
    }
}

/// The text of a message that has one text and nothing else.
fn plain_text(message: &Value) -> Option<&str> {
    match field(message, "content")? {
        Value::String(text) => Some(text),
        Value::Array(parts) => match &parts[..] {
            [part] if part.as_object()?.len() == 2 && field(part, "type").is_some() => {
                text(part, "text")
            }
            _ => None,
        },
        _ => None,
    }
}

/// What is wrong with the pairing of a history.
fn faults(history: &[&Value]) -> Vec<PairingFault> {
    pairing::faults_between(history.iter().filter_map(|value| side(value)))
}

/// What a value is to the pairing, with its call id; `None` for what is neither a call nor an output,
/// `Some(None)` for those that the API answers itself.
fn side(value: &Value) -> Option<Option<(PairingRole, Option<&str>)>> {
    let text = |name: &str| text(value, name);
    let name = text("type")?;
    if !name.ends_with("_call") && !name.ends_with("_output") {
        return None;
    }
    let Some(kind) = ItemKind::from_name(name) else {
        return Some(None);
    };
    let call = kind.call_kind().map(PairingRole::Call);
    let side = call.or_else(|| kind.output_kind().map(PairingRole::Output));
    // As in `Item::call_id`: such an output may have its call's id in `id` alone.
    let own = || text("id").filter(|_| kind == ItemKind::LocalShellCallOutput);
    Some(side.map(|side| (side, text("call_id").or_else(own))))
}

/// Finds the inputs that a history's user messages carry, in order.
///
/// A message that no input explains (the environment, instructions) is not the user's. Two inputs of
/// the same text differ only in their order.
struct Matcher<'t, 'a> {
    by_text: &'t HashMap<&'a str, Vec<usize>>,
    next: usize,
}

impl<'t, 'a> Matcher<'t, 'a> {
    fn new(turns: &'t Turns<'a>) -> Self {
        Self {
            by_text: &turns.by_text,
            next: 0,
        }
    }

    fn input(&mut self, text: &str) -> Option<usize> {
        let inputs = self.by_text.get(text)?;
        let found = *inputs.get(inputs.partition_point(|input| *input < self.next))?;
        self.next = found + 1;
        Some(found)
    }
}
