//! A running agent with its pipes.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cutpoint_agent::{DefectSet, PointFuture, Probe, serve_jsonrpc_with};
use cutpoint_trace::{ClientOp, Observation};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Launch;
use super::inbox::Inbox;
use super::ops::OpSender;
use crate::driver::in_process::setup;
use crate::driver::kit::points::{AgentHandle, Points, SendOp};
use crate::driver::kit::rpc::RpcClient;
use crate::driver::kit::supervise::{AgentHost, Supervisor};
use crate::driver::{AgentError, CaseEnv, START_LIMIT};

/// How many bytes wait in a pipe of an agent in this process: as many as in one of the system's.
const PIPE_BYTES: usize = 64 << 10;

pub(super) struct Connection {
    pub(super) ops: OpSender,
    pub(super) supervisor: Arc<Supervisor>,
}

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Holds the agent at its points. Its events are seen when they come out of the pipe.
struct PointProbe(Arc<Points>);

impl Probe for PointProbe {
    fn point(&self, label: &'static str) -> Option<PointFuture> {
        self.0.pass(label)
    }
}

impl Connection {
    /// Starts the agent with a new conversation, or with the one of that rollout. Gives the
    /// conversation's rollout as well.
    pub(super) async fn start(
        launch: &Launch,
        env: &CaseEnv,
        resume: Option<&Path>,
    ) -> Result<(Self, PathBuf), AgentError> {
        let resumed = resume.is_some();
        env.points.forget_agent();
        let started = |pid| {
            env.tracer
                .record(Observation::AgentStarted { pid, resumed });
        };
        let (host, input, output): (_, Input, Output) = match launch {
            Launch::InProcess(defects) => {
                started(None);
                in_process(env, *defects)?
            }
            Launch::Process(program) => {
                let (process, stdin, stdout) = program.spawn(env, &[])?;
                started(process.pid());
                let host = AgentHost::Process(process);
                (host, Box::pin(stdin), Box::pin(stdout))
            }
        };
        let supervisor = Supervisor::new(host);
        let inbox = Arc::new(Inbox::new(env.clone(), supervisor.clone()));
        let client = RpcClient::start(input, output, inbox.clone());
        let watched = env.clone();
        supervisor.watch(move |exit| exit.record(&watched));
        let connection = Self {
            ops: OpSender { client, inbox },
            supervisor,
        };
        let limit = match launch {
            Launch::InProcess(_) => START_LIMIT,
            Launch::Process(program) => program.start_limit,
        };
        match connection.open(resume, limit).await {
            Ok(rollout) => {
                connection.be_reached(env);
                Ok((connection, rollout))
            }
            Err(error) => {
                connection.supervisor.expect_end();
                let error = connection.supervisor.explain(error).await;
                connection.kill().await?;
                Err(error)
            }
        }
    }

    /// Opens the conversation that the case is about.
    async fn open(&self, resume: Option<&Path>, limit: Duration) -> Result<PathBuf, AgentError> {
        let client = &self.ops.client;
        let info = json!({"name": "cutpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"client": info});
        client.ask("initialize", &params, limit).await?;
        let (method, params) = match resume {
            Some(path) => ("thread/resume", json!({"path": path})),
            None => ("thread/start", json!({})),
        };
        let inbox = self.ops.inbox.clone();
        // The conversation is entered before anything else is read, so that nothing of it is missed.
        let entered = client.ask_and(method, &params, limit, move |answer| {
            let path = answer["thread"]["path"].as_str().map(PathBuf::from);
            path.filter(|_| inbox.enter(&answer))
        });
        entered
            .await?
            .ok_or_else(|| AgentError::Protocol(format!("`{method}` gave no thread")))
    }

    /// Lets injected steps reach the agent. Only an agent in this process passes points with such steps.
    fn be_reached(&self, env: &CaseEnv) {
        if self.supervisor.process().is_some() {
            return;
        }
        let (ops, supervisor) = (self.ops.clone(), self.supervisor.clone());
        let send: SendOp = Box::new(move |id, op| {
            if op == ClientOp::Shutdown {
                supervisor.expect_end();
            }
            let sent = ops.send(&id, &op).map_err(|error| error.to_string());
            Box::pin(std::future::ready(sent))
        });
        let supervisor = self.supervisor.clone();
        let kill = Box::new(move || {
            supervisor.expect_end();
            supervisor.abort();
        });
        env.points.set_agent(AgentHandle {
            send: Some(send),
            kill,
        });
    }

    /// Ends the agent in good order, or else by force.
    pub(super) async fn end(&self, env: &CaseEnv) -> Result<(), AgentError> {
        self.supervisor.expect_end();
        let mut asked = Ok(Value::Null);
        if !self.supervisor.is_output_closed() {
            let client = &self.ops.client;
            asked = client.ask("shutdown", &Value::Null, env.limit).await;
        }
        self.ops.client.close();
        self.supervisor.end().await;
        match asked {
            Err(AgentError::TimedOut { limit, .. }) => Err(AgentError::TimedOut {
                what: "shut down".to_owned(),
                limit,
            }),
            // It may have ended before, which is in the trace.
            _ => Ok(()),
        }
    }

    /// Ends the agent as a crash would.
    pub(super) async fn kill(&self) -> Result<(), AgentError> {
        let killed = self.supervisor.crash().await;
        self.ops.client.close();
        killed
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ops.client.close();
        self.supervisor.abort();
    }
}

fn in_process(env: &CaseEnv, defects: DefectSet) -> Result<(AgentHost, Input, Output), AgentError> {
    let config = setup::config(env, defects)?;
    let parts = setup::parts(env, &config, Arc::new(PointProbe(env.points.clone())))?;
    let (input, stdin) = tokio::io::duplex(PIPE_BYTES);
    let (stdout, output) = tokio::io::duplex(PIPE_BYTES);
    let served = tokio::spawn(async move {
        // A pipe that broke is seen at its other end.
        let _ = serve_jsonrpc_with(config, parts, stdin, stdout).await;
    });
    let host = AgentHost::Task(served.abort_handle());
    Ok((host, Box::pin(input), Box::pin(output)))
}
