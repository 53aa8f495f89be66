//! One line about each entry of a trace.

use cutpoint_check::trace::{
    AgentEvent, ClientOp, Decision, Entry, ReadTrigger, StreamEnd, TurnEnd, What,
};
use cutpoint_report::{describe_entry, describe_what};
use serde_json::{Value, json};

use crate::samples::observations;

#[test]
fn a_run_reads_like_a_story() {
    let entry = |(at, what)| Entry {
        seq: at as u64,
        at_ns: 1_234_567 * at as u64,
        what,
    };
    let lines: Vec<String> = observations()
        .into_iter()
        .enumerate()
        .map(|pair| describe_entry(&entry(pair)))
        .collect();
    insta::assert_snapshot!("story", lines.join("\n"));
}

fn event(event: AgentEvent) -> What {
    What::Event {
        event,
        raw: Value::Null,
    }
}

fn rare() -> Vec<What> {
    let (id, call_id) = (String::from("4"), String::from("call_1"));
    let approval = ClientOp::Approval {
        call_id: call_id.clone(),
        decision: Decision::Abort,
    };
    let answer = ClientOp::Answer {
        call_id: call_id.clone(),
        text: "yes".into(),
    };
    let delta = json!({"type": "response.output_text.delta", "delta": "Sto"});
    let sent = |data| What::Sent {
        exchange: 1,
        index: 2,
        data,
    };
    let failed = TurnEnd::Failed {
        message: "stream error".into(),
    };
    let history = vec![
        json!({"type": "reasoning"}),
        json!(3),
        json!({"type": "local_shell_call"}),
    ];
    let many: Vec<Value> = (0..9)
        .map(|n| json!({"role": "user", "content": format!("message number {n} is long")}))
        .collect();
    let request = |conversation, path: &str, body, history| What::Request {
        exchange: 3,
        conversation,
        path: path.into(),
        body,
        history,
    };
    vec![
        What::Released {
            point: "idle".into(),
        },
        What::Op {
            id: id.clone(),
            op: approval,
        },
        What::Op {
            id: id.clone(),
            op: answer,
        },
        What::Op {
            id: id.clone(),
            op: ClientOp::Interrupt { turn_id: None },
        },
        What::Op {
            id: id.clone(),
            op: ClientOp::Shutdown,
        },
        What::OpReply {
            id: id.clone(),
            turn_id: Some("t".into()),
            error: None,
        },
        What::OpReply {
            id: id.clone(),
            turn_id: None,
            error: None,
        },
        What::OpReply {
            id,
            turn_id: None,
            error: Some("no active turn".into()),
        },
        request(1, "/responses/compact", json!({"input": "hi"}), None),
        request(
            0,
            "/responses",
            json!({"input": [], "previous_response_id": "r"}),
            Some(history),
        ),
        request(0, "/responses", json!({"input": many}), None),
        request(0, "/models", Value::Null, None),
        What::Refused {
            exchange: 2,
            status: 400,
            message: "No tool output found for function call call_1.".into(),
        },
        What::Unscripted {
            exchange: 2,
            message: "all 2 replies are used up".into(),
        },
        What::ResponseHead {
            exchange: 2,
            status: 200,
            reply: Some(2),
        },
        What::ResponseBody {
            exchange: 2,
            body: json!({"error": {"message": "slow down"}}),
        },
        sent(delta),
        sent(json!("{\"type\": \"respon")),
        What::SentPart {
            exchange: 1,
            index: 3,
            bytes: 17,
        },
        What::StreamEnd {
            exchange: 1,
            how: StreamEnd::Reset,
        },
        What::StreamEnd {
            exchange: 1,
            how: StreamEnd::Cut,
        },
        What::Disconnected { exchange: 1 },
        event(AgentEvent::TurnEnded {
            turn_id: None,
            end: failed,
        }),
        event(AgentEvent::TextDelta {
            turn_id: Some("t".into()),
            text: "a\nb".into(),
        }),
        event(AgentEvent::ApprovalRequest {
            turn_id: None,
            call_id: call_id.clone(),
        }),
        event(AgentEvent::CallEnd {
            turn_id: None,
            call_id,
            exit_code: None,
            output: "x".repeat(500),
        }),
        event(AgentEvent::Background {
            message: "retrying 1/5".into(),
        }),
        event(AgentEvent::Other {
            turn_id: None,
            name: "token_count".into(),
        }),
        What::RolloutUnreadable {
            trigger: ReadTrigger::Exit,
            path: "a/b.jsonl".into(),
            error: "no such file".into(),
        },
        What::Processes {
            alive: vec![],
            at_end: false,
        },
        What::AgentStarted {
            pid: Some(12),
            resumed: true,
        },
        What::AgentKilled,
        What::AgentExited {
            code: Some(101),
            expected: false,
            stderr: "panicked at src/x.rs\n".into(),
        },
        What::Garbage {
            text: "\u{1b}[1mnot json".into(),
        },
        What::TimedOut {
            waiting_for: "turn-aborted".into(),
            limit_ms: 2000,
        },
        What::Trouble {
            message: "disk full".into(),
        },
    ]
}

#[test]
fn rare_entries() {
    let lines: Vec<String> = rare().iter().map(describe_what).collect();
    insta::assert_snapshot!("rare", lines.join("\n"));
    assert!(
        lines
            .iter()
            .all(|line| line.chars().count() <= 150 && !line.contains(char::is_control))
    );
}
