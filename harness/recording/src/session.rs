//! What a user did in a recorded session, read off its requests and answers.

use std::collections::HashMap;

use cutpoint_protocol::sse::{Directive, Document};
use cutpoint_protocol::{Item, marker};
use serde_json::{Value, json};

use crate::import::{CallOutcome, portable, prompt_text, renamed};
use crate::model_exchanges::{ModelAnswer, ModelExchange};
use crate::recording::{Exchange, Recording, Response};
use crate::tool_substitutes::ToolSubstitutes;

/// The setting of streams that were not recorded but made from a rollout.
const SYNTHESIZED: &str = "synthesized";
/// The setting that says how the turn stands after the answer.
pub(crate) const TURN: &str = "turn";
/// The setting that counts what the user wrote into the turn after the answer.
pub(crate) const STEERS: &str = "steers";
/// The setting that holds what a call was, as JSON; one for each call, in their order.
pub(crate) const ORIGINAL_CALL: &str = "was";
/// The setting that holds the items after the last answer, as JSON.
pub(crate) const TAIL: &str = "tail";

/// A recorded session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionOutline {
    /// What happened, in order.
    pub actions: Vec<UserAction>,
    /// The items of the session, in the form of [`crate::portable`].
    pub items: Vec<Item>,
    /// The exchanges of the main conversation, by number.
    pub main: Vec<usize>,
    /// Those of others, such as sub-agents, by what the first message of each says.
    pub others: Vec<(String, Vec<usize>)>,
    /// Whether the model called tools.
    pub has_calls: bool,
    /// The model that was asked, where that is known. An import replays on every model.
    pub model: Option<String>,
    /// What may have been called in place of tools that an agent lacks.
    pub substitutes: ToolSubstitutes,
}

impl SessionOutline {
    /// Whether the agent never told the model of an abort: old ones did not.
    pub fn has_no_markers(&self) -> bool {
        !self.items.iter().any(marker::is_marker)
    }
}

/// One thing that happened between user and agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAction {
    /// The user began a turn.
    Prompt(String),
    /// The user wrote into the turn.
    Steer {
        /// What was written.
        text: String,
        /// When.
        at: SteerTime,
    },
    /// The user interrupted the turn.
    Interrupt(TurnCut),
    /// The user began another turn while one ran.
    Replace {
        /// What was written.
        text: String,
        /// Where the turn was.
        cut: TurnCut,
    },
    /// The agent was killed in the middle of the turn, and resumed.
    Kill(TurnCut),
    /// The turn ended.
    Ended(TurnEndKind),
}

/// When the user wrote into a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SteerTime {
    /// Right after its start.
    Start,
    /// At the end of this exchange's answer.
    Answer(usize),
    /// While this call ran.
    Running(String),
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEndKind {
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

impl TurnEndKind {
    const ALL: [Self; 5] = [
        Self::Complete,
        Self::Interrupted,
        Self::Replaced,
        Self::Failed,
        Self::Killed,
    ];

    /// The name it has in a stream's settings.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == name)
    }
}

/// Where a turn was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnCut {
    /// Calls of the same answer that had ended.
    pub exited: Vec<String>,
    /// The place.
    pub place: CutPlace,
}

/// The place of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutPlace {
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
    /// What the user did in the main conversation, which is the first one; `None` if no request to a
    /// model was recorded.
    pub fn session(&self) -> Option<SessionOutline> {
        let mut session = SessionOutline::default();
        let summaries = summaries(self, &mut session);
        summaries.first()?;
        let mut reader = ActionReader::default();
        for output in summaries.iter().flat_map(ExchangeSummary::outputs) {
            let id = output.call_id().unwrap_or_default();
            if !reader.outcomes.contains_key(id) {
                reader
                    .outcomes
                    .insert(id.to_owned(), CallOutcome::of(output));
            }
        }
        for summary in &summaries {
            reader.summary(summary);
        }
        reader.finish(summaries.last());
        let items = if summaries.iter().all(|summary| summary.synthesized) {
            let items = |summary: &ExchangeSummary| {
                [&summary.history[..], &summary.answer, &summary.tail].concat()
            };
            portable(&summaries.iter().flat_map(items).collect::<Vec<_>>())
        } else {
            let last = summaries.last();
            let whole = last.map(|last| [&last.history[..], &last.answer].concat());
            portable(&whole.unwrap_or_default())
        };
        Some(SessionOutline {
            actions: reader.actions,
            items,
            main: summaries.iter().map(|summary| summary.number).collect(),
            has_calls: summaries
                .iter()
                .any(|summary| summary.calls().next().is_some()),
            model: summaries.first().and_then(|summary| self.model_of(summary)),
            substitutes: self.substitutes(),
            ..session
        })
    }

    fn model_of(&self, summary: &ExchangeSummary) -> Option<String> {
        let request = self.exchange(summary.number)?.request.as_ref()?;
        let model = request.body.get("model")?.as_str()?;
        (!summary.synthesized && !model.trim().is_empty()).then(|| model.to_owned())
    }
}

