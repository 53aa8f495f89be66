//! Drives the agent: its wishes are the client's ops, what it tells are the trace's events.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cutpoint_engine::driver::{AgentError, AgentSession, CaseEnv, Driver};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{
    AbortReason, AgentEvent, AgentInfo, ClientOp, Feature, Observation, Process, RawMessage,
    TurnEnd,
};
use own_agent::{Agent, Told, Wish};
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
            // Rules about what the agent does not have, such as rollouts, say so and do not count.
            features: BTreeSet::from([Feature::TurnIds, Feature::Marker]),
            defects: Vec::new(),
        }
    }

    fn capabilities(&self, _needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        BTreeSet::new()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        let (wishes, wanted) = unbounded_channel();
        let (told, mut events) = unbounded_channel();
        let mut agent = Agent::new(&env.base_url, told);
        agent.forgets_calls = self.forgets_calls;
        env.tracer.record(Observation::AgentStarted {
            pid: None,
            resumed: false,
        });
        let tracer = env.tracer.clone();
        let running = tokio::spawn(async move {
            let work = tokio::spawn(agent.run(wanted));
            while let Some(told) = events.recv().await {
                let raw = RawMessage::of(&format!("{told:?}"));
                let event = event(told);
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
            wishes: Some(wishes),
            running,
        }))
    }
}

fn event(told: Told) -> AgentEvent {
    let ended = |turn: u64, end| AgentEvent::TurnEnded {
        turn_id: Some(turn.to_string().into()),
        end,
    };
    match told {
        Told::Started(turn) => AgentEvent::TurnStarted {
            turn_id: turn.to_string().into(),
        },
        Told::Text(turn, text) => AgentEvent::TextDelta {
            turn_id: Some(turn.to_string().into()),
            text,
        },
        Told::Complete(turn) => ended(turn, TurnEnd::Complete),
        Told::Failed(turn, message) => ended(turn, TurnEnd::Failed { message }),
        Told::Aborted(turn) => {
            let reason = Some(AbortReason::Interrupted);
            ended(turn, TurnEnd::Aborted { reason })
        }
    }
}

struct OwnSession {
    /// Dropped when the user leaves.
    wishes: Option<UnboundedSender<Wish>>,
    running: JoinHandle<()>,
}

#[async_trait]
impl AgentSession for OwnSession {
    async fn submit(&mut self, _id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let wish = match op {
            ClientOp::Input { text, .. } => Wish::Say(text.clone()),
            ClientOp::Interrupt { .. } => Wish::Interrupt,
            ClientOp::Shutdown => return self.finish().await,
            _ => return Err(AgentError::UnsupportedOp),
        };
        let sent = self.wishes.as_ref().map(|wishes| wishes.send(wish));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(AgentError::Died("it listens no more".to_owned())),
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
        self.wishes = None;
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
