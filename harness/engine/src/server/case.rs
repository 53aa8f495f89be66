//! One case on the server: its replies, its conversations, its gates, the responses it remembers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutpoint_protocol::Item;
use cutpoint_protocol::api_error::{self, ApiError};
use cutpoint_protocol::pairing;
use cutpoint_protocol::request::ResponsesRequest;
use cutpoint_recording::session::is_synthesized;
use cutpoint_recording::{Match, Matcher, Recording, Response};
use cutpoint_scenario::ast::{CutPoint, ReplyEnd, ReplyPart};
use cutpoint_trace::Observation;
use serde_json::Value;

use super::body::Pace;
use super::conversation::Conversations;
use super::gate::Gate;
use super::live_streams::LiveStreams;
use super::plan::{self, GateHold, PlanError, StreamPlan};
use super::plan_cache::{PlanCache, ReplyToCompose};
use super::recorded_calls;
use crate::tracer::Tracer;

/// How many responses a case remembers for `previous_response_id`.
pub const RESPONSES_KEPT: usize = 256;

/// Where replies come from.
#[derive(Debug, Clone)]
pub enum Script {
    /// Scripted replies, in order within the main conversation.
    Replies(Arc<[ScriptedReply]>),
    /// A recording, matched by content.
    Recording(Arc<Recording>),
}

/// A scripted reply.
#[derive(Debug, Clone)]
pub struct ScriptedReply {
    /// What it sends.
    pub body: ScriptedBody,
    /// Whether the request that gets it is accepted with any history.
    pub lenient: bool,
    /// The reply as it is written, for messages.
    pub text: String,
}

/// What a scripted reply sends.
#[derive(Debug, Clone)]
pub enum ScriptedBody {
    /// A composed stream.
    Stream {
        /// Its parts.
        parts: Vec<ReplyPart>,
        /// How it ends.
        end: ReplyEnd,
    },
    /// An HTTP answer that is not a stream.
    Status {
        /// The status.
        status: u16,
        /// Headers besides the content type.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// One exchange of a recording, counted from 1.
    Recorded {
        /// The recording.
        recording: Arc<Recording>,
        /// The exchange.
        exchange: usize,
    },
}

/// The replies of a conversation beside the main one.
#[derive(Debug, Clone)]
pub struct SideConversation {
    /// What the first user message of the conversation contains.
    pub opening: String,
    /// The replies, in order.
    pub replies: Vec<ScriptedReply>,
}

/// Settings of a case.
#[derive(Clone)]
pub struct CaseConfig {
    /// Where replies come from.
    pub script: Script,
    /// Where the replies of other conversations come from.
    pub side_conversations: Arc<[SideConversation]>,
    /// Cut points at which responses are to be held.
    pub gates: Vec<CutPoint>,
    /// Where observations go, if anybody wants them.
    pub tracer: Option<Arc<Tracer>>,
    /// Called when a request has arrived, with its exchange's number, before it is answered.
    pub on_request: Option<Arc<dyn Fn(usize) + Send + Sync>>,
    /// Whether portable `shell` calls ask for the user's approval.
    pub asks_approval: bool,
    /// Whether recorded streams keep their original timing.
    pub timed: bool,
    /// What is changed in recorded streams.
    pub recorded_calls: RecordedCalls,
    /// How frames are handed to the connection.
    pub pace: Pace,
    /// What is answered where no reply is left; nothing is but an error unless given.
    pub fallback: Option<ScriptedReply>,
}

/// Whether the tool calls of recorded streams are rewritten for the tools that a request offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordedCalls {
    /// They are sent byte for byte.
    #[default]
    AsRecorded,
    /// The portable `shell` calls of an imported session are written for the agent's own shell tool.
    Portable,
    /// Besides, a captured call of a tool that the request does not offer becomes a call of the shell
    /// tool that prints the recorded output.
    Substituted,
}

