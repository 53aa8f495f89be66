//! What a user did in a recorded session, read off its requests and answers.

use std::collections::HashMap;

use cutpoint_protocol::sse::{Directive, Document};
use cutpoint_protocol::{EventKind, Item, StreamEvent, marker};
use serde_json::{Value, json};

use crate::import::{Outcome, portable, prompt_text, renamed};
use crate::matching::{remember, whole_history};
use crate::model::{Exchange, Recording, Response};

/// The setting of streams that were not recorded but made from a rollout.
const SYNTHESIZED: &str = "synthesized";
/// The setting that says how the turn stands behind the answer.
pub(crate) const TURN: &str = "turn";
/// The setting that counts what the user wrote into the turn behind the answer.
pub(crate) const STEERS: &str = "steers";
/// The setting that holds what a call was, as JSON; one for each call, in their order.
pub(crate) const WAS: &str = "was";
/// The setting that holds the items behind the last answer, as JSON.
pub(crate) const TAIL: &str = "tail";

/// A recorded session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Session {
    /// What happened, in order.
    pub did: Vec<Did>,
    /// The items of the session, in the form of [`crate::portable`].
    pub items: Vec<Item>,
}

impl Session {
    /// Whether the agent never told the model of an abort: old ones did not.
    pub fn has_no_markers(&self) -> bool {
        !self.items.iter().any(marker::is_marker)
    }
}

/// One thing that happened between user and agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// The user began a turn.
    Prompt(String),
    /// The user wrote into the turn.
    Steer {
        /// What was written.
        text: String,
        /// When.
        at: When,
    },
    /// The user interrupted the turn.
    Interrupt(Cut),
    /// The user began another turn while one ran.
    Replace {
        /// What was written.
        text: String,
        /// Where the turn was.
        cut: Cut,
    },
    /// The agent was killed in the middle of the turn, and resumed.
    Kill(Cut),
    /// The turn ended.
    Ended(How),
}

/// When the user wrote into a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Right behind its start.
    Start,
    /// At the end of this exchange's answer.
    Answer(usize),
    /// While this call ran.
    Running(String),
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself.
    Complete,
    /// By the user.
    Interrupted,
    /// By another turn.
    Replaced,
    /// By an error.
    Failed,
    /// With the agent's process.
    Killed,
}

/// Where a turn was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Calls of the same answer that had ended.
    pub exited: Vec<String>,
    /// The place.
    pub place: Place,
}

/// The place of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// While this call ran.
    Call {
        /// Its id.
        call: String,
        /// The last of what the user was shown of its output.
        shown: Option<String>,
    },
    /// Behind that many events of this exchange's answer.
    Stream {
        /// The exchange's number.
        exchange: usize,
        /// How many.
        events: usize,
    },
}

/// Whether the exchange was made from a rollout.
pub fn is_synthesized(exchange: &Exchange) -> bool {
    match &exchange.response {
        Response::Stream(document) => document.setting(SYNTHESIZED).is_some(),
        Response::Body { .. } => false,
    }
}

impl Recording {
    /// What the user did in the main conversation; `None` if no request was recorded.
    pub fn session(&self) -> Option<Session> {
        let views = views(self);
        views.first()?;
        let mut reader = Reader::default();
        for view in &views {
            for output in view.outputs() {
                let id = output.call_id().unwrap_or_default().to_owned();
                reader.outcomes.insert(id, Outcome::of(&output));
            }
        }
        for view in &views {
            reader.view(view);
        }
        reader.finish(views.last());
        let items = if views.iter().all(|view| view.synthesized) {
            let items = |view: &View| [view.new.clone(), view.answer.clone(), view.tail.clone()];
            portable(&views.iter().flat_map(items).flatten().collect::<Vec<_>>())
        } else {
            let last = views.last();
            let whole = last.map(|last| [last.history.clone(), last.answer.clone()].concat());
            portable(&whole.unwrap_or_default())
        };
        Some(Session {
            did: reader.did,
            items,
        })
    }
}

/// An exchange of the main conversation.
struct View {
    number: usize,
    synthesized: bool,
    /// The whole history of its request; of a synthesized one, its own items.
    history: Vec<Item>,
    /// The items that the request carries for the first time, with the recording's ids.
    new: Vec<Item>,
    answer: Vec<Item>,
    events: usize,
    /// How the turn stands behind the answer.
    state: State,
    steers: usize,
    /// The items behind the last answer.
    tail: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The answer is whole and calls nothing.
    Whole,
    /// The answer calls tools.
    Calls,
    /// The client left.
    Left,
    /// The answer is an error, or was cut off by the server.
    Broken,
    /// The recording says how the turn stands.
    Told(Option<How>),
}

