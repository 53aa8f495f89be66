//! One thread of Codex as a session.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_protocol::TurnId;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{
    AgentEvent, ClientOp, Decision, InputMode, Observation, Process, RawMessage, ReadTrigger,
    TaskKind,
};
use serde_json::{Value, json};

use super::router::{Router, Thread};
use super::server::{Server, ServerLauncher};
use crate::driver::kit::env::{tool_processes, work_dir};
use crate::driver::kit::process::END_PATIENCE;
use crate::driver::kit::supervise::AgentExit;
use crate::driver::{AgentError, AgentSession, CaseEnv};
use crate::runner::turn_is_active;
use crate::trace_queries;

/// How long a thread is watched after its last turn: the app-server gives no sign that no more
/// notifications of a thread will come, and events follow each other within 1 ms.
const SETTLE: Duration = Duration::from_millis(30);
/// The turn named by an interrupt when there never was one.
const NO_TURN: &str = "00000000-0000-7000-8000-000000000000";

pub(super) struct CodexSession {
    launcher: ServerLauncher,
    server: Arc<Server>,
    thread: Option<Arc<Thread>>,
    env: CaseEnv,
}

/// Where a thread comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum ThreadOrigin<'a> {
    /// It is new.
    New,
    /// It is the thread of that id, continued.
    Resumed(&'a str),
    /// It is a fork of the thread of that id.
    ForkOf(&'a str),
}

impl ThreadOrigin<'_> {
    fn method(self) -> &'static str {
        match self {
            Self::New => "thread/start",
            Self::Resumed(_) => "thread/resume",
            Self::ForkOf(_) => "thread/fork",
        }
    }
}

/// Enters a thread as the answer that opened it is read.
struct ThreadEntry {
    env: CaseEnv,
    router: Arc<Router>,
    /// What is recorded once the answer is there.
    started: Option<Observation>,
}

impl ThreadEntry {
    fn enter(self, answer: &Value) -> Option<Arc<Thread>> {
        if let Some(path) = answer["thread"]["path"].as_str() {
            if let Some(started) = self.started {
                self.env.rollout.read(ReadTrigger::Exit);
                let event = AgentEvent::Forked {
                    path: path.to_owned(),
                };
                let raw = RawMessage::default();
                let forked = Observation::Event { event, raw };
                let entries = [forked, Observation::AgentKilled, started];
                self.env.tracer.record_many(entries);
            }
            self.env.rollout.set_path(Path::new(path));
        }
        let id = answer["thread"]["id"].as_str()?;
        Some(self.router.enter(id, self.env))
    }
}

impl CodexSession {
    /// A session that has no thread yet.
    pub(super) fn new(launcher: ServerLauncher, server: Arc<Server>, env: CaseEnv) -> Self {
        Self {
            launcher,
            server,
            thread: None,
            env,
        }
    }

    /// Starts a thread, continues one, or forks one.
    pub(super) async fn open_thread(&mut self, origin: ThreadOrigin<'_>) -> Result<(), AgentError> {
        let params = self.thread_params(origin)?;
        let started = Observation::AgentStarted {
            pid: self.server.supervisor.pid(),
            resumed: !matches!(origin, ThreadOrigin::New),
        };
        let mut started = Some(started);
        // A fork exists only once the reply is there.
        let forks = matches!(origin, ThreadOrigin::ForkOf(_));
        self.env.tracer.record_many(started.take_if(|_| !forks));
        if let ThreadOrigin::Resumed(id) = origin {
            // What the thread reports while it is resumed belongs to the case as well.
            self.server.router.enter(id, self.env.clone());
        }
        let entry = ThreadEntry {
            env: self.env.clone(),
            router: self.server.router.clone(),
            started,
        };
        let (method, limit) = (origin.method(), self.launcher.start_limit);
        let client = &self.server.client;
        let opened = client.ask_and(method, &params, limit, |answer| entry.enter(&answer));
        let error = match opened.await {
            Ok(Some(thread)) => {
                self.thread = Some(thread);
                return Ok(());
            }
            Ok(None) => AgentError::Protocol(format!("`{method}` gave no thread id")),
            Err(error) => error,
        };
        Err(self.server.supervisor.explain(error).await)
    }

