//! Takes the client's requests, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cutpoint_protocol::ids::{ConversationId, SubmissionId, TurnId};
use cutpoint_protocol::session::{AbortReason, Op, Submission};
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::task::JoinSet;

use super::client_requests::ClientRequests;
use super::conversation::{Conversation, InterruptStatus};
use super::event_forwarder::{Forwarder, abort_reason};
use super::interrupts::PendingInterrupt;
use super::message::{self, Outbox, RpcError, RpcMessage};
use super::params::Params;
use crate::caller_ids::{self, CallerIds};
use crate::config::Config;
use crate::defect::Defect;
use crate::line_reader::{LineReader, LineTooLong};
use crate::probe::Hooks;
use crate::services::Services;
use crate::session::Session;

/// How many conversations an agent has at most.
const CONVERSATIONS: usize = 256;

/// A request's answer: at once, or (`None`) when it is due.
type RpcResult = Result<Option<Value>, RpcError>;

/// The conversations, and what requests of them need.
pub(super) struct Server {
    config: Config,
    services: Services,
    hooks: Hooks,
    out: Outbox,
    asks: Arc<ClientRequests>,
    initialized: bool,
    conversations: BTreeMap<ConversationId, Arc<Conversation>>,
    /// The ids of all conversations there ever were.
    thread_ids: CallerIds<ConversationId>,
    /// Dropped with the server, and so ended with it.
    forwarders: JoinSet<()>,
    opened: u64,
    listeners: u64,
    submissions: u64,
}

impl Server {
    pub(super) fn new(config: Config, services: Services, out: Outbox) -> Self {
        Self {
            hooks: Hooks::new(services.probe.clone()),
            config,
            services,
            out,
            asks: Arc::default(),
            initialized: false,
            conversations: BTreeMap::new(),
            thread_ids: CallerIds::default(),
            forwarders: JoinSet::new(),
            opened: 0,
            listeners: 0,
            submissions: 0,
        }
    }