/// Why a request gets no answer but an error of the harness.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// The reply that is its turn cannot be streamed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No reply is scripted for it; the text shows the nearest one.
    #[error("{0}")]
    Unscripted(String),
    /// No recorded request has its history.
    #[error("no recorded request has this history; the nearest is exchange {nearest}:\n{diff}")]
    Unmatched {
        /// The exchange whose history is the most like it.
        nearest: usize,
        /// How the two differ.
        diff: String,
    },
    /// All exchanges of the recording were served.
    #[error("the recording has no exchange left")]
    NothingLeft,
    /// The scenario names an exchange that the recording does not have.
    #[error("recording `{name}` has {count} exchanges, so there is no exchange {exchange}")]
    NoSuchExchange {
        /// The recording.
        name: String,
        /// How many exchanges it has.
        count: usize,
        /// The exchange that is named.
        exchange: usize,
    },
}

impl std::fmt::Debug for ServerCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCase")
            .field("gates", &self.gates)
            .finish_non_exhaustive()
    }
}

/// One case on the server.
pub struct ServerCase {
    config: CaseConfig,
    gates: Vec<Arc<Gate>>,
    plans: PlanCache,
    /// Whether a request that no recorded one is like gets the answer of its place.
    drifts: bool,
    /// Finds recorded exchanges by content, where the script is a recording.
    matcher: Option<Matcher>,
    exchanges: AtomicUsize,
    streams: Arc<LiveStreams>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    conversations: Conversations,
    /// Response id → the whole history up to and with that response.
    responses: HashMap<String, Arc<Vec<Item>>>,
    /// The ids above, oldest first.
    order: VecDeque<String>,
    /// The streams of the recording that the case replays, by exchange: they are read once.
    plans: HashMap<usize, StreamPlan>,
    tally: RequestTally,
    scenario_errors: Vec<String>,
}

/// What became of the requests of a case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestTally {
    /// Requests that got a scripted or a recorded reply.
    pub served: usize,
    /// Of them, those whose history was exactly the recorded one.
    pub exact: usize,
    /// Requests for which no recorded history was the same.
    pub diverged: usize,
    /// Requests that were refused as the API would.
    pub refused: usize,
    /// Requests that nothing was left for.
    pub unmatched: usize,
}

impl std::ops::AddAssign for RequestTally {
    fn add_assign(&mut self, more: Self) {
        self.served += more.served;
        self.exact += more.exact;
        self.diverged += more.diverged;
        self.refused += more.refused;
        self.unmatched += more.unmatched;
    }
}

impl std::fmt::Display for RequestTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} served ({} exact), {} diverged, {} refused, {} unmatched",
            self.served, self.exact, self.diverged, self.refused, self.unmatched
        )
    }
}

/// What the server sends back.
#[derive(Debug)]
pub enum Answer {
    /// A stream.
    Stream {
        /// What it sends.
        plan: StreamPlan,
        /// Gates inside it.
        holds: Vec<GateHold>,
        /// Gate in front of the status line.
        before: Option<Arc<Gate>>,
        /// The scripted reply or recorded exchange, counted from 1.
        reply: usize,
        /// What `previous_response_id` will find once the stream was sent.
        remember: Option<(String, Vec<Item>)>,
    },
    /// A whole body.
    Body {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
        /// Gate in front of the status line.
        before: Option<Arc<Gate>>,
        /// The scripted reply or recorded exchange, counted from 1.
        reply: Option<usize>,
    },
}

