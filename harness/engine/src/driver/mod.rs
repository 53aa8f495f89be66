//! Drivers: how an agent is started, spoken to, and observed.
//!
//! A driver is a folder here and a line in the table of agents ([`agents::AGENTS`]). What drivers share
//! is in [`kit`].

pub mod agent_kind;
pub mod agents;
pub mod codex_app_server;
pub mod in_process;
pub mod kit;

mod json_rpc;
mod reference;
mod stdio;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, ClientOp, Process};
use tokio::sync::watch;

use self::kit::points::Points;
use crate::lab::Lab;
use crate::quiescence::QuietCount;
use crate::rollout_reader::RolloutReader;
use crate::screen::Screen;
use crate::tracer::Tracer;

/// How long each step of an agent's start may take by default. Released versions of Codex take up to
/// 0.6 s on a 2-core machine.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// Why an agent could not be driven on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    /// It is not there. Says how to get it.
    #[error("{0}")]
    NotInstalled(String),
    /// It could not be started, or did not get ready.
    #[error("the agent could not be started: {0}")]
    Start(String),
    /// It ended on its own.
    #[error("the agent ended unexpectedly: {0}")]
    Died(String),
    /// It answered what its protocol does not allow, or refused an op that it must take.
    #[error("the agent broke its protocol: {0}")]
    Protocol(String),
    /// Its protocol has no such op.
    #[error("the agent's protocol has no such op")]
    UnsupportedOp,
    /// It did not answer in time.
    #[error("the agent did not {what} within {} s", limit.as_secs_f64())]
    TimedOut {
        /// What it was to do.
        what: String,
        /// The limit.
        limit: Duration,
    },
}

/// What a session is started with.
#[derive(Clone)]
pub struct CaseEnv {
    /// Where the agent finds the model, without a slash at its end: `http://127.0.0.1:1234/c/7/v1`.
    pub base_url: String,
    /// Where observations go.
    pub tracer: Arc<Tracer>,
    /// Reads the session's rollout, whose path it gets from the driver.
    pub rollout: Arc<RolloutReader>,
    /// A directory of the case's own.
    pub dir: PathBuf,
    /// The world around the agent, if that is not the real one.
    pub lab: Option<Lab>,
    /// What the scenario needs of the agent.
    pub needs: BTreeSet<Capability>,
    /// The session needs a process of its own, because the scenario ends it.
    pub private: bool,
    /// The seed of everything random.
    pub seed: u64,
    /// Named points of the agent at which it is to be held.
    pub points: Arc<Points>,
    /// Whether the client reads the agent's events.
    pub event_client: Arc<EventClient>,
    /// How often the agent was quiet before it was acted upon at a gate.
    pub quiet: Arc<QuietCount>,
    /// What the session's user sees, where that is known.
    pub screen: Arc<Screen>,
    /// Upper bound of each single wait.
    pub limit: Duration,
    /// The model that the agent is to ask for; `None` for its own default.
    pub model: Option<String>,
}

/// The client as a reader of the agent's events, which may stop reading and go on later.
#[derive(Debug)]
pub struct EventClient(watch::Sender<bool>);

impl Default for EventClient {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl EventClient {
    /// Stops reading, or goes on.
    pub fn set_reading(&self, on: bool) {
        self.0.send_replace(on);
    }

    /// Returns when the client reads.
    pub async fn reads(&self) {
        // The sender lives in `self`, so the channel can't be closed.
        let _ = self.0.subscribe().wait_for(|on| *on).await;
    }
}

/// Drives one agent.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Who is driven, and how, for a scenario with these needs.
    fn info(&self, needs: &BTreeSet<Capability>) -> AgentInfo;

    /// What a scenario with these needs may need of the agent. One need may rule out others: some agents
    /// are driven in more than one way.
    fn capabilities(&self, needs: &BTreeSet<Capability>) -> BTreeSet<Capability>;

    /// The first thing that a scenario needs and the agent cannot do.
    fn lacks(&self, needs: &BTreeSet<Capability>) -> Option<Capability> {
        let can = self.capabilities(needs);
        needs.difference(&can).next().copied()
    }

    /// Starts a session. From here on everything that is observed goes to the case's trace.
    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError>;

    /// Ends what the sessions shared.
    async fn close(&self) {}
}

/// One session of an agent.
#[async_trait]
pub trait AgentSession: Send {
    /// Sends an op. Its answer, if the protocol has one, is observed like everything else.
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError>;

    /// Kills the agent as a crash would.
    async fn kill(&mut self) -> Result<(), AgentError>;

    /// Starts the agent again and continues the session from its rollout.
    async fn resume(&mut self) -> Result<(), AgentError>;

    /// Copies the conversation into a session of its own and goes on with the copy. What the first
    /// session does from here on is not observed.
    async fn fork(&mut self, id: &str) -> Result<(), AgentError>;

    /// Ends the session in good order; afterwards nothing more of it is observed.
    async fn finish(&mut self) -> Result<(), AgentError>;

    /// The processes that work for this session, without the agent itself.
    fn processes(&self) -> Vec<Process>;

    /// How the agent's process ended, as a clause, if it did so on its own.
    fn ending(&self) -> Option<String> {
        None
    }

    /// The agent's process; `None` if it runs in this one.
    fn pid(&self) -> Option<u32>;

    /// Whether the agent's process serves other cases meanwhile.
    fn shares_process(&self) -> bool {
        false
    }

    /// Whether `CallBegin` comes only when the tool's process is there.
    fn begins_after_spawn(&self) -> bool {
        false
    }
}
