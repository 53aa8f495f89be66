//! What the front sends, as the trace names it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutpoint_protocol::session::Event;
use cutpoint_trace::{AbortReason, Observation};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::driver::jsonrpc::{Inbox, Raw, RpcError};
use crate::driver::lines::{Budget, GarbageLog};
use crate::driver::{CaseEnv, queue_events};

/// The receiving end of one case.
pub(super) struct Wire {
    env: CaseEnv,
    state: Mutex<State>,
    /// No output comes any more.
    pub(super) closed: CancellationToken,
    /// More output came than a case may have.
    pub(super) flooded: CancellationToken,
}

#[derive(Default)]
struct State {
    /// The conversation that the case is about, and the listener that tells of it.
    thread: String,
    listener: Option<u64>,
    /// Call id → id of the request that waits for the user's answer.
    asked: HashMap<String, Value>,
    /// Request id → op.
    ops: HashMap<u64, String>,
    garbage: GarbageLog,
    budget: Budget,
}

impl Wire {
    pub(super) fn new(env: CaseEnv) -> Self {
        Self {
            env,
            state: Mutex::default(),
            closed: CancellationToken::new(),
            flooded: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conversation that the case is about is the one of this answer. False if it names none.
    pub(super) fn enter(&self, answer: &Value) -> bool {
        let (thread, path) = (&answer["thread"]["id"], &answer["thread"]["path"]);
        let (Some(thread), Some(path)) = (thread.as_str(), path.as_str()) else {
            return false;
        };
        self.env.rollout.set_path(Path::new(path));
        let mut state = self.state();
        thread.clone_into(&mut state.thread);
        state.listener = answer["listener"].as_u64();
        true
    }

    /// The conversation that the case is about.
    pub(super) fn thread(&self) -> String {
        self.state().thread.clone()
    }

    /// The request that asks the user about a call.
    pub(super) fn asked(&self, call_id: &str) -> Option<Value> {
        self.state().asked.get(call_id).cloned()
    }

    /// Remembers which op a request carries.
    pub(super) fn sent(&self, request: u64, op: &str) {
        self.state().ops.insert(request, op.to_owned());
    }

    /// Records the answer to an op.
    pub(super) fn answered(&self, op: &str, reply: Result<Value, RpcError>) {
        let (result, error) = match reply {
            Ok(result) => (result, None),
            Err(error) => (Value::Null, Some(error.message)),
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let reason = match result["abortReason"].as_str() {
            Some("interrupted") => Some(AbortReason::Interrupted),
            Some("replaced") => Some(AbortReason::Replaced),
            _ => None,
        };
        self.env.tracer.record(Observation::OpReply {
            id: op.into(),
            turn_id: text(&result["turn"]["id"]).map(Into::into),
            thread_id: text(&result["thread"]["id"]).map(Into::into),
            reason,
            error,
        });
    }

    /// Whether the agent may tell more in this case.
    fn spend(&self, raw: &Raw<'_>) -> bool {
        let left = self.state().budget.spend(raw.bytes);
        if !left {
            self.flooded.cancel();
        }
        left
    }
}

impl Inbox for Wire {
    fn notification(&self, method: &str, params: &Value, raw: &Raw<'_>) {
        let listener = params["listener"].as_u64();
        // Every listener gets a copy, and other conversations are nobody's business here.
        if !self.spend(raw) || (listener.is_some() && listener != self.state().listener) {
            return;
        }
        let event = json!({"id": params["id"], "msg": params["msg"]});
        match serde_json::from_value::<Event>(event) {
            Ok(event) if method == "event" => {
                queue_events::record(&event, &self.env);
            }
            _ => self.garbage(raw.message.to_string()),
        }
    }

    fn request(&self, id: &Value, _method: &str, params: &Value, raw: &Raw<'_>) {
        let known = params["threadId"] == self.thread();
        match params["callId"].as_str() {
            Some(call) if self.spend(raw) && known => {
                self.state().asked.insert(call.to_owned(), id.clone());
            }
            Some(_) => {}
            None => self.garbage(raw.message.to_string()),
        }
    }

    fn stray_reply(&self, id: &Value, reply: Result<Value, RpcError>, text: String) {
        let op = id
            .as_u64()
            .and_then(|id| self.state().ops.get(&id).cloned());
        match op {
            // A second answer to an op is the agent's fault, not noise.
            Some(op) => self.answered(&op, reply),
            None => self.garbage(text),
        }
    }

    fn garbage(&self, text: String) {
        self.state().garbage.record(&self.env.tracer, text);
    }

    fn closed(&self) {
        self.closed.cancel();
    }
}
