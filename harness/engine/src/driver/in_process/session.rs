//! A session of the reference agent in this process.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_agent::{DefectSet, Killer, Probe, Session as Agent, Submitter};
use cutpoint_protocol::session::{Event, Op, Submission};
use cutpoint_trace::{AgentEvent, ClientOp, Entry, Observation, Process, ReadTrigger};
use tokio::task::JoinHandle;

use super::setup::{config, not_started, parts};
use crate::driver::kit::env::tool_processes;
use crate::driver::kit::points::{AgentHandle, SendOp};
use crate::driver::kit::queue_protocol;
use crate::driver::kit::supervise::AgentExit;
use crate::driver::{AgentError, AgentSession, CaseEnv};

/// How long an agent that has already hung once may take to end: a scenario waits out its limit only
/// once.
const HUNG_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct InProcessSession {
    env: CaseEnv,
    defects: DefectSet,
    /// The conversation's rollout; absent while the agent was killed before it wrote anything.
    rollout: Option<PathBuf>,
    running: Option<RunningAgent>,
    /// Reads the event queue, as a client does; the probe has seen the events before. It ends after
    /// the agent.
    drain: Option<JoinHandle<()>>,
}

struct RunningAgent {
    agent: Agent,
    /// The position in the trace at which it was started.
    since: usize,
}

/// Sees events at the very moment they enter the event queue, and holds the agent at its points.
struct QueueProbe(CaseEnv);

impl Probe for QueueProbe {
    fn emitted(&self, event: &Event) {
        queue_protocol::record(event, &self.0);
    }

    fn point(&self, label: &'static str) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        self.0.points.pass(label)
    }
}

