//! A running agent with its pipes.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutpoint_agent::{DefectSet, PointFuture, Probe, serve_jsonrpc_with};
use cutpoint_trace::{ClientOp, Observation, ReadTrigger};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::How;
use super::caller::Caller;
use super::wire::Wire;
use crate::driver::child::{AgentProcess, END_PATIENCE, EXIT_PATIENCE};
use crate::driver::jsonrpc::Client;
use crate::driver::lines::Budget;
use crate::driver::points::{self, Points, Reach};
use crate::driver::{AgentError, CaseEnv, START_LIMIT, reference};

/// How many bytes wait in a pipe of an agent in this process: as many as in one of the system's.
const PIPE_BYTES: usize = 64 << 10;

/// A running agent.
pub(super) struct Link {
    pub(super) caller: Caller,
    host: Host,
    expected_end: Arc<AtomicBool>,
    /// The agent's end is in the trace.
    ended: CancellationToken,
}

/// What runs the agent.
#[derive(Clone)]
enum Host {
    Task(AbortHandle),
    Process(Arc<AgentProcess>),
}

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Holds the agent at its points. Its events are seen when they come out of the pipe.
struct Holds(Arc<Points>);

impl Probe for Holds {
    fn point(&self, label: &'static str) -> Option<PointFuture> {
        self.0.pass(label)
    }
}

impl Link {
    /// Starts the agent with a new conversation, or with the one of that rollout. Gives the
    /// conversation's rollout as well.
    pub(super) async fn start(
        how: &How,
        env: &CaseEnv,
        resume: Option<&Path>,
    ) -> Result<(Self, PathBuf), AgentError> {
        let resumed = resume.is_some();
        env.points.forget_reach();
        let (host, input, output) = match how {
            How::InProcess(defects) => {
                env.tracer
                    .record(Observation::AgentStarted { pid: None, resumed });
                in_process(env, *defects)?
            }
            How::Process(spawn) => {
                let (process, stdin, stdout) = spawn.spawn(env, &[])?;
                let pid = process.pid();
                env.tracer
                    .record(Observation::AgentStarted { pid, resumed });
                let (input, output): (Input, Output) = (Box::pin(stdin), Box::pin(stdout));
                (Host::Process(process), input, output)
            }
        };
        let wire = Arc::new(Wire::new(env.clone()));
        let link = Self {
            caller: Caller {
                client: Client::start(input, output, wire.clone()),
                wire,
            },
            host,
            expected_end: Arc::default(),
            ended: CancellationToken::new(),
        };
        tokio::spawn(link.watch().run(env.clone()));
        let limit = match how {
            How::InProcess(_) => START_LIMIT,
            How::Process(spawn) => spawn.start_limit,
        };
        match link.open(resume, limit).await {
            Ok(rollout) => {
                link.be_reached(env);
                Ok((link, rollout))
            }
            Err(error) => {
                link.expected_end.store(true, Ordering::Release);
                let error = link.explain(error).await;
                link.kill().await?;
                Err(error)
            }
        }
    }

