//! Drives the agent: turns the client's operations into its commands, and its events into observations.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cutpoint_engine::driver::{AgentError, AgentSession, CaseEnv, Driver};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{
    AbortReason, AgentEvent, AgentInfo, ClientOp, Feature, Observation, Process, RawMessage,
    TurnEnd,
};
use own_agent::{Agent, Command, Event};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// The agent, with its bug or without.
pub struct OwnDriver {
    pub forgets_calls: bool,
}

#[async_trait]
impl Driver for OwnDriver {
    fn info(&self, _needs: &BTreeSet<Capability>) -> AgentInfo {
        AgentInfo {
            name: "own-agent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: "in-process".to_owned(),
            // Rules about features that the agent lacks, such as rollouts, are not applicable.
            features: BTreeSet::from([Feature::TurnIds, Feature::Marker]),
            defects: Vec::new(),
        }
    }

    fn capabilities(&self, _needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        BTreeSet::new()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        let (commands, command_queue) = unbounded_channel();
        let (events, mut event_queue) = unbounded_channel();
        let mut agent = Agent::new(&env.base_url, events);
        agent.forgets_calls = self.forgets_calls;
        env.tracer.record(Observation::AgentStarted {
            pid: None,
            resumed: false,
        });
        let tracer = env.tracer.clone();
        let running = tokio::spawn(async move {
            let work = tokio::spawn(agent.run(command_queue));
            while let Some(event) = event_queue.recv().await {
                let raw = RawMessage::of(&format!("{event:?}"));
                let event = observed(event);
                tracer.record(Observation::Event { event, raw });
            }
            // Its events have ended, and so has the agent.
            let expected = work.await.is_ok();
            tracer.record(Observation::AgentExited {
                code: None,
                expected,
                stderr: String::new(),
            });
        });
        Ok(Box::new(OwnSession {
            commands: Some(commands),
            running,
        }))
    }
}

fn observed(event: Event) -> AgentEvent {
    let ended = |turn: u64, end| AgentEvent::TurnEnded {
        turn_id: Some(turn.to_string().into()),
        end,
    };
    match event {
        Event::Started(turn) => AgentEvent::TurnStarted {
            turn_id: turn.to_string().into(),
        },
        Event::Text(turn, text) => AgentEvent::TextDelta {
            turn_id: Some(turn.to_string().into()),
            text,
        },
        Event::Complete(turn) => ended(turn, TurnEnd::Complete),
        Event::Failed(turn, message) => ended(turn, TurnEnd::Failed { message }),
        Event::Aborted(turn) => {
            let reason = Some(AbortReason::Interrupted);
            ended(turn, TurnEnd::Aborted { reason })
        }
    }
}

struct OwnSession {
    /// Dropped when the user leaves.
    commands: Option<UnboundedSender<Command>>,
    running: JoinHandle<()>,
}

#[async_trait]
impl AgentSession for OwnSession {
    async fn submit(&mut self, _id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let command = match op {
            ClientOp::Input { text, .. } => Command::Say(text.clone()),
            ClientOp::Interrupt { .. } => Command::Interrupt,
            ClientOp::Shutdown => return self.finish().await,
            _ => return Err(AgentError::UnsupportedOp),
        };
        let sent = self
            .commands
            .as_ref()
            .map(|commands| commands.send(command));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(AgentError::Died(
                "the agent has stopped listening".to_owned(),
            )),
        }
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        Err(AgentError::UnsupportedOp)
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        Err(AgentError::UnsupportedOp)
    }

    async fn fork(&mut self, _id: &str) -> Result<(), AgentError> {
        Err(AgentError::UnsupportedOp)
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.commands = None;
        let ended = (&mut self.running).await;
        ended.map_err(|error| AgentError::Died(error.to_string()))
    }

    fn processes(&self) -> Vec<Process> {
        Vec::new()
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}
