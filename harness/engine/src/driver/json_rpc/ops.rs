//! How ops reach the agent: each by a method of the front.

use std::sync::Arc;

use cutpoint_trace::{ClientOp, Decision, InputMode};
use serde_json::{Value, json};

use super::inbox::Inbox;
use crate::driver::AgentError;
use crate::driver::kit::rpc::RpcClient;

/// The client's end of a running agent.
#[derive(Clone)]
pub(super) struct OpSender {
    pub(super) client: RpcClient,
    pub(super) inbox: Arc<Inbox>,
}

impl OpSender {
    /// Sends an op of the conversation that the case is about.
    pub(super) fn send(&self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        match op {
            ClientOp::Input {
                text,
                mode,
                turn_id,
            } => {
                let input = json!([{"type": "text", "text": text}]);
                match mode {
                    InputMode::Start | InputMode::Replace => {
                        let replace = *mode == InputMode::Replace;
                        let params = json!({"input": input, "turnId": turn_id, "replace": replace});
                        self.call(id, "turn/start", params)
                    }
                    InputMode::Steer => self.call(id, "turn/steer", json!({"input": input})),
                }
            }
            ClientOp::Interrupt { turn_id } => {
                self.call(id, "turn/interrupt", json!({"turnId": turn_id}))
            }
            ClientOp::Open { thread_id } => {
                self.request(id, "thread/start", &json!({"threadId": thread_id}))
            }
            ClientOp::Approval { call_id, decision } => {
                let word = match decision {
                    Decision::Approve => "approved",
                    Decision::Deny => "denied",
                    Decision::Abort => "abort",
                };
                self.answer(call_id, &json!({"decision": word}))
            }
            ClientOp::Answer { call_id, text } => self.answer(call_id, &json!({"answers": [text]})),
            ClientOp::Shutdown => self.request(id, "shutdown", &Value::Null),
            ClientOp::Task { .. } | ClientOp::Fork | ClientOp::Rollback { .. } => {
                Err(AgentError::UnsupportedOp)
            }
        }
    }

    /// Sends a request about the conversation.
    fn call(&self, id: &str, method: &str, mut params: Value) -> Result<(), AgentError> {
        params["threadId"] = json!(self.inbox.thread());
        self.request(id, method, &params)
    }

    /// Sends a request whose reply is recorded as the op's.
    fn request(&self, op: &str, method: &str, params: &Value) -> Result<(), AgentError> {
        let (inbox, name) = (self.inbox.clone(), op.to_owned());
        let on_reply = move |reply| inbox.answered(&name, reply);
        let sent = self.client.call(method, params, on_reply)?;
        self.inbox.sent(sent, op);
        Ok(())
    }

    /// Answers the agent's request for a call, even if its turn is over.
    fn answer(&self, call_id: &str, result: &Value) -> Result<(), AgentError> {
        let request = self.inbox.open_requests.find(call_id)?;
        self.client.answer(&request, result)
    }
}