    fn thread_params(&self, origin: ThreadOrigin<'_>) -> Result<Value, AgentError> {
        let asks = self.env.needs.contains(&Capability::Approvals);
        let mut params = json!({
            "cwd": work_dir(&self.env)?,
            "config": {"model_providers.cutpoint.base_url": self.env.base_url},
            "approvalPolicy": if asks { "on-request" } else { "never" },
            "sandbox": if asks { "read-only" } else { "danger-full-access" },
        });
        if let Some(model) = &self.env.model {
            params["model"] = json!(model);
        }
        if let ThreadOrigin::Resumed(id) | ThreadOrigin::ForkOf(id) = origin {
            params["threadId"] = json!(id);
        }
        Ok(params)
    }

    fn thread(&self) -> Result<&Arc<Thread>, AgentError> {
        self.thread
            .as_ref()
            .ok_or_else(|| AgentError::Protocol("it has no thread".to_owned()))
    }

    /// Ends the running turn, and waits for its end. Returns false if the process does not answer.
    async fn interrupt_for_good(&self, thread: &str) -> bool {
        let seen = self.env.tracer.len();
        let params = json!({"threadId": thread, "turnId": current_turn(&self.env)});
        let client = &self.server.client;
        let asked = client.ask("turn/interrupt", &params, self.env.limit).await;
        let ended = |observation: &Observation| trace_queries::turn_end(observation).map(|_| ());
        let _ = self.env.tracer.wait(seen, END_PATIENCE, ended).await;
        !matches!(asked, Err(AgentError::TimedOut { .. }))
    }

    /// Ends what the thread runs in the background, and lets the process forget the thread. Either
    /// request may be unknown to this version, or the process may be gone: nothing is lost.
    async fn clean_up(&self, thread: &str) {
        let params = json!({"threadId": thread});
        for method in ["thread/backgroundTerminals/clean", "thread/unsubscribe"] {
            let client = &self.server.client;
            let asked = client.ask(method, &params, self.env.limit).await;
            if matches!(asked, Err(AgentError::TimedOut { .. })) {
                return;
            }
        }
    }

    /// From here on nothing of the thread is observed any more.
    fn leave_thread(&self) {
        if let Some(thread) = &self.thread {
            self.server.router.leave(&thread.id);
        }
    }

    /// This case needs the process no longer.
    pub(super) async fn leave_server(&self) {
        if self.env.private {
            self.server.end().await;
        } else {
            self.server.leave().await;
        }
    }

    /// Sends a request about the thread whose reply is recorded as the op's.
    fn call(&self, id: &str, method: &str, mut params: Value) -> Result<(), AgentError> {
        let thread = self.thread()?;
        params["threadId"] = json!(thread.id);
        let (tracer, id) = (thread.env.tracer.clone(), id.into());
        let sent = self.server.client.call(method, &params, move |reply| {
            let (turn_id, error) = match reply {
                Ok(result) => {
                    let turn = result["turn"]["id"]
                        .as_str()
                        .or_else(|| result["turnId"].as_str());
                    (turn.map(TurnId::from), None)
                }
                Err(message) => (None, Some(message)),
            };
            tracer.record(Observation::OpReply {
                id,
                turn_id,
                thread_id: None,
                reason: None,
                error,
            });
        });
        sent.map(|_| ())
    }

    fn decide(&self, call_id: &str, decision: Decision) -> Result<(), AgentError> {
        let request = self.thread()?.open_requests.find(call_id)?;
        let word = match decision {
            Decision::Approve => "accept",
            Decision::Deny => "decline",
            Decision::Abort => "cancel",
        };
        let result = json!({"decision": word});
        self.server.client.answer(&request, &result)
    }
}

