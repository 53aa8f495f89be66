//! The calls by which a model starts and directs sub-agents.

use std::sync::Arc;

use cutpoint_protocol::session::{AbortReason, EventMsg};
use serde_json::{Value, json};

use super::agents::{SubAgentHandle, SubAgentStatus, SubAgents};
use super::runner::input;
use crate::defect::Defect;
use crate::tools::{CallError, call_text};
use crate::turn::RunningCall;

/// What a call wants of a sub-agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubAgentCall {
    /// A one-shot is to do something; its last message is the output.
    OneShot(String),
    /// A sub-agent is to begin with something; its id is the output.
    Spawn(String),
    /// Input for a sub-agent.
    Send { agent: String, message: String },
    /// A sub-agent's last message is wanted, once it has nothing to do.
    Wait(String),
    /// A sub-agent is to end.
    Close(String),
}

impl SubAgentCall {
    /// Whether a tool of that name has to do with sub-agents.
    pub(crate) fn is_tool(name: &str) -> bool {
        let names = [
            "delegate",
            "spawn_agent",
            "send_input",
            "wait_agent",
            "close_agent",
        ];
        names.contains(&name)
    }

    /// What a call of that tool wants.
    ///
    /// # Errors
    /// What is wrong with the arguments, for the model to read.
    pub(crate) fn of(name: &str, arguments: &Value) -> Result<Self, CallError> {
        let text = |field: &str| {
            let text = arguments[field].as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned)
                .ok_or_else(|| format!("`{field}` must be a string that is not empty"))
        };
        Ok(match name {
            "delegate" => Self::OneShot(text("task")?),
            "spawn_agent" => Self::Spawn(text("task")?),
            "send_input" => Self::Send {
                agent: text("agent_id")?,
                message: text("message")?,
            },
            "wait_agent" => Self::Wait(text("agent_id")?),
            _ => Self::Close(text("agent_id")?),
        })
    }
}

impl RunningCall {
    /// Does what a call wants of a sub-agent. Cancelled with its turn, the call has no output; the
    /// sub-agent sees the cancellation itself.
    pub(crate) async fn delegation(self, wanted: SubAgentCall) {
        self.turn
            .with_call(&self.call_id, |call| call.started = true);
        let output = tokio::select! {
            biased;
            () = self.turn.token.cancelled() => return,
            output = self.outcome(wanted) => output,
        };
        self.output(output.unwrap_or_else(|why| call_text::failed(&why)));
    }

    async fn outcome(&self, wanted: SubAgentCall) -> Result<String, CallError> {
        match wanted {
            SubAgentCall::OneShot(task) => {
                let agent = self.start(task, true);
                let status = agent.until(|status| status.idle).await;
                self.done(status)
            }
            SubAgentCall::Spawn(task) => {
                let agent = self.start(task, false);
                let begun = |status: &SubAgentStatus| status.id.is_some() || status.end.is_some();
                let status = agent.until(begun).await;
                match status.id {
                    Some(id) => Ok(json!({"agent_id": id}).to_string()),
                    None => Err(why(status)),
                }
            }
            SubAgentCall::Send { agent, message } => {
                let agent = self.find(&agent)?;
                let taken = match &agent.ops {
                    Some(ops) if agent.status.borrow().end.is_none() => {
                        ops.send(input(&message)).await.is_ok()
                    }
                    _ => false,
                };
                match taken {
                    true => Ok("status: completed, the agent has it".to_owned()),
                    false => Err("the agent has ended and takes no input".into()),
                }
            }
            SubAgentCall::Wait(agent) => {
                let agent = self.find(&agent)?;
                let status = agent.until(|status| status.idle).await;
                self.done(status)
            }
            SubAgentCall::Close(agent) => {
                let agent = self.find(&agent)?;
                agent.token.cancel();
                agent.ended().await;
                if self.core.has(Defect::CloseEndsParent) {
                    self.abort_turn().await;
                }
                Ok("status: completed, the agent has ended".to_owned())
            }
        }
    }

    fn start(&self, task: String, one_shot: bool) -> Arc<SubAgentHandle> {
        SubAgents::start(&self.core, &self.turn, &self.call_id, task, one_shot)
    }

    fn find(&self, id: &str) -> Result<Arc<SubAgentHandle>, CallError> {
        let found = self.turn.agents.find(id);
        found.ok_or_else(|| format!("this turn has started no agent `{id}`").into())
    }

    fn done(&self, status: SubAgentStatus) -> Result<String, CallError> {
        match (&status.failure, &status.last_message) {
            (None, Some(message)) => Ok(message.clone()),
            (None, None) if status.turns > 0 => Ok(String::new()),
            _ => Err(why(status)),
        }
    }

    /// For a planted defect: aborts the turn without an interrupt.
    async fn abort_turn(&self) {
        if self.core.take(&self.turn).is_some() {
            let (turn_id, reason) = (self.turn.id.clone(), AbortReason::Interrupted);
            self.emit(EventMsg::TurnAborted { turn_id, reason }).await;
        }
    }
}

/// Why a sub-agent has nothing to say.
fn why(status: SubAgentStatus) -> CallError {
    let failure = status.failure.map(CallError::from);
    failure.unwrap_or_else(|| "the agent ended before it said anything".into())
}
