//! What the app-server tells, handed to the cases that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutpoint_protocol::ids::TurnId;
use cutpoint_trace::{self, AgentEvent, Observation, ReadTrigger};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::events::meaning;
use crate::driver::CaseEnv;
use crate::driver::child::END_PATIENCE;
use crate::driver::jsonrpc::{Inbox, Raw};
use crate::driver::lines::{Budget, GarbageLog};

/// Hands notifications to the thread that they belong to.
#[derive(Default)]
pub(super) struct Router {
    pub(super) threads: Mutex<HashMap<String, Arc<Thread>>>,
    /// No output comes any more.
    pub(super) closed: CancellationToken,
    /// More output came than a case may have.
    pub(super) flooded: CancellationToken,
    /// Every case knows of the end.
    pub(super) ended: CancellationToken,
    /// The first line that was no message.
    pub(super) printed: Mutex<Option<String>>,
}

impl Router {
    pub(super) fn threads(&self) -> MutexGuard<'_, HashMap<String, Arc<Thread>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on what belongs to the thread is observed for that case.
    pub(super) fn enter(&self, id: &str, env: CaseEnv) -> Arc<Thread> {
        let thread = Arc::new(Thread {
            id: id.to_owned(),
            env,
            approvals: Mutex::default(),
            garbage: Mutex::default(),
            budget: Mutex::default(),
        });
        self.threads().insert(id.to_owned(), thread.clone());
        thread
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the end was told.
    pub(super) async fn ended(&self) {
        let _ = tokio::time::timeout(2 * END_PATIENCE, self.ended.cancelled()).await;
    }

    pub(super) fn printed(&self) -> Option<String> {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn agent_exited(&self, code: Option<i32>, expected: bool, stderr: &str) {
        for thread in self.threads().values() {
            thread.env.rollout.read(ReadTrigger::Exit);
            let exited = Observation::AgentExited {
                code,
                expected,
                stderr: stderr.to_owned(),
            };
            thread.env.tracer.record(exited);
        }
        self.ended.cancel();
    }

    pub(super) fn deliver(&self, params: &Value, meaning: AgentEvent, raw: &Raw<'_>) {
        let thread = params["threadId"]
            .as_str()
            .and_then(|id| self.threads().get(id).cloned());
        let Some(thread) = thread else { return };
        if !thread
            .budget
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spend(raw.bytes)
        {
            self.flooded.cancel();
            return;
        }
        let ended = matches!(meaning, AgentEvent::TurnEnded { .. });
        let turn_id = meaning.turn_id().map(TurnId::from);
        let what = Observation::Event {
            event: meaning,
            raw: cutpoint_trace::RawMessage::of(&raw.message),
        };
        if ended {
            thread
                .env
                .rollout
                .record_with(what, ReadTrigger::TurnEnded { turn_id });
        } else {
            thread.env.tracer.record(what);
        }
    }
}

impl Inbox for Router {
    fn notification(&self, method: &str, params: &Value, raw: &Raw<'_>) {
        self.deliver(params, meaning(method, params), raw);
    }

    fn request(&self, id: &Value, method: &str, params: &Value, raw: &Raw<'_>) {
        let thread = params["threadId"]
            .as_str()
            .and_then(|id| self.threads().get(id).cloned());
        if let (Some(thread), Some(call)) = (thread, params["itemId"].as_str()) {
            let mut approvals = thread
                .approvals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            approvals.insert(call.to_owned(), id.clone());
        }
        self.deliver(params, meaning(method, params), raw);
    }

    fn garbage(&self, text: String) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.get_or_insert_with(|| text.clone());
        drop(printed);
        for thread in self.threads().values() {
            let mut log = thread
                .garbage
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            log.record(&thread.env.tracer, text.clone());
        }
    }

    fn closed(&self) {
        self.closed.cancel();
    }
}

/// A thread of Codex: one case.
pub(super) struct Thread {
    pub(super) id: String,
    pub(super) env: CaseEnv,
    /// Call id → id of the request that waits for the user's answer.
    pub(super) approvals: Mutex<HashMap<String, Value>>,
    pub(super) garbage: Mutex<GarbageLog>,
    pub(super) budget: Mutex<Budget>,
}
