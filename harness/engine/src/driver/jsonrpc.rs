//! JSON-RPC over a child's stdin and stdout, one message per line, without the `jsonrpc` member.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::AgentError;
use super::lines::{JsonLines, Line};

/// Messages that may wait for a peer that does not read.
const OUTBOX_LIMIT: usize = 1024;

/// A message as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// The whole message.
    pub message: &'a Value,
    /// The length of its line.
    pub bytes: usize,
}

/// What becomes of messages that are no replies. Called in the order in which they were read.
pub trait Inbox: Send + Sync + 'static {
    /// A notification.
    fn notification(&self, method: &str, params: &Value, raw: &Raw<'_>);
    /// A request of the peer, to be answered with [`Client::answer`].
    fn request(&self, id: &Value, method: &str, params: &Value, raw: &Raw<'_>);
    /// A reply to a request that nobody made, or that was answered before.
    fn stray_reply(&self, id: &Value, reply: Result<Value, RpcError>, text: String) {
        let _ = (id, reply);
        self.garbage(text);
    }
    /// A line that is no message.
    fn garbage(&self, text: String);
    /// The peer closed its output.
    fn closed(&self);
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The code, 0 if there is none.
    pub code: i64,
    /// The message.
    pub message: String,
}

type OnReply = Box<dyn FnOnce(Result<Value, RpcError>) + Send>;
type Pending = Arc<Mutex<HashMap<u64, OnReply>>>;

/// A client. Its tasks end when the peer closes its output, or when it is dropped.
#[derive(Clone)]
pub struct Client {
    out: mpsc::Sender<String>,
    pending: Pending,
    next_id: Arc<AtomicU64>,
    close: CancellationToken,
}

impl Client {
    /// Starts a client on the current runtime.
    pub fn start(
        stdin: impl AsyncWrite + Send + Unpin + 'static,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        inbox: Arc<dyn Inbox>,
    ) -> Self {
        let (out, outbox) = mpsc::channel(OUTBOX_LIMIT);
        let pending = Pending::default();
        let close = CancellationToken::new();
        tokio::spawn(
            close
                .clone()
                .run_until_cancelled_owned(write(stdin, outbox)),
        );
        tokio::spawn(read(stdout, pending.clone(), inbox));
        Self {
            out,
            pending,
            next_id: Arc::default(),
            close,
        }
    }

    /// Closes the peer's input.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// Sends a request; `on_reply` is called by the reader, before it reads anything further. Gives
    /// the request's id.
    ///
    /// # Errors
    /// If the peer is gone, or has not read for long.
    pub fn call(
        &self,
        method: &str,
        params: &Value,
        on_reply: impl FnOnce(Result<Value, RpcError>) + Send + 'static,
    ) -> Result<u64, AgentError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.pending).insert(id, Box::new(on_reply));
        let sent = self.send(&json!({"id": id, "method": method, "params": params}));
        if sent.is_err() {
            lock(&self.pending).remove(&id);
        }
        sent.map(|()| id)
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// If the peer refuses it, is gone, or does not answer in time.
    pub async fn ask(
        &self,
        method: &str,
        params: &Value,
        limit: Duration,
    ) -> Result<Value, AgentError> {
        let (give, take) = oneshot::channel();
        self.call(method, params, |reply| drop(give.send(reply)))?;
        match tokio::time::timeout(limit, take).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(error))) => Err(AgentError::Protocol(format!(
                "`{method}` was refused: {}",
                error.message
            ))),
            Ok(Err(_)) => Err(AgentError::Died(format!("it went away during `{method}`"))),
            Err(_) => Err(AgentError::TimedOut {
                what: format!("answer `{method}`"),
                limit,
            }),
        }
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// If the peer is gone, or has not read for long.
    pub fn notify(&self, method: &str) -> Result<(), AgentError> {
        self.send(&json!({"method": method}))
    }

    /// Answers a request of the peer.
    ///
    /// # Errors
    /// If the peer is gone, or has not read for long.
    pub fn answer(&self, id: &Value, result: &Value) -> Result<(), AgentError> {
        self.send(&json!({"id": id, "result": result}))
    }

    fn send(&self, message: &Value) -> Result<(), AgentError> {
        self.out
            .try_send(format!("{message}\n"))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    AgentError::Protocol(format!("{OUTBOX_LIMIT} messages wait, and it reads none"))
                }
                mpsc::error::TrySendError::Closed(_) => {
                    AgentError::Died("it does not read its input any more".to_owned())
                }
            })
    }
}

async fn write(mut stdin: impl AsyncWrite + Unpin, mut outbox: mpsc::Receiver<String>) {
    while let Some(line) = outbox.recv().await {
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read(stdout: impl AsyncRead + Unpin, pending: Pending, inbox: Arc<dyn Inbox>) {
    let mut lines = JsonLines::new(stdout);
    while let Some(line) = lines.next().await {
        let message = match line {
            Line::Message(message) => message,
            Line::Garbage(text) => {
                inbox.garbage(text);
                continue;
            }
        };
        let params = message.get("params").unwrap_or(&Value::Null);
        let raw = Raw {
            message: &message,
            bytes: lines.length_bytes(),
        };
        match (message["method"].as_str(), message.get("id")) {
            (Some(method), None) => inbox.notification(method, params, &raw),
            (Some(method), Some(id)) => inbox.request(id, method, params, &raw),
            (None, Some(id)) => {
                let waiting = id.as_u64().and_then(|id| lock(&pending).remove(&id));
                match waiting {
                    Some(on_reply) => on_reply(reply_of(&message)),
                    None => inbox.stray_reply(id, reply_of(&message), lines.shown()),
                }
            }
            (None, None) => inbox.garbage(lines.shown()),
        }
    }
    inbox.closed();
    // Whoever still waits for a reply learns that none will come.
    lock(&pending).clear();
}

fn reply_of(message: &Value) -> Result<Value, RpcError> {
    match message.get("error") {
        Some(error) if !error.is_null() => Err(RpcError {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or("no message").to_owned(),
        }),
        _ => Ok(message["result"].clone()),
    }
}

fn lock(pending: &Pending) -> MutexGuard<'_, HashMap<u64, OnReply>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