fn views(recording: &Recording) -> Vec<View> {
    let mut views: Vec<View> = Vec::new();
    let mut known = HashMap::new();
    let mut ids = HashMap::new();
    let mut opening: Option<String> = None;
    for exchange in &recording.exchanges {
        let Some(request) = exchange.request.as_ref().filter(|it| it.is_responses()) else {
            continue;
        };
        let Some(mut history) = whole_history(exchange, &known) else {
            continue;
        };
        remember(exchange, history.clone(), &mut known);
        let synthesized = is_synthesized(exchange);
        if synthesized {
            history = request
                .parse()
                .map_or_else(|_| Vec::new(), |it| it.input.to_vec());
        }
        let first = history.iter().find_map(prompt_text);
        let main = opening.get_or_insert_with(|| first.clone().unwrap_or_default());
        if !synthesized && first.as_ref() != Some(main) {
            continue;
        }
        views.push(view(exchange, history, views.last(), &mut ids));
    }
    views
}

fn view(
    exchange: &Exchange,
    history: Vec<Item>,
    before: Option<&View>,
    ids: &mut HashMap<String, String>,
) -> View {
    let synthesized = is_synthesized(exchange);
    let new = if synthesized {
        renamed(&history, ids)
    } else {
        // A history that was compacted is shorter than what went before.
        let known = before.map_or(0, |before| before.history.len() + before.answer.len());
        history
            .get(known.min(history.len())..)
            .unwrap_or_default()
            .to_vec()
    };
    let mut view = View {
        number: exchange.number,
        synthesized,
        history,
        new,
        answer: Vec::new(),
        events: 0,
        state: State::Broken,
        steers: 0,
        tail: Vec::new(),
    };
    match &exchange.response {
        Response::Stream(document) => view.read_stream(document, ids),
        Response::Body { status, body, .. } if (200..300).contains(status) => {
            let items = body["output"].as_array().into_iter().flatten();
            let items = items.filter_map(|item| Item::from_value(item.clone()).ok());
            view.answer = items.collect();
            view.state = view.state_of_answer();
        }
        Response::Body { .. } => {}
    }
    view
}

impl View {
    fn read_stream(&mut self, document: &Document, ids: &mut HashMap<String, String>) {
        let events = document.frames.iter().filter_map(|frame| {
            let event = frame.event.as_ref()?;
            StreamEvent::parse(&event.data).ok()
        });
        let (mut begun, mut completed) = (String::new(), false);
        for event in events {
            self.events += 1;
            match event.kind() {
                Some(EventKind::OutputItemDone) => {
                    begun.clear();
                    self.answer.extend(event.item());
                }
                Some(EventKind::OutputTextDelta) => {
                    begun.push_str(event.as_value()["delta"].as_str().unwrap_or_default());
                }
                Some(EventKind::Completed) => completed = true,
                _ => {}
            }
        }
        let message = || {
            let content = json!([{"type": "output_text", "text": begun}]);
            Item::from_value(json!({"type": "message", "role": "assistant", "content": content}))
        };
        if !begun.is_empty() {
            self.answer.extend(message());
        }
        self.state = match document.setting(TURN) {
            Some(told) if self.synthesized => State::Told(how(told)),
            _ if completed => self.state_of_answer(),
            _ if document.setting("end") == Some("stall") => State::Left,
            _ => State::Broken,
        };
        let number = |text: &str| text.parse().ok();
        self.steers = document.setting(STEERS).and_then(number).unwrap_or(0);
        let calls = self.answer.iter().filter(|item| item.call_kind().is_some());
        for (call, was) in calls.zip(settings(document, WAS)) {
            let was: Option<Value> = serde_json::from_str(was).ok();
            let id = was.and_then(|was| Some(was.get("call_id")?.as_str()?.to_owned()));
            let own = call.call_id().unwrap_or_default().to_owned();
            ids.insert(id.unwrap_or_default(), own);
        }
        let tail: Vec<Value> = document
            .setting(TAIL)
            .and_then(|tail| serde_json::from_str(tail).ok())
            .unwrap_or_default();
        let tail = tail
            .into_iter()
            .filter_map(|item| Item::from_value(item).ok());
        self.tail = renamed(&tail.collect::<Vec<_>>(), ids);
    }

    fn state_of_answer(&self) -> State {
        if self.calls().next().is_some() {
            State::Calls
        } else {
            State::Whole
        }
    }

    fn calls(&self) -> impl Iterator<Item = &str> {
        let calls = self.answer.iter().filter(|item| item.call_kind().is_some());
        calls.filter_map(Item::call_id)
    }

    fn outputs(&self) -> impl Iterator<Item = Item> {
        let items = self.new.iter().chain(&self.tail);
        items.filter(|item| item.output_kind().is_some()).cloned()
    }
}

fn how(told: &str) -> Option<How> {
    match told {
        "complete" => Some(How::Complete),
        "interrupted" => Some(How::Interrupted),
        "replaced" => Some(How::Replaced),
        "failed" => Some(How::Failed),
        "killed" => Some(How::Killed),
        _ => None,
    }
}

