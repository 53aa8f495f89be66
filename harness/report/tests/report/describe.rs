//! One line about each entry of a trace.

use cutpoint_report::{describe_entry, describe_observation};
use cutpoint_trace::{Entry, Observation};
use serde_json::json;

use crate::samples::observations;

#[test]
fn a_run_reads_like_a_story() {
    let entry = |(at, what)| Entry {
        seq: at as u64,
        at_ns: 1_234_567 * at as u64,
        observation: what,
    };
    let lines: Vec<String> = observations()
        .into_iter()
        .enumerate()
        .map(|pair| describe_entry(&entry(pair)))
        .collect();
    insta::assert_snapshot!("story", lines.join("\n"));
}

/// Observations that the story above has none of, as a trace stores them.
const RARE: &[&str] = &[
    r#"{"kind":"released","point":"idle"}"#,
    r#"{"kind":"op","id":"4","op":{"type":"approval","call_id":"call_1","decision":"abort"}}"#,
    r#"{"kind":"op","id":"4","op":{"type":"answer","call_id":"call_1","text":"yes"}}"#,
    r#"{"kind":"op","id":"4","op":{"type":"interrupt","turn_id":null}}"#,
    r#"{"kind":"op","id":"4","op":{"type":"shutdown"}}"#,
    r#"{"kind":"op_reply","id":"4","turn_id":"t","error":null}"#,
    r#"{"kind":"op_reply","id":"4","turn_id":null,"error":null}"#,
    r#"{"kind":"op_reply","id":"4","turn_id":null,"error":"no active turn"}"#,
    r#"{"kind":"request","exchange":3,"conversation":1,"path":"/responses/compact","body":{"input":"hi"}}"#,
    r#"{"kind":"request","exchange":3,"conversation":0,"path":"/responses","body":{"input":[]},"history":[{"type":"reasoning"},3,{"type":"local_shell_call"}]}"#,
    r#"{"kind":"request","exchange":3,"conversation":0,"path":"/models","body":null}"#,
    r#"{"kind":"refused","exchange":2,"status":400,"message":"No tool output found for function call call_1."}"#,
    r#"{"kind":"unscripted","exchange":2,"message":"all 2 replies are used up"}"#,
    r#"{"kind":"response_head","exchange":2,"status":200,"reply":2}"#,
    r#"{"kind":"response_body","exchange":2,"body":{"error":{"message":"slow down"}}}"#,
    r#"{"kind":"sent","exchange":1,"index":2,"data":{"type":"response.output_text.delta","delta":"Sto"}}"#,
    r#"{"kind":"sent","exchange":1,"index":2,"data":"{\"type\": \"respon"}"#,
    r#"{"kind":"sent_part","exchange":1,"index":3,"bytes":17}"#,
    r#"{"kind":"stream_end","exchange":1,"how":"reset"}"#,
    r#"{"kind":"stream_end","exchange":1,"how":"cut"}"#,
    r#"{"kind":"disconnected","exchange":1}"#,
    r#"{"kind":"event","event":{"type":"turn_ended","turn_id":null,"end":{"how":"failed","message":"stream error"}}}"#,
    r#"{"kind":"event","event":{"type":"text_delta","turn_id":"t","text":"a\nb"}}"#,
    r#"{"kind":"event","event":{"type":"approval_request","turn_id":null,"call_id":"call_1"}}"#,
    r#"{"kind":"event","event":{"type":"call_output","turn_id":null,"call_id":"call_1","chunk":"x"}}"#,
    r#"{"kind":"event","event":{"type":"call_end","turn_id":null,"call_id":"call_1","exit_code":0,"output":""}}"#,
    r#"{"kind":"event","event":{"type":"background","message":"retrying 1/5"}}"#,
    r#"{"kind":"event","event":{"type":"other","turn_id":null,"name":"token_count"}}"#,
    r#"{"kind":"rollout_unreadable","trigger":{"on":"exit"},"path":"a/b.jsonl","error":"no such file"}"#,
    r#"{"kind":"stored","path":"a/b.jsonl","done":{"what":"written","bytes":17}}"#,
    r#"{"kind":"stored","path":"a/b.jsonl","done":{"what":"synced"}}"#,
    r#"{"kind":"processes","alive":[],"at_end":false}"#,
    r#"{"kind":"agent_started","pid":12,"resumed":true}"#,
    r#"{"kind":"agent_killed"}"#,
    r#"{"kind":"agent_exited","code":101,"expected":false,"stderr":"panicked at src/x.rs\n"}"#,
    r#"{"kind":"garbage","text":"\u001b[1mnot json"}"#,
    r#"{"kind":"timed_out","waiting_for":"turn-aborted","limit_ms":2000}"#,
    r#"{"kind":"trouble","message":"disk full"}"#,
];

fn rare() -> Vec<Observation> {
    let long = json!({"kind": "event", "event": {
        "type": "call_end", "turn_id": null, "call_id": "c", "exit_code": null, "output": "x".repeat(500),
    }});
    let messages =
        (0..9).map(|n| json!({"role": "user", "content": format!("message number {n} is long")}));
    let many = json!({
        "kind": "request", "exchange": 3, "conversation": 0, "path": "/responses",
        "body": {"input": messages.collect::<Vec<_>>()},
    });
    let stored = RARE.iter().map(|text| serde_json::from_str(text).unwrap());
    let made = [long, many].map(|value| serde_json::from_value(value).unwrap());
    stored.chain(made).collect()
}

#[test]
fn rare_entries() {
    let lines: Vec<String> = rare().iter().map(describe_observation).collect();
    insta::assert_snapshot!("rare", lines.join("\n"));
    assert!(
        lines
            .iter()
            .all(|line| line.chars().count() <= 120 && !line.contains(char::is_control))
    );
}
