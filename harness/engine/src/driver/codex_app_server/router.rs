//! Hands what the app-server sends to the cases that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutpoint_protocol::ConversationId;
use cutpoint_trace::{AgentEvent, RawMessage};
use serde_json::Value;

use super::events::meaning;
use crate::driver::CaseEnv;
use crate::driver::kit::json_lines::OutputBudget;
use crate::driver::kit::record;
use crate::driver::kit::rpc::{OpenRequests, RpcHandler, RpcMessage};
use crate::driver::kit::supervise::{AgentExit, Supervisor};

/// Hands messages to the thread that they belong to.
pub(super) struct Router {
    supervisor: Arc<Supervisor>,
    threads: Mutex<HashMap<ConversationId, Arc<Thread>>>,
}

/// A thread of Codex: one case.
pub(super) struct Thread {
    pub(super) id: ConversationId,
    pub(super) env: CaseEnv,
    /// Codex's requests that wait for the user's answer.
    pub(super) open_requests: OpenRequests,
    budget: Mutex<OutputBudget>,
}

impl Router {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self {
            supervisor,
            threads: Mutex::default(),
        }
    }

    fn threads(&self) -> MutexGuard<'_, HashMap<ConversationId, Arc<Thread>>> {
        lock(&self.threads)
    }

    /// From here on what belongs to the thread is observed for that case.
    pub(super) fn enter(&self, id: &str, env: CaseEnv) -> Arc<Thread> {
        let thread = Arc::new(Thread {
            id: id.into(),
            env,
            open_requests: OpenRequests::default(),
            budget: Mutex::default(),
        });
        self.threads().insert(id.into(), thread.clone());
        thread
    }

    /// From here on nothing of the thread is observed any more.
    pub(super) fn leave(&self, id: &str) {
        self.threads().remove(id);
    }

    /// The process has ended: records that in every case.
    pub(super) fn agent_exited(&self, exit: &AgentExit) {
        for thread in self.threads().values() {
            exit.clone().record(&thread.env);
        }
    }

    fn thread_of(&self, params: &Value) -> Option<Arc<Thread>> {
        self.threads().get(params["threadId"].as_str()?).cloned()
    }

    fn deliver(&self, thread: &Thread, meaning: AgentEvent, message: RpcMessage<'_>) {
        if lock(&thread.budget).spend(message.bytes) {
            record::event(&thread.env, meaning, RawMessage::of(message.value));
        } else {
            self.supervisor.exceed_budget();
        }
    }
}

impl RpcHandler for Router {
    fn notification(&self, method: &str, params: &Value, message: RpcMessage<'_>) {
        if let Some(thread) = self.thread_of(params) {
            self.deliver(&thread, meaning(method, params), message);
        }
    }

    fn request(&self, id: &Value, method: &str, params: &Value, message: RpcMessage<'_>) {
        let Some(thread) = self.thread_of(params) else {
            return;
        };
        if let Some(call) = params["itemId"].as_str() {
            thread.open_requests.add(call, id);
        }
        self.deliver(&thread, meaning(method, params), message);
    }

    fn garbage(&self, line: String) {
        self.supervisor.note_garbage(&line);
        for thread in self.threads().values() {
            lock(&thread.budget).record_garbage(&thread.env.tracer, line.clone());
        }
    }

    fn closed(&self) {
        self.supervisor.close_output();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