/// An exchange of the main conversation.
struct ExchangeSummary {
    number: usize,
    synthesized: bool,
    /// The whole history of its request; of a synthesized one its own items, with the recording's ids.
    history: Vec<Item>,
    /// What the user has written since the request before.
    texts: Vec<String>,
    /// Whether a turn was marked as aborted since the request before.
    marked: bool,
    answer: Vec<Item>,
    events: usize,
    /// How the turn stands after the answer.
    state: AnswerState,
    steers: usize,
    /// The items after the last answer.
    tail: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerState {
    /// The answer is whole and calls nothing.
    Whole,
    /// The answer calls tools.
    Calls,
    /// The client left.
    Abandoned,
    /// The answer is an error, or was cut off by the server.
    Broken,
    /// The recording says how the turn stands.
    Stated(Option<TurnEndKind>),
}

/// The exchanges of the main conversation; those of others are noted in the session.
fn summaries(recording: &Recording, session: &mut SessionOutline) -> Vec<ExchangeSummary> {
    let mut summaries: Vec<ExchangeSummary> = Vec::new();
    let mut ids = HashMap::new();
    let mut opening: Option<String> = None;
    let mut counts_so_far = HistoryCounts::default();
    for asked in recording.model_exchanges() {
        let (exchange, Some(history)) = (asked.exchange, &asked.history) else {
            continue;
        };
        if is_synthesized(exchange) {
            summaries.push(synthesized_exchange(&asked, &mut ids));
            continue;
        }
        let prompts: Vec<String> = history.iter().filter_map(prompt_text).collect();
        let first = prompts.first().cloned().unwrap_or_default();
        let main = opening.get_or_insert_with(|| first.clone());
        if first == *main || prompts.contains(main) {
            summaries.push(recorded_exchange(asked, &mut counts_so_far));
            continue;
        }
        let mut others = session.others.iter_mut();
        match others.find(|(opening, _)| prompts.contains(opening)) {
            Some((_, numbers)) => numbers.push(exchange.number),
            None => session.others.push((first, vec![exchange.number])),
        }
    }
    summaries
}

/// What the requests so far have shown.
#[derive(Default)]
struct HistoryCounts {
    prompts: usize,
    markers: usize,
}

/// An exchange that a client and a model had.
fn recorded_exchange(
    asked: ModelExchange<'_>,
    counts_so_far: &mut HistoryCounts,
) -> ExchangeSummary {
    let history = asked.history.unwrap_or_default();
    let is_past = |item: &Item| {
        marker::is_marker(item) || item.role() == Some("assistant") || item.call_kind().is_some()
    };
    let start = history.iter().rposition(is_past).map_or(0, |at| at + 1);
    let mut texts: Vec<String> = history[start..].iter().filter_map(prompt_text).collect();
    let count = |is_it: &dyn Fn(&Item) -> bool| history.iter().filter(|item| is_it(item)).count();
    let now = HistoryCounts {
        prompts: count(&|item| prompt_text(item).is_some()),
        markers: count(&marker::is_marker),
    };
    // An agent may mend its history; and a compacted one has fewer of both.
    let more = now.prompts.saturating_sub(counts_so_far.prompts);
    texts.drain(..texts.len().saturating_sub(more));
    let marked = now.markers > counts_so_far.markers;
    *counts_so_far = now;
    let state = if asked.answer.completed {
        match asked.answer.calls().next() {
            Some(_) => AnswerState::Calls,
            None => AnswerState::Whole,
        }
    } else if client_left(asked.exchange) {
        AnswerState::Abandoned
    } else {
        AnswerState::Broken
    };
    ExchangeSummary {
        number: asked.exchange.number,
        synthesized: false,
        history,
        texts,
        marked,
        events: asked.answer.events,
        answer: whole(&asked.answer),
        state,
        steers: 0,
        tail: Vec::new(),
    }
}

fn client_left(exchange: &Exchange) -> bool {
    match &exchange.response {
        Response::Stream(document) => document.setting("end") == Some("stall"),
        Response::Body { .. } => false,
    }
}

/// An exchange that was made from a rollout, which reports its turn. `ids` are those that calls have in
/// the rollout, with those that they have in the recording.
fn synthesized_exchange(
    asked: &ModelExchange<'_>,
    ids: &mut HashMap<String, String>,
) -> ExchangeSummary {
    let request = asked.exchange.request.as_ref();
    let own = request.and_then(|request| Some(request.parse().ok()?.input.to_vec()));
    let history = renamed(&own.unwrap_or_default(), ids);
    let mut summary = ExchangeSummary {
        number: asked.exchange.number,
        synthesized: true,
        texts: history.iter().filter_map(prompt_text).collect(),
        marked: history.iter().any(marker::is_marker),
        history,
        answer: whole(&asked.answer),
        events: asked.answer.events,
        state: AnswerState::Stated(None),
        steers: 0,
        tail: Vec::new(),
    };
    if let Response::Stream(document) = &asked.exchange.response {
        summary.read_settings(document, ids);
    }
    summary
}

/// The items of an answer, with what there is of a message that was cut off.
fn whole(answer: &ModelAnswer) -> Vec<Item> {
    let mut items = answer.items.clone();
    if !answer.begun.is_empty() {
        let content = json!([{"type": "output_text", "text": answer.begun}]);
        let message = json!({"type": "message", "role": "assistant", "content": content});
        items.extend(Item::from_value(message));
    }
    items
}

impl ExchangeSummary {
    /// What the comments of a synthesized stream tell.
    fn read_settings(&mut self, document: &Document, ids: &mut HashMap<String, String>) {
        self.state = AnswerState::Stated(document.setting(TURN).and_then(TurnEndKind::from_name));
        let number = |text: &str| text.parse().ok();
        self.steers = document.setting(STEERS).and_then(number).unwrap_or(0);
        for (call, was) in self.calls().zip(settings(document, ORIGINAL_CALL)) {
            let was: Option<Value> = serde_json::from_str(was).ok();
            let id = was.and_then(|was| Some(was.get("call_id")?.as_str()?.to_owned()));
            ids.insert(id.unwrap_or_default(), call.to_owned());
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

    fn calls(&self) -> impl Iterator<Item = &str> {
        let calls = self.answer.iter().filter(|item| item.call_kind().is_some());
        calls.filter_map(Item::call_id)
    }

    fn outputs(&self) -> impl Iterator<Item = &Item> {
        let items = self.history.iter().chain(&self.tail);
        items.filter(|item| item.output_kind().is_some())
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
struct ActionReader {
    actions: Vec<UserAction>,
    outcomes: HashMap<String, CallOutcome>,
    /// What was cut for the turn that comes next.
    replaced: Option<TurnCut>,
    before: Option<PreviousExchange>,
}

/// What the next request has to be read against.
struct PreviousExchange {
    number: usize,
    state: AnswerState,
    /// The call during which the user wrote, if nothing says otherwise.
    running: Option<String>,
    steers: usize,
    cut: TurnCut,
}

impl ActionReader {
    fn summary(&mut self, summary: &ExchangeSummary) {
        self.between(summary.texts.clone(), summary.marked, false);
        // A stand-in that ends at once leaves no time to write while it runs.
        let running = summary.calls().last().filter(|_| !summary.synthesized);
        self.before = Some(PreviousExchange {
            number: summary.number,
            state: summary.state,
            running: running.map(str::to_owned),
            steers: summary.steers,
            cut: self.cut(summary),
        });
    }

    fn finish(&mut self, last: Option<&ExchangeSummary>) {
        let tail = last.map(|last| last.tail.iter().filter_map(prompt_text).collect());
        self.between(tail.unwrap_or_default(), false, true);
        if let Some(cut) = self.replaced.take() {
            // The turn that replaced it left no trace: it was cut off before it asked anything.
            self.actions.extend([
                UserAction::Interrupt(cut),
                UserAction::Ended(TurnEndKind::Interrupted),
            ]);
        }
    }

    /// What happened between an answer and the next request, or the end.
    fn between(&mut self, mut texts: Vec<String>, marked: bool, at_end: bool) {
        let Some(before) = self.before.take() else {
            return self.prompts(texts);
        };
        let new = !texts.is_empty();
        let end = match before.state {
            AnswerState::Stated(parse_turn_end) => parse_turn_end,
            AnswerState::Calls if marked || at_end => Some(TurnEndKind::Interrupted),
            AnswerState::Abandoned if marked || new || at_end => Some(TurnEndKind::Interrupted),
            AnswerState::Whole if new || at_end => Some(TurnEndKind::Complete),
            AnswerState::Broken if new || at_end => Some(TurnEndKind::Failed),
            _ => None,
        };
        let steers = match (before.state, end) {
            (AnswerState::Stated(_), _) => before.steers.min(texts.len()),
            (_, None) => texts.len(),
            (_, Some(_)) => 0,
        };
        let cut_call = match (&before.cut.place, end) {
            (
                CutPlace::Call { call, .. },
                Some(TurnEndKind::Interrupted | TurnEndKind::Replaced | TurnEndKind::Killed),
            ) => Some(call),
            _ => None,
        };
        for text in texts.drain(..steers) {
            let at = match cut_call.or(before.running.as_ref()) {
                Some(call) => SteerTime::Running(call.clone()),
                None => SteerTime::Answer(before.number),
            };
            self.actions.push(UserAction::Steer { text, at });
        }
        match end {
            None => {}
            Some(TurnEndKind::Killed) => self.actions.push(UserAction::Kill(before.cut)),
            Some(TurnEndKind::Replaced) => self.replaced = Some(before.cut),
            Some(TurnEndKind::Interrupted) => self.actions.extend([
                UserAction::Interrupt(before.cut),
                UserAction::Ended(TurnEndKind::Interrupted),
            ]),
            Some(parse_turn_end) => self.actions.push(UserAction::Ended(parse_turn_end)),
        }
        self.prompts(texts);
    }

    fn prompts(&mut self, texts: Vec<String>) {
        for (at, text) in texts.into_iter().enumerate() {
            match self.replaced.take() {
                Some(cut) => self.actions.extend([
                    UserAction::Replace { text, cut },
                    UserAction::Ended(TurnEndKind::Replaced),
                ]),
                None if at == 0 => self.actions.push(UserAction::Prompt(text)),
                None => self.actions.push(UserAction::Steer {
                    text,
                    at: SteerTime::Start,
                }),
            }
        }
    }

    /// Where the turn was cut, if it was cut after this answer.
    fn cut(&self, summary: &ExchangeSummary) -> TurnCut {
        let mut exited = Vec::new();
        let mut place = None;
        for call in summary.calls() {
            match self.outcomes.get(call) {
                Some(outcome) if outcome.exit_code.is_some() => exited.push(call.to_owned()),
                outcome if place.is_none() => {
                    let shown = outcome.and_then(|it| last_line(&it.text));
                    let call = call.to_owned();
                    place = Some(CutPlace::Call { call, shown });
                }
                _ => {}
            }
        }
        if summary.state == AnswerState::Calls && place.is_none() {
            // The answer was whole, so it was a tool that was cut off, in words of an unknown form.
            place = exited
                .pop()
                .map(|call| CutPlace::Call { call, shown: None });
        }
        let place = place.unwrap_or(CutPlace::Stream {
            exchange: summary.number,
            events: summary.events,
        });
        TurnCut { exited, place }
    }
}

/// The end of the last line that has anything on it.
fn last_line(text: &str) -> Option<String> {
    const SHOWN_CHARS: usize = 60;
    let line = text.lines().rfind(|line| !line.trim().is_empty())?.trim();
    let skipped = line.chars().count().saturating_sub(SHOWN_CHARS);
    Some(line.chars().skip(skipped).collect())
}