/// All values of a setting, in their order.
fn settings<'a>(document: &'a Document, name: &str) -> impl Iterator<Item = &'a str> {
    let directives = document.frames.iter().flat_map(|frame| &frame.directives);
    let pairs = directives.filter_map(|directive| match directive {
        Directive::Settings(pairs) => Some(pairs),
        Directive::Delay(_) => None,
    });
    let values = pairs.flatten().filter(move |(key, _)| key == name);
    values.map(|(_, value)| value.as_str())
}

#[derive(Default)]
struct Reader {
    did: Vec<Did>,
    outcomes: HashMap<String, Outcome>,
    /// What was cut for the turn that comes next.
    replaced: Option<Cut>,
    before: Option<Before>,
}

/// What the next request has to be read against.
struct Before {
    number: usize,
    state: State,
    steers: usize,
    cut: Cut,
}

impl Reader {
    fn view(&mut self, view: &View) {
        let texts = view.new.iter().filter_map(prompt_text).collect();
        let marked = view.new.iter().any(marker::is_marker);
        self.between(texts, marked, false);
        self.before = Some(Before {
            number: view.number,
            state: view.state,
            steers: view.steers,
            cut: self.cut(view),
        });
    }

    fn finish(&mut self, last: Option<&View>) {
        let tail = last.map(|last| last.tail.iter().filter_map(prompt_text).collect());
        self.between(tail.unwrap_or_default(), false, true);
        if let Some(cut) = self.replaced.take() {
            // The turn that replaced it left no trace: it was cut off before it asked anything.
            self.did
                .extend([Did::Interrupt(cut), Did::Ended(How::Interrupted)]);
        }
    }

    /// What happened between an answer and the next request, or the end.
    fn between(&mut self, mut texts: Vec<String>, marked: bool, at_end: bool) {
        let Some(before) = self.before.take() else {
            return self.prompts(texts);
        };
        let new = !texts.is_empty();
        let end = match before.state {
            State::Told(how) => how,
            State::Calls if marked || at_end => Some(How::Interrupted),
            State::Left if marked || new || at_end => Some(How::Interrupted),
            State::Whole if new || at_end => Some(How::Complete),
            State::Broken if new || at_end => Some(How::Failed),
            _ => None,
        };
        let steers = match (before.state, end) {
            (State::Told(_), _) => before.steers.min(texts.len()),
            (_, None) => texts.len(),
            (_, Some(_)) => 0,
        };
        let cut_call = match (&before.cut.place, end) {
            (Place::Call { call, .. }, Some(How::Interrupted | How::Replaced | How::Killed)) => {
                Some(call)
            }
            _ => None,
        };
        for text in texts.drain(..steers) {
            let at = match cut_call {
                Some(call) => When::Running(call.clone()),
                // A stand-in that ends at once leaves no time to write while it runs.
                None => When::Answer(before.number),
            };
            self.did.push(Did::Steer { text, at });
        }
        match end {
            None => {}
            Some(How::Killed) => self.did.push(Did::Kill(before.cut)),
            Some(How::Replaced) => self.replaced = Some(before.cut),
            Some(How::Interrupted) => self
                .did
                .extend([Did::Interrupt(before.cut), Did::Ended(How::Interrupted)]),
            Some(how) => self.did.push(Did::Ended(how)),
        }
        self.prompts(texts);
    }

    fn prompts(&mut self, texts: Vec<String>) {
        for (at, text) in texts.into_iter().enumerate() {
            match self.replaced.take() {
                Some(cut) => self
                    .did
                    .extend([Did::Replace { text, cut }, Did::Ended(How::Replaced)]),
                None if at == 0 => self.did.push(Did::Prompt(text)),
                None => self.did.push(Did::Steer {
                    text,
                    at: When::Start,
                }),
            }
        }
    }

    /// Where the turn was cut, if it was cut behind this answer.
    fn cut(&self, view: &View) -> Cut {
        let mut exited = Vec::new();
        let mut place = None;
        for call in view.calls() {
            match self.outcomes.get(call) {
                Some(outcome) if outcome.exit_code.is_some() => exited.push(call.to_owned()),
                outcome if place.is_none() => {
                    let shown = outcome.and_then(|it| last_line(&it.text));
                    let call = call.to_owned();
                    place = Some(Place::Call { call, shown });
                }
                _ => {}
            }
        }
        let place = place.unwrap_or(Place::Stream {
            exchange: view.number,
            events: view.events,
        });
        Cut { exited, place }
    }
}

/// The end of the last line that has anything on it.
fn last_line(text: &str) -> Option<String> {
    const SHOWN_CHARS: usize = 60;
    let line = text.lines().rfind(|line| !line.trim().is_empty())?.trim();
    let skipped = line.chars().count().saturating_sub(SHOWN_CHARS);
    Some(line.chars().skip(skipped).collect())
}
