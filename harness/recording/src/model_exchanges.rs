//! The requests to a model that a recording holds, each with its history and its answer.

use std::collections::HashMap;

use cutpoint_protocol::{EventKind, Item, StreamEvent};

use crate::recording::{Exchange, RecordedRequest, Recording, Response};

/// An exchange that asks a model.
pub(crate) struct ModelExchange<'a> {
    pub(crate) exchange: &'a Exchange,
    /// The whole history of the request, rebuilt through `previous_response_id`; absent where the
    /// request was not recorded.
    pub(crate) history: Option<Vec<Item>>,
    pub(crate) answer: ModelAnswer,
}

/// What the model answered.
#[derive(Debug, Default)]
pub(crate) struct ModelAnswer {
    id: Option<String>,
    /// The items that it finished.
    pub(crate) items: Vec<Item>,
    /// What there is of a message that it did not finish.
    pub(crate) begun: String,
    /// How many events came.
    pub(crate) events: usize,
    /// Whether it is whole.
    pub(crate) completed: bool,
}

impl Recording {
    /// The exchanges that ask a model, in order.
    pub(crate) fn model_exchanges(&self) -> impl Iterator<Item = ModelExchange<'_>> {
        // Response id → the whole history up to and with that response.
        let mut known: HashMap<String, Vec<Item>> = HashMap::new();
        let asks = |exchange: &&Exchange| {
            let request = exchange.request.as_ref();
            request.is_none_or(RecordedRequest::is_responses)
        };
        self.exchanges.iter().filter(asks).map(move |exchange| {
            let history = whole_history(exchange, &known);
            let answer = ModelAnswer::of(&exchange.response);
            if let Some(id) = &answer.id {
                let mut whole = history.clone().unwrap_or_default();
                whole.extend_from_slice(&answer.items);
                known.insert(id.clone(), whole);
            }
            ModelExchange {
                exchange,
                history,
                answer,
            }
        })
    }
}

fn whole_history(exchange: &Exchange, known: &HashMap<String, Vec<Item>>) -> Option<Vec<Item>> {
    let request = exchange.request.as_ref()?.parse().ok()?;
    let before = request.previous_response_id().and_then(|id| known.get(id));
    let mut history = before.cloned().unwrap_or_default();
    history.extend_from_slice(&request.input);
    Some(history)
}

impl ModelAnswer {
    fn of(response: &Response) -> Self {
        let mut answer = Self::default();
        match response {
            Response::Stream(document) => {
                let events = document.frames.iter().filter_map(|frame| {
                    let event = frame.event.as_ref()?;
                    StreamEvent::parse(&event.data).ok()
                });
                events.for_each(|event| answer.event(&event));
            }
            Response::Body { status, body, .. } if (200..300).contains(status) => {
                let items = body["output"].as_array().into_iter().flatten();
                let items = items.filter_map(|item| Item::from_value(item.clone()).ok());
                answer.items = items.collect();
                answer.id = body["id"].as_str().map(str::to_owned);
                answer.completed = true;
            }
            Response::Body { .. } => {}
        }
        answer
    }

    fn event(&mut self, event: &StreamEvent) {
        self.events += 1;
        match event.kind() {
            Some(EventKind::Created) => self.id = event.response_id().map(str::to_owned),
            Some(EventKind::OutputItemDone) => {
                self.begun.clear();
                self.items.extend(event.item());
            }
            Some(EventKind::OutputTextDelta) => {
                let delta = event.as_value()["delta"].as_str();
                self.begun.push_str(delta.unwrap_or_default());
            }
            Some(EventKind::Completed) => self.completed = true,
            _ => {}
        }
    }

    /// The ids of the tools' calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &str> {
        let calls = self.items.iter().filter(|item| item.call_kind().is_some());
        calls.filter_map(Item::call_id)
    }
}
