//! Requests that the agent makes of its client: approvals and questions.

use std::collections::VecDeque;
use std::sync::Mutex;

use cutpoint_protocol::ids::{CallId, ConversationId};
use cutpoint_protocol::session::{Decision, EventMsg, Op};
use serde_json::{Value, json};

use crate::lock;

/// How many requests may wait for an answer; beyond, the oldest are forgotten. Their turns ended
/// long ago, or their client never answers.
const WAITING: usize = 1024;

/// The op that carries an answer to the call that waits for it.
type ToOp = fn(CallId, &Value) -> Op;

/// A request that waits for the client's answer.
#[derive(Debug)]
pub(super) struct ClientRequest {
    pub(super) thread_id: ConversationId,
    call_id: CallId,
    to_op: ToOp,
}

impl ClientRequest {
    /// The op that says what the client answered.
    pub(super) fn op(self, result: &Value) -> Op {
        (self.to_op)(self.call_id, result)
    }
}

/// The requests of all conversations that wait.
#[derive(Debug, Default)]
pub(super) struct ClientRequests(Mutex<PendingRequests>);

#[derive(Debug, Default)]
struct PendingRequests {
    next: u64,
    asks: VecDeque<(u64, ClientRequest)>,
}

impl ClientRequests {
    /// The request that an event of a conversation asks for, if it asks for one.
    pub(super) fn request(&self, thread_id: &ConversationId, msg: &EventMsg) -> Option<Value> {
        let (method, call_id, to_op) = asks(msg)?;
        let ask = ClientRequest {
            thread_id: thread_id.to_owned(),
            call_id: call_id.to_owned(),
            to_op,
        };
        let id = {
            let mut waiting = lock(&self.0);
            let id = waiting.next;
            waiting.next += 1;
            waiting.asks.push_back((id, ask));
            if waiting.asks.len() > WAITING {
                waiting.asks.pop_front();
            }
            id
        };
        let turn_id = msg.turn_id();
        let params =
            json!({"threadId": thread_id, "turnId": turn_id, "callId": call_id, "msg": msg});
        Some(json!({"id": id, "method": method, "params": params}))
    }

    /// The request that an answer belongs to. Each is answered once.
    pub(super) fn take(&self, id: &Value) -> Option<ClientRequest> {
        let id = id.as_u64()?;
        let mut waiting = lock(&self.0);
        let at = waiting.asks.iter().position(|(of, _)| *of == id)?;
        waiting.asks.remove(at).map(|(_, ask)| ask)
    }
}

/// What an event asks the client: the method, the call that waits, what becomes of the answer.
fn asks(msg: &EventMsg) -> Option<(&'static str, &CallId, ToOp)> {
    match msg {
        EventMsg::ExecApprovalRequest { call_id, .. } => {
            Some(("approval/request", call_id, |call_id, result| {
                let decision = decision(result);
                Op::ExecApproval { call_id, decision }
            }))
        }
        EventMsg::ApplyPatchApprovalRequest { call_id, .. } => {
            Some(("approval/request", call_id, |call_id, result| {
                let decision = decision(result);
                Op::PatchApproval { call_id, decision }
            }))
        }
        EventMsg::UserInputRequest { call_id, .. } => {
            Some(("question/request", call_id, |call_id, result| {
                let answers = result.get("answers").cloned().unwrap_or_default();
                let answers = serde_json::from_value(answers).unwrap_or_default();
                Op::UserInputAnswer { call_id, answers }
            }))
        }
        _ => None,
    }
}

/// What the client decided. An answer that can't be read, or an error, allows nothing.
fn decision(result: &Value) -> Decision {
    let decision = result.get("decision").cloned().unwrap_or_default();
    serde_json::from_value(decision).unwrap_or(Decision::Denied)
}

#[cfg(test)]
mod tests {
    use cutpoint_protocol::ids::TurnId;

    use super::*;

    fn command(call_id: &CallId) -> EventMsg {
        EventMsg::ExecApprovalRequest {
            turn_id: "t".into(),
            call_id: call_id.to_owned(),
            command: vec!["ls".to_owned()],
        }
    }

    #[test]
    fn an_answer_finds_its_call_once() {
        let asks = ClientRequests::default();
        let first = asks
            .request(&"thread".into(), &command(&"c1".into()))
            .unwrap();
        let second = asks
            .request(&"thread".into(), &command(&"c2".into()))
            .unwrap();
        assert_eq!(second["params"]["callId"], "c2");
        assert_eq!(second["params"]["msg"]["command"], json!(["ls"]));
        let ask = asks.take(&second["id"]).unwrap();
        let (call_id, decision) = ("c2".into(), Decision::Approved);
        let expected = Op::ExecApproval { call_id, decision };
        assert_eq!(ask.op(&json!({"decision": "approved"})), expected);
        assert!(asks.take(&second["id"]).is_none());
        let (call_id, decision) = ("c1".into(), Decision::Denied);
        let denied = Op::ExecApproval { call_id, decision };
        assert_eq!(asks.take(&first["id"]).unwrap().op(&Value::Null), denied);
        assert!(asks.take(&json!("x")).is_none());
    }

    #[test]
    fn questions_and_patches_are_asked_too() {
        let asks = ClientRequests::default();
        let (turn_id, call_id) = (TurnId::from("t"), CallId::from("c"));
        let question = EventMsg::UserInputRequest {
            turn_id: turn_id.clone(),
            call_id: call_id.clone(),
            questions: vec!["why?".to_owned()],
        };
        let request = asks.request(&"thread".into(), &question).unwrap();
        assert_eq!(request["method"], "question/request");
        let op = asks.take(&request["id"]).unwrap();
        let answers = vec!["so".to_owned()];
        let expected = Op::UserInputAnswer {
            call_id: call_id.clone(),
            answers,
        };
        assert_eq!(op.op(&json!({"answers": ["so"]})), expected);
        let patch = EventMsg::ApplyPatchApprovalRequest {
            turn_id,
            call_id,
            paths: vec![],
        };
        let request = asks.request(&"thread".into(), &patch).unwrap();
        let op = asks
            .take(&request["id"])
            .unwrap()
            .op(&json!({"decision": "abort"}));
        assert!(matches!(
            op,
            Op::PatchApproval {
                decision: Decision::Abort,
                ..
            }
        ));
    }

    #[test]
    fn requests_that_nobody_answers_are_forgotten() {
        let asks = ClientRequests::default();
        let ids: Vec<Value> = (0..=WAITING)
            .map(|_| {
                asks.request(&"thread".into(), &command(&"c".into()))
                    .unwrap()["id"]
                    .clone()
            })
            .collect();
        assert!(asks.take(&ids[0]).is_none());
        assert!(asks.take(&ids[1]).is_some());
    }
}
