//! What the front sends, as the trace names it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutpoint_protocol::session::Event;
use cutpoint_protocol::{ConversationId, SubmissionId};
use cutpoint_trace::{AbortReason, Observation};
use serde_json::{Value, json};

use crate::driver::CaseEnv;
use crate::driver::kit::json_lines::OutputBudget;
use crate::driver::kit::queue_protocol;
use crate::driver::kit::rpc::{OpenRequests, RpcHandler, RpcMessage, RpcReply};
use crate::driver::kit::supervise::Supervisor;

/// The receiving end of one case.
pub(super) struct Inbox {
    env: CaseEnv,
    supervisor: Arc<Supervisor>,
    state: Mutex<State>,
    /// The agent's requests that wait for the user's answer.
    pub(super) open_requests: OpenRequests,
}

#[derive(Default)]
struct State {
    /// The conversation that the case is about, and the listener whose events are recorded.
    thread: ConversationId,
    listener: Option<u64>,
    /// Request id → op.
    ops: HashMap<u64, SubmissionId>,
    budget: OutputBudget,
}

impl Inbox {
    pub(super) fn new(env: CaseEnv, supervisor: Arc<Supervisor>) -> Self {
        Self {
            env,
            supervisor,
            state: Mutex::default(),
            open_requests: OpenRequests::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the case is about the conversation of this answer. False if it names none.
    pub(super) fn enter(&self, answer: &Value) -> bool {
        let (thread, path) = (&answer["thread"]["id"], &answer["thread"]["path"]);
        let (Some(thread), Some(path)) = (thread.as_str(), path.as_str()) else {
            return false;
        };
        self.env.rollout.set_path(Path::new(path));
        let mut state = self.state();
        state.thread = thread.into();
        state.listener = answer["listener"].as_u64();
        true
    }

    /// The conversation that the case is about.
    pub(super) fn thread(&self) -> ConversationId {
        self.state().thread.clone()
    }

    /// Remembers which op a request carries.
    pub(super) fn sent(&self, request: u64, op: &str) {
        self.state().ops.insert(request, op.into());
    }

    /// Records the answer to an op.
    pub(super) fn answered(&self, op: &str, reply: RpcReply) {
        let (result, error) = match reply {
            Ok(result) => (result, None),
            Err(message) => (Value::Null, Some(message)),
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

    /// Whether the agent may print more in this case.
    fn spend(&self, message: RpcMessage<'_>) -> bool {
        let left = self.state().budget.spend(message.bytes);
        if !left {
            self.supervisor.exceed_budget();
        }
        left
    }
}

impl RpcHandler for Inbox {
    fn notification(&self, method: &str, params: &Value, message: RpcMessage<'_>) {
        let listener = params["listener"].as_u64();
        // Every listener gets a copy, and other conversations are not the case's.
        if !self.spend(message) || (listener.is_some() && listener != self.state().listener) {
            return;
        }
        let event = json!({"id": params["id"], "msg": params["msg"]});
        match serde_json::from_value::<Event>(event) {
            Ok(event) if method == "event" => queue_protocol::record(&event, &self.env),
            _ => self.garbage(message.value.to_string()),
        }
    }

    fn request(&self, id: &Value, _method: &str, params: &Value, message: RpcMessage<'_>) {
        let known = params["threadId"] == *self.thread();
        match params["callId"].as_str() {
            Some(call) if self.spend(message) && known => self.open_requests.add(call, id),
            Some(_) => {}
            None => self.garbage(message.value.to_string()),
        }
    }

    fn stray_reply(&self, id: &Value, reply: RpcReply, line: String) {
        let op = id
            .as_u64()
            .and_then(|id| self.state().ops.get(&id).cloned());
        match op {
            // A second answer to an op is the agent's fault, not noise.
            Some(op) => self.answered(&op, reply),
            None => self.garbage(line),
        }
    }

    fn garbage(&self, line: String) {
        self.supervisor.note_garbage(&line);
        self.state().budget.record_garbage(&self.env.tracer, line);
    }

    fn closed(&self) {
        self.supervisor.close_output();
    }
}
