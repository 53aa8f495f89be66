//! Notifications of Codex's app-server (protocol v2), as the trace names them.

use cutpoint_protocol::ids::TurnId;
use cutpoint_trace::{AbortReason, AgentEvent, TurnEnd};
use serde_json::Value;

/// What a notification means. A notification that belongs to no thread means nothing to a case.
pub fn meaning(method: &str, params: &Value) -> AgentEvent {
    let turn_id = params["turnId"]
        .as_str()
        .or_else(|| params["turn"]["id"].as_str())
        .map(TurnId::from);
    let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
    let item = &params["item"];
    match method {
        "turn/started" => match turn_id {
            Some(turn_id) => AgentEvent::TurnStarted { turn_id },
            None => other(method, None),
        },
        "turn/completed" => AgentEvent::TurnEnded {
            turn_id,
            end: turn_end(&params["turn"]),
        },
        "item/agentMessage/delta" => AgentEvent::TextDelta {
            turn_id,
            text: text("delta"),
        },
        "item/commandExecution/outputDelta" => AgentEvent::CallOutput {
            turn_id,
            call_id: text("itemId").into(),
            chunk: text("delta"),
        },
        "item/started" if item["type"] == "commandExecution" => AgentEvent::CallBegin {
            turn_id,
            call_id: string(&item["id"]).into(),
            command: string(&item["command"]),
            pid: None,
        },
        "item/completed" if item["type"] == "commandExecution" => AgentEvent::CallEnd {
            turn_id,
            call_id: string(&item["id"]).into(),
            exit_code: item["exitCode"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok()),
            output: string(&item["aggregatedOutput"]),
        },
        "item/completed" if item["type"] == "agentMessage" => AgentEvent::Message {
            turn_id,
            text: string(&item["text"]),
        },
        "item/completed" if item["type"] == "contextCompaction" => {
            AgentEvent::Compacted { turn_id }
        }
        "item/commandExecution/requestApproval" => AgentEvent::ApprovalRequest {
            turn_id,
            call_id: text("itemId").into(),
        },
        "error" => AgentEvent::Error {
            turn_id,
            message: string(&params["error"]["message"]),
        },
        "warning" => AgentEvent::Background {
            message: text("message"),
        },
        _ => other(method, turn_id),
    }
}

fn other(method: &str, turn_id: Option<TurnId>) -> AgentEvent {
    AgentEvent::Other {
        turn_id,
        name: method.to_owned(),
    }
}

/// The app-server calls an abort `interrupted`; it knows no other reason.
fn turn_end(turn: &Value) -> TurnEnd {
    match turn["status"].as_str() {
        Some("completed") => TurnEnd::Complete,
        Some("interrupted") => TurnEnd::Aborted {
            reason: Some(AbortReason::Interrupted),
        },
        _ => TurnEnd::Failed {
            message: string(&turn["error"]["message"]),
        },
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_interrupted_turn_is_an_abort() {
        let params =
            json!({"threadId": "t", "turn": {"id": "7", "status": "interrupted", "error": null}});
        let end = TurnEnd::Aborted {
            reason: Some(AbortReason::Interrupted),
        };
        let expected = AgentEvent::TurnEnded {
            turn_id: Some("7".into()),
            end,
        };
        assert_eq!(meaning("turn/completed", &params), expected);
    }

    #[test]
    fn an_unknown_notification_keeps_its_name_and_turn() {
        let params = json!({"threadId": "t", "turnId": "7", "x": 1});
        let expected = AgentEvent::Other {
            turn_id: Some("7".into()),
            name: "thread/novelty".into(),
        };
        assert_eq!(meaning("thread/novelty", &params), expected);
    }
}