    /// Serves the client until it asks for the end, or closes its own.
    pub(super) async fn serve<R: AsyncRead + Unpin>(mut self, stdin: R) {
        let mut lines = LineReader::new(stdin);
        while let Some(line) = lines.next().await {
            let message = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => message::read(&line),
                Err(LineTooLong) => {
                    let error = RpcError::parse("the line is longer than the agent reads");
                    Err((Value::Null, error))
                }
            };
            match message {
                Ok(RpcMessage::Request { id, method, params }) => {
                    if self.request(id, &method, &params).await {
                        return;
                    }
                }
                Ok(RpcMessage::Reply { id, result }) => self.reply(&id, &result).await,
                Ok(RpcMessage::Notification) => {}
                Err((id, error)) => self.out.answer(id, Err(error)).await,
            }
        }
        self.close().await;
    }

    /// Returns whether the agent is over.
    async fn request(&mut self, id: Value, method: &str, params: &Value) -> bool {
        let ends = method == "shutdown" && self.initialized;
        let answer = if ends {
            self.close().await;
            Ok(Some(json!({})))
        } else {
            self.handle(&id, method, Params(params)).await
        };
        if let Some(answer) = answer.transpose() {
            self.out.answer(id, answer).await;
        }
        ends
    }

    async fn handle(&mut self, id: &Value, method: &str, params: Params<'_>) -> RpcResult {
        match method {
            "initialize" if self.initialized => Err(RpcError::invalid("it is initialized already")),
            "initialize" => {
                self.initialized = true;
                let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
                Ok(Some(json!({"agent": {"name": name, "version": version}})))
            }
            _ if !self.initialized => Err(RpcError::invalid("`initialize` comes first")),
            "thread/start" => self.start(id, params).await,
            "thread/resume" => self.resume(id, params).await,
            "thread/subscribe" => {
                let conversation = self.conversation(params)?;
                let listener = self.subscribe(&conversation)?;
                Ok(Some(json!({"listener": listener})))
            }
            "thread/unsubscribe" => {
                let listener = params.number("listener")?;
                if !self.conversation(params)?.unsubscribe(listener) {
                    return Err(RpcError::params(format!("there is no listener {listener}")));
                }
                Ok(Some(json!({})))
            }
            "turn/start" => self.input(id, params).await,
            "turn/steer" => self.steer(id, params).await,
            "turn/interrupt" => self.interrupt(id, params).await,
            other => Err(RpcError::method(other)),
        }
    }

    /// The conversation that a request is about.
    fn conversation(&self, params: Params<'_>) -> Result<Arc<Conversation>, RpcError> {
        let id = params.text("threadId")?;
        let known = caller_ids::canonical(&id).and_then(|id| self.conversations.get(id.as_str()));
        let known = known.or_else(|| self.conversations.get(id.as_str()));
        known
            .map(Arc::clone)
            .ok_or_else(|| RpcError::invalid(format!("there is no thread `{id}`")))
    }

    async fn start(&mut self, id: &Value, params: Params<'_>) -> RpcResult {
        let mut config = self.config.clone();
        if let Some(wanted) = params.optional_text("threadId")? {
            let claimed = self.thread_ids.claim(&wanted.into(), self.config.defects);
            let wanted = claimed.map_err(|fault| RpcError::invalid(fault.to_string()))?;
            config.session_id = Some(wanted);
        }
        self.open(id, config).await
    }

    async fn resume(&mut self, id: &Value, params: Params<'_>) -> RpcResult {
        let path = params.path("path")?;
        // Two sessions that write to one rollout would tear each other's lines.
        let is_open = |known: &Arc<Conversation>| same_file(known.session.rollout_path(), &path);
        if self.conversations.values().any(is_open) {
            let message = format!("{} belongs to a thread that is open", path.display());
            return Err(RpcError::invalid(message));
        }
        let resume = Some(path);
        let config = Config {
            resume,
            ..self.config.clone()
        };
        self.open(id, config).await
    }

    /// Opens a conversation, with one listener.
    async fn open(&mut self, request: &Value, mut config: Config) -> RpcResult {
        if self.conversations.len() >= CONVERSATIONS {
            let message = format!("{CONVERSATIONS} conversations are open already");
            return Err(RpcError::invalid(message));
        }
        // Conversations of one seed must not give the same ids.
        let spread = self.opened.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        config.seed = config.seed.wrapping_add(spread);
        self.opened += 1;
        let defects = config.defects;
        let started = Session::start_answering(config, self.services.clone()).await;
        let (session, events, answers) =
            started.map_err(|error| RpcError::internal(error.to_string()))?;
        let id = session.session_id().to_owned();
        if self.conversations.contains_key(&id) {
            return Err(RpcError::invalid(format!("thread {id} is open already")));
        }
        self.thread_ids.note(&id);
        let path = session.rollout_path().to_owned();
        let conversation = Arc::new(Conversation::new(id.clone(), session, defects));
        let listener = self.subscribe(&conversation)?;
        self.conversations
            .insert(id.clone(), Arc::clone(&conversation));
        let forwarder = Forwarder {
            conversation,
            asks: Arc::clone(&self.asks),
            out: self.out.clone(),
        };
        // A forwarder that has ended needs no watching.
        while self.forwarders.try_join_next().is_some() {}
        // The client learns of the thread before it hears of it.
        let result = json!({"thread": {"id": id, "path": path}, "listener": listener});
        self.out.answer(request.clone(), Ok(result)).await;
        self.forwarders.spawn(forwarder.run(events, answers));
        Ok(None)
    }

    fn subscribe(&mut self, conversation: &Conversation) -> Result<u64, RpcError> {
        let listener = self.listeners + 1;
        conversation.subscribe(listener)?;
        self.listeners = listener;
        Ok(listener)
    }

    /// Input that starts a turn, or joins the running one unless it is to replace it.
    async fn input(&mut self, id: &Value, params: Params<'_>) -> RpcResult {
        let conversation = self.conversation(params)?;
        let items = params.input()?;
        let turn_id = params.optional_text("turnId")?.map(TurnId::from);
        let wanted = turn_id
            .as_deref()
            .and_then(caller_ids::canonical)
            .map(TurnId::from);
        let op = if params.flag("replace")? {
            Op::UserTurn { items, turn_id }
        } else {
            Op::UserInput { items, turn_id }
        };
        self.submit_input(id, &conversation, op, wanted).await
    }

    /// Input for the running turn. If that has just ended, the input starts a turn rather than be
    /// lost, unless it names the turn that it is for.
    async fn steer(&mut self, id: &Value, params: Params<'_>) -> RpcResult {
        let conversation = self.conversation(params)?;
        let items = params.input()?;
        if let Some(named) = named_turn(params)?
            && conversation.active().as_ref() != Some(&named)
        {
            return Err(RpcError::invalid(format!(
                "turn {named} is not the active one"
            )));
        }
        let turn_id = None;
        let op = Op::UserInput { items, turn_id };
        self.submit_input(id, &conversation, op, None).await
    }

    async fn submit_input(
        &mut self,
        id: &Value,
        conversation: &Conversation,
        op: Op,
        wanted: Option<TurnId>,
    ) -> RpcResult {
        let submission = self.submission();
        conversation.owe_input(&submission, id.clone(), wanted)?;
        let submission = Submission { id: submission, op };
        let name = submission.id.clone();
        if conversation.session.submit(submission).await.is_err()
            && conversation.input(&name).is_some()
        {
            return Err(RpcError::invalid("the conversation has ended"));
        }
        Ok(None)
    }

    /// The request waits before its interrupt is on the way: the abort finds it whatever is quicker.
    async fn interrupt(&mut self, id: &Value, params: Params<'_>) -> RpcResult {
        let conversation = self.conversation(params)?;
        let named = named_turn(params)?;
        match conversation.meets(named.as_ref())? {
            InterruptStatus::Waits => {}
            InterruptStatus::Idle => return Ok(Some(abort_reason(None))),
            InterruptStatus::Forgotten => return Ok(None),
        }
        let submission = self.submission();
        let waiting = PendingInterrupt {
            submission: submission.clone(),
            request: id.clone(),
            named: named.clone(),
        };
        let defects = self.config.defects;
        let mut waiting = Some(waiting);
        if defects.contains(Defect::AnswerBeforeAbort) {
            waiting = None;
            let answer = abort_reason(Some(AbortReason::Interrupted));
            self.out.answer(id.clone(), Ok(answer)).await;
        }
        if !defects.contains(Defect::QueuedBehindOp) {
            waiting = waiting.and_then(|waiting| conversation.queue(waiting));
        }
        let submitted = conversation
            .session
            .interrupt(submission.clone(), named)
            .await;
        self.hooks.point("interrupt.submitted").await;
        let left = waiting.and_then(|waiting| conversation.queue(waiting));
        let unsent = submitted.is_err() && conversation.take_back(&submission);
        Ok((left.is_some() || unsent).then(|| abort_reason(None)))
    }

    /// The client answers a request of the agent's. An answer to none changes nothing.
    async fn reply(&self, id: &Value, result: &Value) {
        let Some(ask) = self.asks.take(id) else {
            return;
        };
        if let Some(conversation) = self.conversations.get(&ask.thread_id) {
            let submission = Submission {
                id: SubmissionId::default(),
                op: ask.op(result),
            };
            // The answer is not awaited any more if the conversation is over.
            let _ = conversation.session.submit(submission).await;
        }
    }

    /// Ends all conversations in good order.
    async fn close(&mut self) {
        for conversation in self.conversations.values() {
            let submission = Submission {
                id: SubmissionId::default(),
                op: Op::Shutdown,
            };
            // One that is over already needs no telling.
            let _ = conversation.session.submit(submission).await;
        }
        while self.forwarders.join_next().await.is_some() {}
    }

    fn submission(&mut self) -> SubmissionId {
        self.submissions += 1;
        self.submissions.to_string().into()
    }
}

/// The turn that a request names, in its canonical form.
fn named_turn(params: Params<'_>) -> Result<Option<TurnId>, RpcError> {
    let named = params.optional_text("turnId")?;
    Ok(named.map(|named| caller_ids::canonical(&named).unwrap_or(named).into()))
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}
