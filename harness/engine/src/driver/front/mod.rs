//! The reference agent through its JSON-RPC front, in this process or as one of its own: the same
//! client over other pipes.

mod caller;
mod link;
mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_agent::DefectSet;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, ClientOp, Feature, Process};

use self::link::Link;
use super::stdio::{How as Spawn, StdioCommand};
use super::{AgentError, CaseEnv, Driver, START_LIMIT, Session, reference};
use crate::process::{self, ProcessOwner};

/// How the driver is called.
pub(super) const NAME: &str = "json-rpc";

/// What can be observed of the agent through its front.
pub(super) fn features() -> BTreeSet<Feature> {
    let mut all = reference::features();
    // The client of the front has no view of its own.
    all.remove(&Feature::Transcript);
    all.extend([
        Feature::OpReplies,
        Feature::DeferredAnswers,
        Feature::CallerIds,
    ]);
    all
}

/// What scenarios may need of the agent if they need its front.
pub(super) fn capabilities() -> BTreeSet<Capability> {
    BTreeSet::from([
        Capability::Shell,
        Capability::CustomTools,
        Capability::LocalShell,
        Capability::Replace,
        Capability::Steer,
        Capability::Resume,
        Capability::ServerHistory,
        Capability::ShownOutput,
        Capability::Approvals,
        Capability::JsonRpc,
    ])
}

/// Where the agent runs.
#[derive(Debug, Clone)]
pub(super) enum How {
    /// In this process, with planted defects.
    InProcess(DefectSet),
    /// In a process of its own.
    Process(Spawn),
}

/// A driver of the reference agent as a process that speaks JSON-RPC.
#[derive(Debug)]
pub struct FrontDriver {
    spawn: Spawn,
    defects: Vec<String>,
}

impl FrontDriver {
    /// A driver for that program. `mark` is put into the environment of all it starts.
    pub fn new(command: StdioCommand, defects: Vec<String>, mark: &str) -> Self {
        let spawn = Spawn {
            command: command.with_defects(&defects),
            view: None,
            mark: mark.to_owned(),
            start_limit: START_LIMIT,
        };
        Self { spawn, defects }
    }

    /// Bounds how long the agent may take to start.
    pub fn start_limit(mut self, start_limit: Duration) -> Self {
        self.spawn.start_limit = start_limit;
        self
    }
}

#[async_trait]
impl Driver for FrontDriver {
    fn info(&self, _needs: &BTreeSet<Capability>) -> AgentInfo {
        AgentInfo {
            name: "reference".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: NAME.to_owned(),
            features: features(),
            defects: self.defects.clone(),
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        capabilities()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        FrontSession::start(env, How::Process(self.spawn.clone())).await
    }
}

/// One case: the conversation that its steps are about.
pub(super) struct FrontSession {
    env: CaseEnv,
    how: How,
    link: Link,
    rollout: PathBuf,
}

impl FrontSession {
    /// Starts the agent and a conversation.
    pub(super) async fn start(env: CaseEnv, how: How) -> Result<Box<dyn Session>, AgentError> {
        let (link, rollout) = Link::start(&how, &env, None).await?;
        Ok(Box::new(Self {
            env,
            how,
            link,
            rollout,
        }))
    }
}

#[async_trait]
impl Session for FrontSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        if *op == ClientOp::Shutdown {
            return self.link.end(&self.env).await;
        }
        let sent = self.link.caller.send(id, op);
        if let Err(AgentError::Died(_)) = sent {
            // How it ended is seen before the case goes on.
            self.link.wait_for_end().await;
        }
        sent
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.link.kill().await
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let (link, rollout) = Link::start(&self.how, &self.env, Some(&self.rollout)).await?;
        (self.link, self.rollout) = (link, rollout);
        Ok(())
    }

    async fn fork(&mut self, _id: &str) -> Result<(), AgentError> {
        Err(AgentError::Protocol("it knows no such op".to_owned()))
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.link.end(&self.env).await
    }

    fn ending(&self) -> Option<String> {
        let ending = self.link.process()?.ending()?;
        Some(ending.words.clone())
    }

    fn pid(&self) -> Option<u32> {
        self.link.process()?.pid()
    }

    fn processes(&self) -> Vec<Process> {
        if let Some(lab) = &self.env.lab {
            return lab.tools.processes();
        }
        let own = self.pid();
        let mut found = process::find(&ProcessOwner::Case(self.env.dir.clone()));
        found.retain(|process| Some(process.pid) != own);
        found
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
