//! Recordings made of the requests and answers that a rollout implies.

use std::collections::{BTreeMap, HashMap, HashSet};

use cutpoint_protocol::compose::{ComposedEvent, Composer, ItemContent};
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_protocol::{Item, ItemKind};
use serde_json::{Value, json};

use super::call_outcome::{self, CallOutcome};
use super::rollout_session::{ImportedExchange, RolloutSession, message_text};
use crate::problem::Problem;
use crate::recording::{Exchange, RecordedRequest, Recording, Response};
use crate::session::{ORIGINAL_CALL, STEERS, TAIL, TURN, TurnEndKind};

/// When synthesized responses claim to have been created: a fixed time, so that the same rollout gives
/// the same bytes.
const CREATED_AT_S: u64 = 1_760_000_000;
/// How many characters a synthesized delta has.
const DELTA_CHARS: usize = 20;

/// A recording, and the items that a replay of it gives.
pub(super) struct BuiltRecording {
    pub(super) recording: Recording,
    pub(super) items: Vec<Item>,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn build(name: &str, source: &str, session: &RolloutSession) -> BuiltRecording {
    let mut recording = Recording::new(name, source);
    recording.created.clone_from(&session.created);
    recording.agent.clone_from(&session.agent);
    let mut builder = RecordingBuilder {
        model: session
            .model
            .clone()
            .unwrap_or_else(|| "unknown-model".to_owned()),
        outcomes: HashMap::new(),
        ids: HashMap::new(),
        taken: HashSet::new(),
        items: Vec::new(),
        problems: Vec::new(),
    };
    let inputs = session.exchanges.iter().map(|exchange| &exchange.input);
    for output in inputs.chain([&session.tail]).flatten() {
        if output.output_kind().is_some() {
            let id = output.call_id().unwrap_or_default().to_owned();
            let outcome = CallOutcome::of(output);
            builder.outcomes.entry(id).or_insert(outcome);
        }
    }
    let last = session.exchanges.len();
    for (at, exchange) in session.exchanges.iter().enumerate() {
        let tail = (at + 1 == last).then_some(&session.tail);
        let exchange = builder.exchange(at + 1, exchange, tail);
        recording.exchanges.push(exchange);
    }
    builder.input(&session.tail);
    BuiltRecording {
        recording,
        items: builder.items,
        problems: builder.problems,
    }
}

struct RecordingBuilder {
    model: String,
    /// What became of calls, by their ids in the rollout.
    outcomes: HashMap<String, CallOutcome>,
    /// The rollout's call ids → the recording's.
    ids: HashMap<String, String>,
    taken: HashSet<String>,
    /// What a replay gives, in the words in which all agents are compared.
    items: Vec<Item>,
    problems: Vec<Problem>,
}

impl RecordingBuilder {
    fn exchange(
        &mut self,
        number: usize,
        exchange: &ImportedExchange,
        tail: Option<&Vec<Item>>,
    ) -> Exchange {
        self.input(&exchange.input);
        let mut body = json!({"model": self.model, "stream": true});
        if number > 1 {
            body["previous_response_id"] = json!(response_id(number - 1));
        }
        body["input"] = json!(exchange.input);
        let request = RecordedRequest {
            method: "POST".to_owned(),
            path: "/v1/responses".to_owned(),
            headers: BTreeMap::new(),
            body,
        };
        let mut settings = vec![("synthesized".to_owned(), "true".to_owned())];
        let mut composer = Composer::new(&response_id(number), &self.model, CREATED_AT_S);
        for (at, item) in exchange.answer.iter().enumerate() {
            let cut = exchange.left && at + 1 == exchange.answer.len();
            self.add(&mut composer, number, item, cut, &mut settings);
        }
        if let Some(usage) = &exchange.usage {
            composer.usage(usage.clone());
        }
        let turn = exchange.end.map_or("open", TurnEndKind::as_str);
        settings.push((TURN.to_owned(), turn.to_owned()));
        if exchange.steers > 0 {
            settings.push((STEERS.to_owned(), exchange.steers.to_string()));
        }
        if let Some(tail) = tail {
            settings.push((TAIL.to_owned(), packed(&json!(tail))));
        }
        let events = match (exchange.end, &exchange.failure) {
            (Some(TurnEndKind::Failed), Some(message)) if exchange.left => {
                composer.failed("invalid_prompt", message)
            }
            _ if exchange.left => {
                settings.push(("end".to_owned(), "stall".to_owned()));
                composer.unfinished()
            }
            _ => composer.completed(),
        };
        Exchange {
            number,
            request: Some(request),
            response: Response::Stream(document(&settings, &events)),
        }
    }

