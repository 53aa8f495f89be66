//! One case: the conversation that its steps are about.

use std::path::PathBuf;

use async_trait::async_trait;
use cutpoint_trace::{ClientOp, Process};

use super::Launch;
use super::connection::Connection;
use crate::driver::kit::env::tool_processes;
use crate::driver::{AgentError, AgentSession, CaseEnv};

pub(in crate::driver) struct JsonRpcSession {
    env: CaseEnv,
    launch: Launch,
    connection: Connection,
    rollout: PathBuf,
}

impl JsonRpcSession {
    /// Starts the agent and a conversation.
    pub(in crate::driver) async fn start(
        env: CaseEnv,
        launch: Launch,
    ) -> Result<Box<dyn AgentSession>, AgentError> {
        let (connection, rollout) = Connection::start(&launch, &env, None).await?;
        Ok(Box::new(Self {
            env,
            launch,
            connection,
            rollout,
        }))
    }
}

#[async_trait]
impl AgentSession for JsonRpcSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        if *op == ClientOp::Shutdown {
            return self.connection.end(&self.env).await;
        }
        let sent = self.connection.ops.send(id, op);
        if let Err(AgentError::Died(_)) = sent {
            // How it ended is seen before the case goes on.
            self.connection.supervisor.recorded().await;
        }
        sent
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.connection.kill().await
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let resume = Some(self.rollout.as_path());
        let started = Connection::start(&self.launch, &self.env, resume).await?;
        (self.connection, self.rollout) = started;
        Ok(())
    }

    async fn fork(&mut self, _id: &str) -> Result<(), AgentError> {
        Err(AgentError::UnsupportedOp)
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.connection.end(&self.env).await
    }

    fn ending(&self) -> Option<String> {
        self.connection.supervisor.ending()
    }

    fn pid(&self) -> Option<u32> {
        self.connection.supervisor.pid()
    }

    fn processes(&self) -> Vec<Process> {
        tool_processes(&self.env, self.pid())
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
