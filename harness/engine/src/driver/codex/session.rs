//! One thread of Codex as a session.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_protocol::ids::TurnId;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{
    AgentEvent, ClientOp, Decision, InputMode, Observation, Process, RawMessage, ReadTrigger,
    TaskKind,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::CodexConfig;
use super::router::Thread;
use super::server::Server;
use crate::driver::child::END_PATIENCE;
use crate::driver::{AgentError, CaseEnv, Session};
use crate::process::{self, ProcessOwner};
use crate::runner::turn_is_active;
use crate::trace_queries;

/// How long a thread is watched after its last turn: the app-server has no barrier behind which no
/// notification of a thread can come any more, and events follow each other within 1 ms.
const SETTLE: Duration = Duration::from_millis(30);
/// The turn named by an interrupt when there never was one.
const NO_TURN: &str = "00000000-0000-7000-8000-000000000000";

pub(super) struct CodexSession {
    pub(super) binary: PathBuf,
    pub(super) config: CodexConfig,
    pub(super) server: Arc<Server>,
    pub(super) thread: Option<Arc<Thread>>,
    pub(super) env: CaseEnv,
}

/// Where a thread comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// Nowhere: it is new.
    New,
    /// It is the thread of that id, continued.
    Known(&'a str),
    /// It is a fork of the thread of that id.
    ForkOf(&'a str),
}

impl CodexSession {
    /// Starts a thread, continues one, or forks one.
    pub(super) async fn open_thread(&mut self, origin: Origin<'_>) -> Result<(), AgentError> {
        let cwd = self.env.dir.join("work");
        std::fs::create_dir_all(&cwd).map_err(|error| AgentError::Start(error.to_string()))?;
        let asks = self.env.needs.contains(&Capability::Approvals);
        let mut params = json!({
            "cwd": cwd,
            "config": {"model_providers.cutpoint.base_url": self.env.base_url},
            "approvalPolicy": if asks { "on-request" } else { "never" },
            "sandbox": if asks { "read-only" } else { "danger-full-access" },
        });
        if let Some(model) = &self.env.model {
            params["model"] = json!(model);
        }
        let method = match origin {
            Origin::New => "thread/start",
            Origin::Known(id) => {
                params["threadId"] = json!(id);
                "thread/resume"
            }
            Origin::ForkOf(id) => {
                params["threadId"] = json!(id);
                "thread/fork"
            }
        };
        let started = Observation::AgentStarted {
            pid: self.server.process.pid(),
            resumed: !matches!(origin, Origin::New),
        };
        // A fork is there with the reply only.
        let forks = matches!(origin, Origin::ForkOf(_));
        let mut started = Some(started);
        self.env.tracer.record_many(started.take_if(|_| !forks));
        if let Origin::Known(id) = origin {
            // What the thread tells while it is resumed belongs to the case as well.
            self.server.router.enter(id, self.env.clone());
        }
        let (give, take) = oneshot::channel();
        let (env, router) = (self.env.clone(), self.server.router.clone());
        // The thread is entered before anything else is read, so that nothing of it is missed.
        self.server.client.call(method, &params, move |reply| {
            let entered = reply.map(|answer| {
                if let Some(path) = answer["thread"]["path"].as_str() {
                    if let Some(started) = started {
                        env.rollout.read(ReadTrigger::Exit);
                        let event = AgentEvent::Forked {
                            path: path.to_owned(),
                        };
                        let raw = RawMessage::default();
                        let forked = Observation::Event { event, raw };
                        let entries = [forked, Observation::AgentKilled, started];
                        env.tracer.record_many(entries);
                    }
                    env.rollout.set_path(Path::new(path));
                }
                answer["thread"]["id"]
                    .as_str()
                    .map(|id| router.enter(id, env))
            });
            drop(give.send(entered));
        })?;
        let limit = self.config.start_limit;
        let error = match tokio::time::timeout(limit, take).await {
            Ok(Ok(Ok(Some(thread)))) => {
                self.thread = Some(thread);
                return Ok(());
            }
            Ok(Ok(Ok(None))) => AgentError::Protocol(format!("`{method}` gave no thread id")),
            Ok(Ok(Err(error))) => {
                AgentError::Protocol(format!("`{method}` was refused: {}", error.message))
            }
            Ok(Err(_)) => AgentError::Died(format!("it went away during `{method}`")),
            Err(_) => AgentError::TimedOut {
                what: format!("answer `{method}`"),
                limit,
            },
        };
        Err(self.server.explain(error).await)
    }

    pub(super) fn thread(&self) -> Result<&Arc<Thread>, AgentError> {
        self.thread
            .as_ref()
            .ok_or_else(|| AgentError::Protocol("it has no thread".to_owned()))
    }

    /// Ends the running turn, and waits for its end. Gives whether the process answers.
    async fn interrupt_for_good(&self, thread: &str) -> bool {
        let seen = self.env.tracer.len();
        let params = json!({"threadId": thread, "turnId": current_turn(&self.env)});
        let asked = self
            .server
            .client
            .ask("turn/interrupt", &params, self.env.limit)
            .await;
        let ended = |what: &Observation| trace_queries::turn_end(what).map(|_| ());
        let _ = self.env.tracer.wait(seen, END_PATIENCE, ended).await;
        !matches!(asked, Err(AgentError::TimedOut { .. }))
    }

    /// Ends what the thread runs in the background, and lets the process forget the thread. Either
    /// request may be unknown to this version, or the process may be gone: nothing is lost.
    pub(super) async fn clean_up(&self, thread: &str) {
        let params = json!({"threadId": thread});
        for method in ["thread/backgroundTerminals/clean", "thread/unsubscribe"] {
            let asked = self
                .server
                .client
                .ask(method, &params, self.env.limit)
                .await;
            if matches!(asked, Err(AgentError::TimedOut { .. })) {
                return;
            }
        }
    }

    /// From here on nothing of the thread is observed any more.
    pub(super) fn leave(&self) {
        if let Some(thread) = &self.thread {
            self.server.router.threads().remove(&thread.id);
        }
    }

    /// Sends a request whose reply is recorded as the op's.
    pub(super) fn call(&self, id: &str, method: &str, mut params: Value) -> Result<(), AgentError> {
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
                Err(error) => (None, Some(error.message)),
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

    pub(super) fn approve(&self, call_id: &str, decision: Decision) -> Result<(), AgentError> {
        let thread = self.thread()?;
        let request = thread
            .approvals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(call_id)
            .cloned();
        let Some(request) = request else {
            return Err(AgentError::Protocol(format!(
                "no approval of `{call_id}` was asked for"
            )));
        };
        let word = match decision {
            Decision::Approve => "accept",
            Decision::Deny => "decline",
            Decision::Abort => "cancel",
        };
        self.server
            .client
            .answer(&request, &json!({"decision": word}))
    }
}

#[async_trait]
impl Session for CodexSession {
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
                        self.call(
                            id,
                            "turn/steer",
                            json!({"input": input, "expectedTurnId": turn}),
                        )
                    }
                }
            }
            ClientOp::Interrupt { turn_id } => {
                let turn_id = turn_id.as_deref().unwrap_or(NO_TURN);
                self.call(id, "turn/interrupt", json!({"turnId": turn_id}))
            }
            ClientOp::Approval { call_id, decision } => self.approve(call_id, *decision),
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
            | ClientOp::Rollback { .. } => {
                Err(AgentError::Protocol("it knows no such op".to_owned()))
            }
            ClientOp::Shutdown => {
                self.server.end().await;
                Ok(())
            }
        }
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.server.expected_end.store(true, Ordering::Release);
        let killed = self.server.process.crash().await;
        killed.map_err(|error| AgentError::Died(error.to_string()))?;
        self.server.router.ended().await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let home = self.server.home.clone();
        let known = self.thread()?.id.clone();
        self.server = Server::start(&self.binary, &self.config, home).await?;
        self.open_thread(Origin::Known(&known)).await
    }

    async fn fork(&mut self, _id: &str) -> Result<(), AgentError> {
        let first = self.thread()?.id.clone();
        let turn = current_turn(&self.env);
        self.leave();
        self.open_thread(Origin::ForkOf(&first)).await?;
        // The first thread would go on asking the model, which answers the fork only from here on.
        let params = json!({"threadId": first, "turnId": turn.as_deref().unwrap_or(NO_TURN)});
        self.server
            .client
            .call("turn/interrupt", &params, drop)
            .map(|_| ())
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        if let Some(thread) = self
            .thread
            .clone()
            .filter(|_| !self.server.router.is_closed())
        {
            tokio::time::sleep(SETTLE).await;
            // A scenario that was given up may have left a turn running. Its end is still watched, so
            // that it is not taken for a turn that never ended.
            let mut answers = true;
            if turn_is_active(&self.env.tracer) {
                answers = self.interrupt_for_good(&thread.id).await;
            }
            self.leave();
            // Who doesn't answer one request won't answer the next.
            if answers {
                self.clean_up(&thread.id).await;
            }
        }
        if self.env.private {
            self.server.end().await;
            if self.env.tracer.with(0, trace_queries::is_running) {
                // Nothing of the thread is watched any more, but that its process is gone is known.
                let exited = Observation::AgentExited {
                    code: None,
                    expected: true,
                    stderr: String::new(),
                };
                self.env.tracer.record(exited);
            }
        } else {
            self.server.leave().await;
        }
        self.leave();
        Ok(())
    }

    fn ending(&self) -> Option<String> {
        self.server
            .process
            .ending()
            .map(|ending| ending.words.clone())
    }

    fn pid(&self) -> Option<u32> {
        self.server.process.pid()
    }

    fn shares_process(&self) -> bool {
        !self.env.private
    }

    fn processes(&self) -> Vec<Process> {
        process::find(&ProcessOwner::Case(self.env.dir.clone()))
    }
}

impl Drop for CodexSession {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The turn that was started last, as far as the trace tells.
pub(super) fn current_turn(env: &CaseEnv) -> Option<TurnId> {
    env.tracer.with(0, |entries| {
        entries
            .iter()
            .rev()
            .find_map(|entry| match &entry.observation {
                Observation::OpReply {
                    turn_id: Some(turn_id),
                    ..
                } => Some(turn_id.clone()),
                Observation::Event {
                    event: AgentEvent::TurnStarted { turn_id },
                    ..
                } => Some(turn_id.clone()),
                _ => None,
            })
    })
}