impl RunningAgent {
    /// Starts the agent, and the client that reads its events. `None` if it was killed meanwhile.
    async fn start(
        env: &CaseEnv,
        defects: DefectSet,
        resume: Option<PathBuf>,
    ) -> Result<Option<(Self, JoinHandle<()>)>, AgentError> {
        let mut config = config(env, defects)?;
        let resumed = resume.is_some();
        if !resumed {
            // An agent that was killed as it started has left a rollout under its id, though empty.
            config.seed = config.seed.wrapping_add(starts(env));
        }
        config.resume = resume;
        let parts = parts(env, &config, Arc::new(QueueProbe(env.clone())))?;
        env.screen.open(defects);
        let since = env.tracer.len();
        env.tracer
            .record(Observation::AgentStarted { pid: None, resumed });
        let killer = Killer::default();
        env.points.set_agent(handle(&killer, None));
        let (agent, mut events) = tokio::select! {
            biased;
            () = killer.killed() => return Ok(None),
            started = Agent::start_under(&killer, config, parts) => started.map_err(not_started)?,
        };
        env.rollout.set_path(agent.rollout_path());
        env.points
            .set_agent(handle(&killer, Some(sender(agent.submitter()))));
        let client = env.event_client.clone();
        let drain = tokio::spawn(async move {
            loop {
                client.reads().await;
                if events.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(Some((Self { agent, since }, drain)))
    }
}

/// How often an agent was started so far.
fn starts(env: &CaseEnv) -> u64 {
    let is_start = |entry: &&Entry| matches!(entry.observation, Observation::AgentStarted { .. });
    env.tracer
        .with(0, |entries| entries.iter().filter(is_start).count() as u64)
}

fn handle(killer: &Killer, send: Option<SendOp>) -> AgentHandle {
    let killer = killer.clone();
    AgentHandle {
        send,
        kill: Box::new(move || killer.kill()),
    }
}

/// How injected ops reach the agent.
fn sender(submitter: Submitter) -> SendOp {
    Box::new(move |id, op| {
        let submitter = submitter.clone();
        Box::pin(async move {
            let op = queue_protocol::op(&op).map_err(|error| error.to_string())?;
            let submitted = submitter.submit(Submission { id: id.into(), op }).await;
            submitted.map_err(|closed| closed.to_string())
        })
    })
}

impl InProcessSession {
    /// Starts the agent on a new conversation.
    pub(super) async fn start(
        env: CaseEnv,
        defects: DefectSet,
    ) -> Result<Box<dyn AgentSession>, AgentError> {
        let mut session = Self {
            env,
            defects,
            rollout: None,
            running: None,
            drain: None,
        };
        session.start_agent().await?;
        Ok(Box::new(session))
    }

    /// Starts the agent, on the conversation's rollout if there is one.
    async fn start_agent(&mut self) -> Result<(), AgentError> {
        let seen = self.env.tracer.len();
        // Read from here on, even if the agent is killed as it starts.
        if let Some(path) = &self.rollout {
            self.env.rollout.set_path(path);
        }
        let started = RunningAgent::start(&self.env, self.defects, self.rollout.clone()).await?;
        (self.running, self.drain) = started.unzip();
        if let Some(running) = &self.running {
            self.rollout = Some(running.agent.rollout_path().to_owned());
        } else if self.rollout.is_none() {
            let stored = |observation: &Observation| match observation {
                Observation::Stored { path, .. } => Some(PathBuf::from(path)),
                _ => None,
            };
            self.rollout = self.env.tracer.find(seen, stored).map(|(_, path)| path);
            if let Some(path) = &self.rollout {
                self.env.rollout.set_path(path);
            }
        }
        Ok(())
    }

    fn end_limit(&self) -> Duration {
        let timed_out = |observation: &Observation| {
            matches!(observation, Observation::TimedOut { .. }).then_some(())
        };
        match self.env.tracer.find(0, timed_out) {
            Some(_) => self.env.limit.min(HUNG_LIMIT),
            None => self.env.limit,
        }
    }

    /// Ends the agent in good order, or else by force. May be cancelled and called again.
    async fn end(&mut self) -> Result<(), AgentError> {
        if self.drain.is_none() {
            return Ok(());
        }
        let limit = self.end_limit();
        let waited = match &self.running {
            Some(running) => self.shut_down(running, limit).await,
            None => Ok(()),
        };
        self.kill_agent(limit).await;
        AgentExit::expected().record(&self.env);
        waited
    }

    /// Asks the agent to shut down, and waits until it has.
    async fn shut_down(&self, running: &RunningAgent, limit: Duration) -> Result<(), AgentError> {
        let submission = Submission {
            id: "shutdown".into(),
            op: Op::Shutdown,
        };
        // It may have been asked before; and if it is killed meanwhile, it does not report its end.
        let ended = |observation: &Observation| {
            matches!(
                observation,
                Observation::AgentKilled
                    | Observation::Event {
                        event: AgentEvent::ShutdownComplete,
                        ..
                    }
            )
            .then_some(())
        };
        // A closed queue means that the session has ended already.
        if running.agent.submit(submission).await.is_err() {
            return Ok(());
        }
        match self.env.tracer.wait(running.since, limit, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AgentError::TimedOut {
                what: "shut down".to_owned(),
                limit,
            }),
        }
    }

    /// Kills the agent, if it still runs, and waits until nothing of it is left.
    async fn kill_agent(&mut self, limit: Duration) {
        if let Some(RunningAgent { agent, .. }) = self.running.take() {
            agent.kill();
        }
        if let Some(drain) = &mut self.drain {
            let _ = tokio::time::timeout(limit, drain).await;
        }
        self.drain = None;
    }
}

#[async_trait]
impl AgentSession for InProcessSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let op = queue_protocol::op(op)?;
        if op == Op::Shutdown {
            return self.end().await;
        }
        let Some(running) = &self.running else {
            return Err(AgentError::Died("its session was closed".to_owned()));
        };
        let submission = Submission { id: id.into(), op };
        let submitted = running.agent.submit(submission).await;
        submitted.map_err(|error| AgentError::Died(error.to_string()))
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.kill_agent(self.env.limit).await;
        self.env.rollout.read(ReadTrigger::Exit);
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        self.start_agent().await
    }

    async fn fork(&mut self, id: &str) -> Result<(), AgentError> {
        let env = self.env.clone();
        let path = queue_protocol::fork(self, &env, id).await?;
        self.rollout = Some(path);
        self.resume().await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.end().await
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn processes(&self) -> Vec<Process> {
        tool_processes(&self.env, None)
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