impl ServerCase {
    /// A case with all its gates closed, whose composed streams are kept in `plans`. With `drifts` a
    /// request that no recorded one is like gets the answer of its place.
    pub fn new(config: CaseConfig, plans: PlanCache, drifts: bool) -> Self {
        let gate = |point: &CutPoint| Gate::new(point.clone(), config.tracer.clone());
        let gates = config.gates.iter().map(gate).collect();
        let matcher = match &config.script {
            Script::Recording(recording) => Some(recording.matcher()),
            Script::Replies(_) => None,
        };
        Self {
            config,
            gates,
            plans,
            drifts,
            matcher,
            exchanges: AtomicUsize::new(0),
            streams: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// The gate at that point.
    pub fn gate(&self, point: &CutPoint) -> Option<&Arc<Gate>> {
        self.gates.iter().find(|gate| gate.point == *point)
    }

    /// All gates.
    pub fn gates(&self) -> &[Arc<Gate>] {
        &self.gates
    }

    /// The streams that are being sent.
    pub fn streams(&self) -> &Arc<LiveStreams> {
        &self.streams
    }

    /// What became of the requests so far.
    pub fn tally(&self) -> RequestTally {
        self.lock().tally
    }

    /// Mistakes of the scenario that showed only when a reply was made, one sentence each.
    pub fn scenario_errors(&self) -> Vec<String> {
        self.lock().scenario_errors.clone()
    }

    /// The trace that the case records into.
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.config.tracer.as_ref()
    }

    /// How frames are handed to the connection.
    pub fn pace(&self) -> Pace {
        self.config.pace
    }

    /// Numbers a new exchange, counted from 1.
    pub fn next_exchange(&self) -> usize {
        self.exchanges.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Records an observation, if anybody wants it.
    pub fn record(&self, what: impl FnOnce() -> Observation) {
        if let Some(tracer) = &self.config.tracer {
            tracer.record(what());
        }
    }

    /// Finds the answer to a request that came with these headers.
    pub fn answer(
        &self,
        exchange: usize,
        request: &ResponsesRequest,
        headers: BTreeMap<String, String>,
    ) -> Answer {
        let mut state = self.lock();
        let history = match whole_history(&state, request) {
            Ok(history) => history,
            Err(error) => {
                self.record_request(exchange, 0, request, None, headers);
                return self.refuse(&mut state, exchange, &error);
            }
        };
        let side_conversations = &self.config.side_conversations;
        let conversation = state.conversations.find(&history, |opening| {
            let is_it = |side: &SideConversation| opening.contains(&side.opening);
            side_conversations.iter().position(is_it)
        });
        self.record_request(exchange, conversation, request, Some(&history), headers);
        let lenient = self
            .next_reply(&state, conversation)
            .is_some_and(|reply| reply.lenient);
        if !lenient {
            let error = pairing::faults(&history)
                .iter()
                .find_map(api_error::for_fault);
            if let Some(error) = error {
                return self.refuse(&mut state, exchange, &error);
            }
        }
        let answer = match (&self.config.script, self.replies(&state, conversation)) {
            (Script::Recording(recording), None) => {
                self.recorded(&mut state, recording, conversation, request, &history)
            }
            (_, replies) => {
                let replies = replies.unwrap_or_default();
                self.scripted(&mut state, replies, conversation, request, &history)
            }
        };
        match answer {
            Ok(mut answer) => {
                state.tally.served += 1;
                if let Answer::Stream { plan, remember, .. } = &mut answer
                    && is_stored(request)
                {
                    *remember = to_remember(plan, &history);
                }
                answer
            }
            Err(error) => {
                let message = error.to_string();
                state.tally.unmatched += 1;
                self.record(|| Observation::Unscripted {
                    exchange,
                    message: message.clone(),
                });
                unscripted(&message)
            }
        }
    }

    /// Remembers a response that was sent whole, for `previous_response_id`.
    pub fn remember(&self, response_id: String, history: Vec<Item>) {
        let mut state = self.lock();
        if state
            .responses
            .insert(response_id.clone(), Arc::new(history))
            .is_none()
        {
            state.order.push_back(response_id);
        }
        if state.order.len() > RESPONSES_KEPT
            && let Some(oldest) = state.order.pop_front()
        {
            state.responses.remove(&oldest);
        }
    }

    fn next_reply(&self, state: &State, conversation: usize) -> Option<&ScriptedReply> {
        let replies = self.replies(state, conversation)?;
        replies.get(state.conversations.served(conversation))
    }

    /// The replies that are scripted for a conversation.
    fn replies(&self, state: &State, conversation: usize) -> Option<&[ScriptedReply]> {
        if let Some(side) = state.conversations.side(conversation) {
            return Some(&self.config.side_conversations[side].replies);
        }
        match &self.config.script {
            Script::Replies(replies) if conversation == 0 => Some(replies),
            _ => None,
        }
    }

    fn scripted(
        &self,
        state: &mut State,
        replies: &[ScriptedReply],
        conversation: usize,
        request: &ResponsesRequest,
        history: &[Item],
    ) -> Result<Answer, NoAnswer> {
        let served = state.conversations.served(conversation);
        let Some(reply) = replies.get(served).or(self.config.fallback.as_ref()) else {
            return Err(NoAnswer::Unscripted(nothing_left(replies, served, history)));
        };
        state.conversations.serve(conversation);
        // Cut points count the replies of the main conversation; 0 is none of them.
        let number = if conversation == 0 { served + 1 } else { 0 };
        let before = self.gate(&CutPoint::Request { reply: number }).cloned();
        match &reply.body {
            ScriptedBody::Status {
                status,
                headers,
                body,
            } => Ok(Answer::Body {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
                before,
                reply: Some(number),
            }),
            ScriptedBody::Stream { parts, end } => {
                let id = match conversation {
                    0 => format!("resp_{number}"),
                    aside => format!("resp_{aside}_{}", served + 1),
                };
                let wanted = ReplyToCompose {
                    parts,
                    end,
                    text: &reply.text,
                    response_id: &id,
                    asks_approval: self.config.asks_approval,
                };
                let plan = self
                    .plans
                    .get(wanted, request)
                    .inspect_err(|error| state.scenario_errors.push(error.to_string()))?;
                Ok(self.stream(state, plan, before, number))
            }
            ScriptedBody::Recorded {
                recording,
                exchange,
            } => self.exchange(state, (recording, *exchange), request, before, number),
        }
    }

    fn recorded(
        &self,
        state: &mut State,
        recording: &Recording,
        conversation: usize,
        request: &ResponsesRequest,
        history: &[Item],
    ) -> Result<Answer, NoAnswer> {
        state.conversations.follow(conversation, history);
        let taken = state.conversations.taken(conversation);
        let found = self
            .matcher
            .as_ref()
            .map_or(Match::None, |matcher| matcher.match_request(history, taken));
        let number = match found {
            Match::Exact(number) => {
                state.tally.exact += 1;
                number
            }
            Match::Diverged { nearest, diff } => {
                state.tally.diverged += 1;
                let place = || self.matcher.as_ref()?.by_place(history, taken);
                match self.drifts.then(place).flatten() {
                    Some(number) => number,
                    None => {
                        return Err(NoAnswer::Unmatched { nearest, diff });
                    }
                }
            }
            Match::None => return Err(NoAnswer::NothingLeft),
        };
        state.conversations.take(conversation, number);
        let before = self.gate(&CutPoint::Request { reply: number }).cloned();
        self.exchange(state, (recording, number), request, before, number)
    }

    fn exchange(
        &self,
        state: &mut State,
        (recording, exchange): (&Recording, usize),
        request: &ResponsesRequest,
        before: Option<Arc<Gate>>,
        number: usize,
    ) -> Result<Answer, NoAnswer> {
        let Some(found) = recording.exchange(exchange) else {
            return Err(NoAnswer::NoSuchExchange {
                name: recording.name.clone(),
                count: recording.exchanges.len(),
                exchange,
            });
        };
        match &found.response {
            Response::Stream(document) => {
                let read = || plan::recorded(document, self.config.timed);
                // Only what is the same for every request is kept: clients may offer different tools.
                let plan = match &self.config.script {
                    Script::Recording(_) => {
                        state.plans.entry(exchange).or_insert_with(read).clone()
                    }
                    Script::Replies(_) => read(),
                };
                let plan = match self.config.recorded_calls {
                    RecordedCalls::AsRecorded => plan,
                    _ if is_synthesized(found) => recorded_calls::adapted(plan, request),
                    RecordedCalls::Portable => plan,
                    RecordedCalls::Substituted => {
                        recorded_calls::stood_in(plan, request, || recording.substitutes())
                    }
                };
                Ok(self.stream(state, plan, before, number))
            }
            Response::Body {
                status,
                headers,
                body,
            } => Ok(Answer::Body {
                status: *status,
                headers: headers.clone().into_iter().collect(),
                body: match body {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                },
                before,
                reply: Some(number),
            }),
        }
    }

    fn stream(
        &self,
        state: &mut State,
        plan: StreamPlan,
        before: Option<Arc<Gate>>,
        number: usize,
    ) -> Answer {
        let mut holds = Vec::new();
        for gate in self.gates.iter().filter(|gate| gate.is_closed()) {
            match plan.place(&gate.point, number) {
                Ok(Some(at)) => holds.push(GateHold {
                    at,
                    gate: gate.clone(),
                }),
                Ok(None) => {}
                Err(message) => {
                    state
                        .scenario_errors
                        .push(format!("at=\"{}\": {message}", gate.point));
                }
            }
        }
        Answer::Stream {
            plan,
            holds,
            before,
            reply: number,
            remember: None,
        }
    }

    fn refuse(&self, state: &mut State, exchange: usize, error: &ApiError) -> Answer {
        state.tally.refused += 1;
        self.record(|| Observation::Refused {
            exchange,
            status: error.status,
            message: error.message().to_owned(),
        });
        Answer::Body {
            status: error.status,
            headers: Vec::new(),
            body: error.body.to_string(),
            before: None,
            reply: None,
        }
    }

    fn record_request(
        &self,
        exchange: usize,
        conversation: usize,
        request: &ResponsesRequest,
        history: Option<&[Item]>,
        headers: BTreeMap<String, String>,
    ) {
        self.record(|| {
            let rebuilt = history.filter(|_| request.previous_response_id().is_some());
            Observation::Request {
                exchange,
                conversation,
                path: "/responses".to_owned(),
                headers,
                body: request.body.clone(),
                history: rebuilt.map(|history| history.iter().map(Item::to_value).collect()),
            }
        });
        if let Some(on_request) = &self.config.on_request {
            on_request(exchange);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the API keeps the response for `previous_response_id`: it does unless the request says otherwise.
fn is_stored(request: &ResponsesRequest) -> bool {
    request
        .body
        .get("store")
        .and_then(Value::as_bool)
        .unwrap_or(true)
}

/// A response's id, and the whole history up to and with it; `None` if it is not to be completed.
fn to_remember(plan: &StreamPlan, history: &[Item]) -> Option<(String, Vec<Item>)> {
    let response = plan.whole_response()?;
    let id = response["id"]
        .as_str()
        .filter(|_| response["status"] == "completed")?;
    Some((
        id.to_owned(),
        history.iter().cloned().chain(plan.output()).collect(),
    ))
}

/// The whole history of a request: what `previous_response_id` names, then its input.
fn whole_history(state: &State, request: &ResponsesRequest) -> Result<Vec<Item>, ApiError> {
    let Some(id) = request.previous_response_id() else {
        return Ok(request.input.to_vec());
    };
    match state.responses.get(id) {
        Some(known) => Ok(known.iter().chain(&*request.input).cloned().collect()),
        None => Err(api_error::previous_response_not_found(id)),
    }
}

fn unscripted(message: &str) -> Answer {
    let error = serde_json::json!({
        "message": format!("cutpoint: {message}"),
        "type": "cutpoint_unscripted_request", "param": null, "code": "unscripted_request",
    });
    Answer::Body {
        status: 500,
        headers: Vec::new(),
        body: serde_json::json!({"error": error}).to_string(),
        before: None,
        reply: None,
    }
}

/// Says which reply would have been next to nearest, and shows what was asked against it.
fn nothing_left(replies: &[ScriptedReply], served: usize, history: &[Item]) -> String {
    let asked: Vec<String> = history.iter().rev().take(3).map(outline).collect();
    let asked: Vec<&str> = asked.iter().rev().map(String::as_str).collect();
    if replies.is_empty() {
        return format!(
            "a request of another conversation than the scenario's, for which no reply is scripted \
             (`model for=\"…\"` does that); it ends in:\n+ {}",
            asked.join("\n+ ")
        );
    }
    let mut message = format!(
        "request {} of the conversation has no reply ({} scripted); add a `reply` for it.\n",
        served + 1,
        replies.len()
    );
    if let Some(last) = replies.last() {
        message.push_str(&format!("- {}\n", last.text));
    }
    message + "+ " + &asked.join("\n+ ")
}

fn outline(item: &Item) -> String {
    let text: String = item.all_text().chars().take(120).collect();
    let who = item.role().unwrap_or(item.type_name());
    match item.call_id() {
        Some(call_id) => format!("{who} {call_id} {text:?}"),
        None => format!("{who} {text:?}"),
    }
}
