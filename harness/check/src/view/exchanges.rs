//! Model requests and what became of them.

use std::collections::HashMap;

use cutpoint_protocol::pairing::{self, Fault};
use cutpoint_protocol::{Item, ItemKind, marker};
use serde_json::Value;

use super::At;
use super::turns::Turns;
use crate::trace::{StreamEnd, What};

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
    /// The conversation's request before this one, as an index into the view's exchanges.
    pub previous: Option<usize>,
    /// The whole history.
    pub history: Vec<Item>,
    /// What each item of the history is.
    pub roles: Vec<Role<'a>>,
    /// What is wrong with the pairing of its calls and outputs.
    pub faults: Vec<Fault>,
    /// Whether the request asks for a response: one that only warms a connection up does not.
    pub generates: bool,
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
        let over = self.over().or(self.disconnected);
        over.is_some_and(|over| over < at)
            && (self.refused.is_some() || self.completed().is_none_or(|completed| completed > at))
    }

    /// The ids of the history's outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter_map(|role| match role {
            Role::Output(id) => Some(*id),
            _ => None,
        })
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
    pub(super) fn entry(&mut self, at: At, what: &'a What, turns: &Turns<'a>) -> Option<usize> {
        if let What::Request { .. } = what {
            return self.request(at, what, turns);
        }
        let number = match what {
            What::Refused { exchange, .. }
            | What::Unscripted { exchange, .. }
            | What::ResponseHead { exchange, .. }
            | What::ResponseBody { exchange, .. }
            | What::Sent { exchange, .. }
            | What::StreamEnd { exchange, .. }
            | What::Disconnected { exchange } => exchange,
            _ => return None,
        };
        let index = self.by_number.get(number)?;
        note(&mut self.exchanges[*index], at, what);
        None
    }

    fn request(&mut self, at: At, what: &'a What, turns: &Turns<'a>) -> Option<usize> {
        let What::Request {
            exchange: number,
            conversation,
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
            previous: self.last_of.insert(*conversation, index),
            faults: pairing::faults(&items),
            history: items,
            roles,
            generates: body.get("generate") != Some(&Value::Bool(false)),
            turn: turns.active(),
            in_flight: turns.in_flight(),
            inputs_before: turns.inputs.len(),
            lineage: turns.lineage(),
            refused: None,
            status: None,
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

fn note(exchange: &mut Exchange<'_>, at: At, what: &What) {
    match what {
        What::Refused { .. } | What::Unscripted { .. } => {
            exchange.refused.get_or_insert(at);
        }
        What::ResponseHead { status, .. } => exchange.status = Some(*status),
        What::ResponseBody { .. } => {
            exchange.body.get_or_insert(at);
        }
        What::StreamEnd { how, .. } => {
            exchange.end.get_or_insert((at, *how));
        }
        What::Disconnected { .. } => {
            exchange.disconnected.get_or_insert(at);
        }
        What::Sent { data, .. } => {
            exchange.sent.push(at);
            let kind = data.get("type").and_then(Value::as_str);
            exchange.malformed |= kind.is_none();
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
) -> (Vec<Item>, Vec<Role<'a>>) {
    let values = match (history, body.get("input")) {
        (Some(values), _) => values,
        (None, Some(Value::Array(values))) => values,
        (None, Some(Value::String(text))) => {
            let item = Item::user_text(text);
            let role = Role::User(Matcher::new(turns).input(text.trim()));
            return (vec![item], vec![role]);
        }
        _ => &[],
    };
    let mut matcher = Matcher::new(turns);
    values
        .iter()
        .filter_map(|value| {
            let item = Item::from_value(value.clone()).ok()?;
            let role = role(&item, value, &mut matcher);
            Some((item, role))
        })
        .unzip()
}

fn role<'a>(item: &Item, value: &'a Value, matcher: &mut Matcher<'_, 'a>) -> Role<'a> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match item.kind() {
        Some(ItemKind::Message) if item.role() == Some("user") => {
            if marker::is_marker(item) {
                return Role::Marker;
            }
            Role::User(matcher.input(item.all_text().trim()))
        }
        Some(ItemKind::Message) if item.role() == Some("assistant") => Role::Assistant,
        Some(ItemKind::Compaction) => Role::Compaction,
        _ if item.call_kind().is_some() => Role::Call(text("call_id").unwrap_or_default(), value),
        _ if item.output_kind().is_some() => {
            // As in `Item::call_id`: a local shell output may have its call's id in `id` alone.
            let own = || (item.call_id().is_some()).then(|| text("id")).flatten();
            Role::Output(text("call_id").or_else(own).unwrap_or_default())
        }
        _ => Role::Other,
    }
}

/// Finds the inputs that a history's user messages carry, in order.
///
/// A message that no input explains (the environment, instructions) is nobody's. Two inputs of the
/// same text are told apart by their order alone.
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
