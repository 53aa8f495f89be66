//! Requests that do not ask for a stream.

use cutpoint_scenario::ast::{DisconnectKind, ReplyEnd};
use cutpoint_trace::{Observation, StreamEnd};
use serde_json::json;

use crate::rig::{Rig, function_part, reply, says, text_part, text_reply};

#[tokio::test]
async fn they_get_the_whole_response() {
    let parts = vec![text_part("some words", 3), function_part("call_1", 2)];
    let rig = Rig::replies(vec![reply(parts, ReplyEnd::Completed)], &[]).await;
    let mut request = says("hi");
    request["stream"] = json!(false);
    let (status, body) = rig.ask_json(&request).await;
    assert_eq!(
        (status, &body["id"], &body["status"]),
        (200, &json!("resp_1"), &json!("completed"))
    );
    assert_eq!(body["output"][0]["content"][0]["text"], "some words");
    assert_eq!(body["output"][1]["call_id"], "call_1");
    assert_eq!(rig.ends(), [(1, StreamEnd::Complete)]);
    assert_eq!(
        rig.count(|what| matches!(what, Observation::Sent { .. })),
        0
    );
}

#[tokio::test]
async fn a_response_is_whole_unless_a_stream_is_asked_for() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let (status, body) = rig.ask_json(&json!({"model": "m", "input": "hi"})).await;
    assert_eq!((status, &body["object"]), (200, &json!("response")));
}

#[tokio::test]
async fn a_reply_without_an_end_can_only_be_streamed() {
    let replies = vec![
        reply(vec![text_part("a", 1)], ReplyEnd::Drop(DisconnectKind::End)),
        text_reply("b"),
    ];
    let rig = Rig::replies(replies, &[]).await;
    let mut request = says("hi");
    request["stream"] = json!(false);
    let (status, body) = rig.ask_json(&request).await;
    assert_eq!(status, 500);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no terminal event"),
        "{body}"
    );
    let told = |what: &Observation| matches!(what, Observation::Unscripted { exchange: 1, .. });
    assert_eq!(rig.count(told), 1);
}
