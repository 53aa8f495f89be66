//! JSON-RPC over an agent's stdin and stdout: one message per line, without the `jsonrpc` member.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cutpoint_protocol::CallId;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::json_lines::{JsonLines, OutputLine};
use crate::driver::AgentError;

/// Messages that may wait for a peer that does not read.
const OUTBOX_LIMIT: usize = 1024;

/// A message as it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RpcMessage<'a> {
    /// The whole message.
    pub(crate) value: &'a Value,
    /// The length of its line.
    pub(crate) bytes: usize,
}

/// Takes the messages that are not replies. Called in the order in which they were read.
pub(crate) trait RpcHandler: Send + Sync + 'static {
    /// Takes a notification.
    fn notification(&self, method: &str, params: &Value, message: RpcMessage<'_>);
    /// Takes a request of the peer, to be answered with [`RpcClient::answer`].
    fn request(&self, id: &Value, method: &str, params: &Value, message: RpcMessage<'_>);
    /// Takes a reply to a request that was never made, or was answered before.
    fn stray_reply(&self, id: &Value, reply: RpcReply, line: String) {
        let _ = (id, reply);
        self.garbage(line);
    }
    /// Takes a line that is not a message.
    fn garbage(&self, line: String);
    /// Called when the peer has closed its output.
    fn closed(&self);
}

/// A reply: the result, or the message of an error.
pub(crate) type RpcReply = Result<Value, String>;

type OnReply = Box<dyn FnOnce(RpcReply) + Send>;
type Pending = Arc<Mutex<HashMap<u64, OnReply>>>;

/// A client. Its tasks end when the peer closes its output, or when it is dropped.
#[derive(Clone)]
pub(crate) struct RpcClient {
    out: mpsc::Sender<String>,
    pending: Pending,
    next_id: Arc<AtomicU64>,
    close: CancellationToken,
}

impl RpcClient {
    /// Starts a client on the current runtime.
    pub(crate) fn start(
        stdin: impl AsyncWrite + Send + Unpin + 'static,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        handler: Arc<dyn RpcHandler>,
    ) -> Self {
        let (out, outbox) = mpsc::channel(OUTBOX_LIMIT);
        let pending = Pending::default();
        let close = CancellationToken::new();
        let writing = write(stdin, outbox);
        tokio::spawn(close.clone().run_until_cancelled_owned(writing));
        tokio::spawn(read(stdout, pending.clone(), handler));
        Self {
            out,
            pending,
            next_id: Arc::default(),
            close,
        }
    }

    /// Closes the peer's input.
    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    /// Sends a request. The reader calls `on_reply` before it reads anything else. Returns the
    /// request's id.
    ///
    /// # Errors
    /// If the peer is gone, or has not read for long.
    pub(crate) fn call(
        &self,
        method: &str,
        params: &Value,
        on_reply: impl FnOnce(RpcReply) + Send + 'static,
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
    pub(crate) async fn ask(
        &self,
        method: &str,
        params: &Value,
        limit: Duration,
    ) -> Result<Value, AgentError> {
        self.ask_and(method, params, limit, |result| result).await
    }

    /// Sends a request and waits for its result. The reader passes it to `on_result` before it reads
    /// anything else, so that nothing that the peer sends next is missed.
    ///
    /// # Errors
    /// If the peer refuses it, is gone, or does not answer in time.
    pub(crate) async fn ask_and<T: Send + 'static>(
        &self,
        method: &str,
        params: &Value,
        limit: Duration,
        on_result: impl FnOnce(Value) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let (give, take) = oneshot::channel();
        self.call(method, params, |reply| {
            drop(give.send(reply.map(on_result)))
        })?;
        match tokio::time::timeout(limit, take).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(message))) => Err(AgentError::Protocol(format!(
                "`{method}` was refused: {message}"
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
    pub(crate) fn notify(&self, method: &str) -> Result<(), AgentError> {
        self.send(&json!({"method": method}))
    }

    /// Answers a request of the peer.
    ///
    /// # Errors
    /// If the peer is gone, or has not read for long.
    pub(crate) fn answer(&self, id: &Value, result: &Value) -> Result<(), AgentError> {
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

async fn read(stdout: impl AsyncRead + Unpin, pending: Pending, handler: Arc<dyn RpcHandler>) {
    let mut lines = JsonLines::new(stdout);
    while let Some(line) = lines.next().await {
        let value = match line {
            OutputLine::Message(value) => value,
            OutputLine::Garbage(text) => {
                handler.garbage(text);
                continue;
            }
        };
        let params = value.get("params").unwrap_or(&Value::Null);
        let message = RpcMessage {
            value: &value,
            bytes: lines.length_bytes(),
        };
        match (value["method"].as_str(), value.get("id")) {
            (Some(method), None) => handler.notification(method, params, message),
            (Some(method), Some(id)) => handler.request(id, method, params, message),
            (None, Some(id)) => {
                let waiting = id.as_u64().and_then(|id| lock(&pending).remove(&id));
                match waiting {
                    Some(on_reply) => on_reply(reply_of(&value)),
                    None => handler.stray_reply(id, reply_of(&value), lines.shortened()),
                }
            }
            (None, None) => handler.garbage(lines.shortened()),
        }
    }
    handler.closed();
    // Callers that still wait learn that no reply will come.
    lock(&pending).clear();
}

fn reply_of(message: &Value) -> RpcReply {
    match message.get("error") {
        Some(error) if !error.is_null() => {
            Err(error["message"].as_str().unwrap_or("no message").to_owned())
        }
        _ => Ok(message["result"].clone()),
    }
}

/// The peer's requests that wait for the user's answer, by call.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests(Mutex<HashMap<CallId, Value>>);

impl OpenRequests {
    /// Remembers the request that asks about a call.
    pub(crate) fn add(&self, call_id: &str, request: &Value) {
        lock(&self.0).insert(call_id.into(), request.clone());
    }

    /// The request that asks about a call, even if its turn is over.
    ///
    /// # Errors
    /// If there was none.
    pub(crate) fn find(&self, call_id: &str) -> Result<Value, AgentError> {
        let request = lock(&self.0).get(call_id).cloned();
        request.ok_or_else(|| AgentError::Protocol(format!("it asked nothing about `{call_id}`")))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