#[async_trait]
impl AgentSession for CodexSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        match op {
            ClientOp::Input { text, mode, .. } => {
                let input = json!([{"type": "text", "text": text}]);
                match mode {
                    InputMode::Start | InputMode::Replace => {
                        self.call(id, "turn/start", json!({"input": input}))
                    }
                    InputMode::Steer => {
                        let turn = current_turn(&self.env);
                        let params = json!({"input": input, "expectedTurnId": turn});
                        self.call(id, "turn/steer", params)
                    }
                }
            }
            ClientOp::Interrupt { turn_id } => {
                let turn_id = turn_id.as_deref().unwrap_or(NO_TURN);
                self.call(id, "turn/interrupt", json!({"turnId": turn_id}))
            }
            ClientOp::Approval { call_id, decision } => self.decide(call_id, *decision),
            ClientOp::Task {
                task: TaskKind::Compact,
                ..
            } => self.call(id, "thread/compact/start", json!({})),
            ClientOp::Task {
                task: TaskKind::Review,
                text,
            } => {
                let target = json!({"type": "custom", "instructions": text});
                self.call(id, "review/start", json!({"target": target}))
            }
            ClientOp::Answer { .. }
            | ClientOp::Task { .. }
            | ClientOp::Open { .. }
            | ClientOp::Fork
            | ClientOp::Rollback { .. } => Err(AgentError::UnsupportedOp),
            ClientOp::Shutdown => {
                self.server.end().await;
                Ok(())
            }
        }
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.server.supervisor.crash().await
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let home = self.server.home.clone();
        let known = self.thread()?.id.clone();
        self.server = self.launcher.start_in(home).await?;
        self.open_thread(ThreadOrigin::Resumed(&known)).await
    }

    async fn fork(&mut self, _id: &str) -> Result<(), AgentError> {
        let first = self.thread()?.id.clone();
        let turn = current_turn(&self.env);
        self.leave_thread();
        self.open_thread(ThreadOrigin::ForkOf(&first)).await?;
        // The first thread would go on asking the model, which answers the fork only from here on.
        let params = json!({"threadId": first, "turnId": turn.as_deref().unwrap_or(NO_TURN)});
        let client = &self.server.client;
        client.call("turn/interrupt", &params, drop).map(|_| ())
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        let thread = self.thread.clone();
        if let Some(thread) = thread.filter(|_| !self.server.supervisor.is_output_closed()) {
            tokio::time::sleep(SETTLE).await;
            // A scenario that was given up may have left a turn running. Its end is still watched, so
            // that it is not taken for a turn that never ended.
            let mut answers = true;
            if turn_is_active(&self.env.tracer) {
                answers = self.interrupt_for_good(&thread.id).await;
            }
            self.leave_thread();
            // A process that doesn't answer one request won't answer the next.
            if answers {
                self.clean_up(&thread.id).await;
            }
        }
        self.leave_server().await;
        if self.env.private && self.env.tracer.with(0, trace_queries::is_running) {
            // Nothing of the thread is watched any more, but its process is known to be gone.
            AgentExit::expected().record_end(&self.env);
        }
        self.leave_thread();
        Ok(())
    }

    fn ending(&self) -> Option<String> {
        self.server.supervisor.ending()
    }

    fn pid(&self) -> Option<u32> {
        self.server.supervisor.pid()
    }

    fn shares_process(&self) -> bool {
        !self.env.private
    }

    fn processes(&self) -> Vec<Process> {
        // The app-server itself does not work in the case's directory.
        tool_processes(&self.env, None)
    }
}

impl Drop for CodexSession {
    fn drop(&mut self) {
        self.leave_thread();
    }
}

/// The turn that was started last, as far as the trace shows.
fn current_turn(env: &CaseEnv) -> Option<TurnId> {
    env.tracer.with(0, |entries| {
        let mut latest_first = entries.iter().rev();
        latest_first.find_map(|entry| match &entry.observation {
            Observation::OpReply {
                turn_id: Some(turn_id),
                ..
            }
            | Observation::Event {
                event: AgentEvent::TurnStarted { turn_id },
                ..
            } => Some(turn_id.clone()),
            _ => None,
        })
    })
}