    /// Takes note of what a request carries besides what the model said.
    fn input(&mut self, items: &[Item]) {
        let renamed = call_outcome::renamed(items, &self.ids);
        self.items.extend(call_outcome::portable(&renamed));
    }

    fn add(
        &mut self,
        composer: &mut Composer,
        number: usize,
        item: &Item,
        cut: bool,
        settings: &mut Vec<(String, String)>,
    ) {
        if item.call_kind().is_some() {
            let call = self.substitute(number, item);
            settings.push((ORIGINAL_CALL.to_owned(), packed(&item.to_value())));
            composer.item(&ItemContent::Function {
                call_id: call.call_id().unwrap_or_default(),
                name: "shell",
                arguments: call.text("arguments").unwrap_or_default(),
                chunks: 1,
            });
            self.items.push(call);
            return;
        }
        self.items.push(item.clone());
        let text = match item.kind() {
            Some(ItemKind::Message) => message_text(item),
            _ => item.all_text().to_owned(),
        };
        let text = text.as_str();
        let chunks = text.chars().count().div_ceil(DELTA_CHARS);
        match item.kind() {
            Some(ItemKind::Message) if cut && item.id().is_none() => {
                composer.begun_text(text, chunks);
            }
            Some(ItemKind::Message) => composer.item(&ItemContent::Text { text, chunks }),
            Some(ItemKind::Reasoning) if item.get("summary").is_some_and(is_one_text) => {
                composer.item(&ItemContent::Reasoning { text, chunks });
            }
            _ => composer.item(&ItemContent::Raw(whole(item, number, composer.len()))),
        }
    }

    /// The call that stands in for one of the rollout's.
    fn substitute(&mut self, number: usize, call: &Item) -> Item {
        let id = call.call_id().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let usable = id.starts_with(|c: char| c.is_ascii_alphabetic()) && id.chars().all(plain);
        let own = if usable && !self.taken.contains(id) {
            id.to_owned()
        } else {
            format!("call_imported_{}", self.taken.len() + 1)
        };
        self.taken.insert(own.clone());
        self.ids.insert(id.to_owned(), own.clone());
        let outcome = self.outcomes.get(id).cloned();
        let (command, whole) = outcome
            .unwrap_or_else(|| CallOutcome::cut(""))
            .substitute_command();
        if !whole {
            let message = format!(
                "the output of {own} is longer than a command line can be: its end is left out of exchange {number}"
            );
            self.problems.push(Problem::warning("rollout", 0, message));
        }
        call_outcome::shell_call(&own, &command)
    }
}

fn is_one_text(summary: &Value) -> bool {
    let one = summary.as_array().is_some_and(|parts| parts.len() == 1);
    one && summary[0]["text"].is_string()
}

/// An item with the fields that clients insist on.
fn whole(item: &Item, number: usize, place: usize) -> Item {
    let mut value = item.to_value();
    if item.id().is_none() {
        value["id"] = json!(format!("item_{number}_{place}"));
    }
    for name in item.kind().map_or(&[][..], ItemKind::required) {
        if value.get(*name).is_none() {
            value[*name] = match *name {
                "summary" => json!([]),
                "status" => json!("completed"),
                _ => Value::Null,
            };
        }
    }
    call_outcome::item(value)
}

pub(super) fn response_id(number: usize) -> String {
    format!("resp_imported_{number}")
}

/// JSON without white space, as a setting of a stream must be: what stands in strings is escaped.
pub(super) fn packed(value: &Value) -> String {
    value.to_string().replace(' ', "\\u0020")
}

fn document(settings: &[(String, String)], events: &[ComposedEvent]) -> Document {
    let lines = settings
        .iter()
        .map(|(name, value)| format!(": cutpoint {name}={value}\n"));
    let mut bytes = lines.collect::<String>().into_bytes();
    for event in events {
        bytes.extend_from_slice(&event.bytes);
    }
    // Only an item of many megabytes is too large; then the recording is refused when it is saved.
    Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap_or_default()
}