    /// Opens the conversation that the case is about.
    async fn open(&self, resume: Option<&Path>, limit: Duration) -> Result<PathBuf, AgentError> {
        let info = json!({"name": "cutpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"client": info});
        self.caller.client.ask("initialize", &params, limit).await?;
        let (method, params) = match resume {
            Some(path) => ("thread/resume", json!({"path": path})),
            None => ("thread/start", json!({})),
        };
        let (give, take) = oneshot::channel();
        let wire = self.caller.wire.clone();
        // The conversation is entered before anything else is read: nothing of it is missed.
        self.caller.client.call(method, &params, move |reply| {
            let entered = reply.map(|answer| {
                let path = answer["thread"]["path"].as_str().map(PathBuf::from);
                path.filter(|_| wire.enter(&answer))
            });
            drop(give.send(entered));
        })?;
        match tokio::time::timeout(limit, take).await {
            Ok(Ok(Ok(Some(path)))) => Ok(path),
            Ok(Ok(Ok(None))) => Err(AgentError::Protocol(format!("`{method}` gave no thread"))),
            Ok(Ok(Err(error))) => {
                let message = format!("`{method}` was refused: {}", error.message);
                Err(AgentError::Protocol(message))
            }
            Ok(Err(_)) => Err(AgentError::Died(format!("it went away during `{method}`"))),
            Err(_) => {
                let what = format!("answer `{method}`");
                Err(AgentError::TimedOut { what, limit })
            }
        }
    }

    /// Tells how the steps that are done by themselves reach the agent. Only one in this process
    /// passes points at which there are any.
    fn be_reached(&self, env: &CaseEnv) {
        let Host::Task(task) = &self.host else { return };
        let (task, caller) = (task.clone(), self.caller.clone());
        let (ends, tracer) = (self.expected_end.clone(), env.tracer.clone());
        let killed = self.expected_end.clone();
        let send: points::Send = Box::new(move |id, op| {
            if op == ClientOp::Shutdown {
                ends.store(true, Ordering::Release);
            }
            if let Err(closed) = caller.send(&id, &op) {
                // Nobody took it: a client whose agent is gone knows that.
                tracer.record(Observation::OpReply {
                    id: id.into(),
                    turn_id: None,
                    thread_id: None,
                    reason: None,
                    error: Some(closed.to_string()),
                });
            }
            Box::pin(std::future::ready(()))
        });
        let kill = Box::new(move || {
            killed.store(true, Ordering::Release);
            task.abort();
        });
        env.points.set_reach(Reach {
            send: Some(send),
            kill,
        });
    }

    /// The agent's process, if it has one of its own.
    pub(super) fn process(&self) -> Option<&AgentProcess> {
        match &self.host {
            Host::Task(_) => None,
            Host::Process(process) => Some(process),
        }
    }

    /// Ends the agent in good order, or else by force.
    pub(super) async fn end(&self, env: &CaseEnv) -> Result<(), AgentError> {
        self.expected_end.store(true, Ordering::Release);
        let mut asked = Ok(Value::Null);
        if !self.caller.wire.closed.is_cancelled() {
            asked = self
                .caller
                .client
                .ask("shutdown", &Value::Null, env.limit)
                .await;
        }
        self.caller.client.close();
        match &self.host {
            Host::Task(_) => self.wait_for_end().await,
            Host::Process(process) => process.end().await,
        }
        self.force().await;
        match asked {
            Err(AgentError::TimedOut { limit, .. }) => {
                let what = "shut down".to_owned();
                Err(AgentError::TimedOut { what, limit })
            }
            // It may have ended before, which is in the trace.
            _ => Ok(()),
        }
    }

    /// Ends the agent as a crash would.
    pub(super) async fn kill(&self) -> Result<(), AgentError> {
        self.expected_end.store(true, Ordering::Release);
        if let Host::Process(process) = &self.host {
            let killed = process.crash().await;
            killed.map_err(|error| AgentError::Died(error.to_string()))?;
        }
        self.force().await;
        Ok(())
    }

    /// Takes the agent away and waits until that is in the trace.
    async fn force(&self) {
        if let Host::Task(task) = &self.host {
            task.abort();
        }
        self.caller.client.close();
        self.wait_for_end().await;
    }

    /// Waits until the agent's end is in the trace.
    pub(super) async fn wait_for_end(&self) {
        let _ = tokio::time::timeout(2 * END_PATIENCE, self.ended.cancelled()).await;
    }

    fn watch(&self) -> Watch {
        Watch {
            wire: self.caller.wire.clone(),
            host: self.host.clone(),
            expected_end: self.expected_end.clone(),
            ended: self.ended.clone(),
        }
    }

    /// Why no session came about, with all that is known of it.
    async fn explain(&self, error: AgentError) -> AgentError {
        let mut why = match error {
            AgentError::Start(why) | AgentError::Protocol(why) => why,
            AgentError::TimedOut { what, limit } => {
                format!("it did not {what} within {} s", limit.as_secs_f64())
            }
            AgentError::Died(why) => {
                self.wait_for_end().await;
                let ending = self.process().and_then(AgentProcess::ending);
                ending.map_or(why, |ending| ending.words.clone())
            }
        };
        if let Some(process) = self.process() {
            why.push_str(&format!("\n{}", process.last_words().await));
        }
        AgentError::Start(why.trim_end().to_owned())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.caller.client.close();
        if let Host::Task(task) = &self.host {
            task.abort();
        }
    }
}

fn in_process(env: &CaseEnv, defects: DefectSet) -> Result<(Host, Input, Output), AgentError> {
    let config = reference::config(env, defects)?;
    let parts = reference::parts(env, &config, Arc::new(Holds(env.points.clone())))?;
    let (input, stdin) = tokio::io::duplex(PIPE_BYTES);
    let (stdout, output) = tokio::io::duplex(PIPE_BYTES);
    let served = tokio::spawn(async move {
        // A pipe that broke is seen at its other end.
        let _ = serve_jsonrpc_with(config, parts, stdin, stdout).await;
    });
    let host = Host::Task(served.abort_handle());
    Ok((host, Box::pin(input), Box::pin(output)))
}

/// Waits for the agent's end and puts it into the trace.
struct Watch {
    wire: Arc<Wire>,
    host: Host,
    expected_end: Arc<AtomicBool>,
    ended: CancellationToken,
}

impl Watch {
    async fn run(self, env: CaseEnv) {
        let (code, stderr) = match &self.host {
            Host::Task(task) => {
                tokio::select! {
                    biased;
                    () = self.wire.closed.cancelled() => {}
                    () = self.wire.flooded.cancelled() => task.abort(),
                }
                (None, String::new())
            }
            Host::Process(process) => self.end_of(process).await,
        };
        let expected = self.expected_end.load(Ordering::Acquire);
        env.rollout.read(ReadTrigger::Exit);
        env.tracer.record(Observation::AgentExited {
            code,
            expected,
            stderr,
        });
        self.ended.cancel();
    }

    /// The process's exit code and, if nobody asked for its end, its last words.
    async fn end_of(&self, process: &AgentProcess) -> (Option<i32>, String) {
        // What the agent left behind may hold its output open; it says nothing for it any more.
        let outlived = async {
            process.gone().await;
            tokio::time::sleep(EXIT_PATIENCE).await;
        };
        tokio::select! {
            biased;
            () = self.wire.closed.cancelled() => {}
            () = outlived => {}
            () = self.wire.flooded.cancelled() => process.condemn(Budget::overdrawn()).await,
        }
        let ending = process.ended().await;
        let expected = self.expected_end.load(Ordering::Acquire);
        let stderr = if expected {
            String::new()
        } else {
            process.last_words().await
        };
        (ending.code, stderr)
    }
}
