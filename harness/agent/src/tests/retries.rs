//! Refusals and broken streams.

use std::time::Duration;

use cutpoint_protocol::StreamEvent;
use cutpoint_protocol::session::EventMsg;
use tokio::time::Instant;

use crate::lock;

use super::support::{Reply, Rig, Step, ToolStep};

#[tokio::test(start_paused = true)]
async fn refused_requests_are_sent_again_up_to_a_bound() {
    let rig = Rig::new(vec![Reply::status(503); 9], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(
        matches!(client.end().await, EventMsg::TurnFailed { message, .. } if message.contains("503"))
    );
    assert_eq!(rig.requests(), 5);
    let rig = Rig::new(
        vec![Reply::status(429), Reply::text("resp_1", "ok")],
        vec![],
    );
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_server_says_how_long_to_wait() {
    let wait = Some(Duration::from_secs(7));
    let rig = Rig::new(
        vec![
            Reply::refuse(429, String::new(), wait),
            Reply::text("resp_1", "ok"),
        ],
        vec![],
    );
    let mut client = rig.start().await;
    let start = Instant::now();
    client.user("hi").await;
    client.end().await;
    assert!(start.elapsed() >= Duration::from_secs(7) && start.elapsed() < Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn other_refusals_are_final() {
    for status in [400, 401, 404] {
        let rig = Rig::new(vec![Reply::status(status); 3], vec![]);
        let mut client = rig.start().await;
        client.user("hi").await;
        assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
        assert_eq!(rig.requests(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_asked_for_again_up_to_a_bound() {
    let broken = || Reply::text("resp_1", "hello").after("response.output_text.delta", 1, vec![]);
    let rig = Rig::new((0..9).map(|_| broken()).collect(), vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    let events = client.until(EventMsg::is_terminal).await;
    let told = events.iter().filter(|event| matches!(&event.msg, EventMsg::StreamError { message, .. } if message.contains("/5 in ")));
    assert_eq!((told.count(), rig.requests()), (5, 6));
    assert!(matches!(
        events.last().unwrap().msg,
        EventMsg::TurnFailed { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_counts_as_broken() {
    let silent = Reply::text("resp_1", "hello").hang_after("response.created", 1);
    let mut rig = Rig::new(
        vec![silent, Reply::Silence, Reply::text("resp_2", "ok")],
        vec![],
    );
    rig.config.stream_idle = Duration::from_secs(30);
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(rig.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ran_is_told_of_when_its_stream_breaks() {
    let broken =
        Reply::shell("resp_1", &["c1"]).after("response.output_item.done", 1, vec![Step::Fault]);
    let rig = Rig::new(
        vec![broken, Reply::text("resp_2", "ok")],
        vec![vec![ToolStep::Exit(0)]],
    );
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(rig.request(1).outline(), ["u:hi", "c:c1", "o:c1"]);
}

fn event(json: serde_json::Value) -> Step {
    Step::Event(StreamEvent::from_value(json).unwrap())
}

#[tokio::test(start_paused = true)]
async fn failures_inside_a_stream_are_told_apart() {
    let failing = |code: &str, nested: bool| {
        let error = serde_json::json!({"code": code, "message": "no"});
        let last = if nested {
            serde_json::json!({"type": "error", "error": error})
        } else {
            serde_json::json!({"type": "response.failed", "response": {"id": "r", "error": error}})
        };
        Reply::text("resp_1", "x").after("response.in_progress", 1, vec![event(last)])
    };
    for (code, requests) in [("context_length_exceeded", 1), ("server_error", 2)] {
        for nested in [false, true] {
            let rig = Rig::new(
                vec![failing(code, nested), Reply::text("resp_2", "ok")],
                vec![],
            );
            let mut client = rig.start().await;
            client.user("hi").await;
            client.end().await;
            assert_eq!(rig.requests(), requests, "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_response_fails_the_turn_with_its_calls_answered() {
    let details = serde_json::json!({"type": "response.incomplete", "response": {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}}});
    let first =
        Reply::shell("resp_1", &["c1"]).after("response.output_item.done", 1, vec![event(details)]);
    let rig = Rig::new(
        vec![first, Reply::text("resp_2", "ok")],
        vec![vec![ToolStep::Hang]],
    );
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(
        matches!(client.end().await, EventMsg::TurnFailed { message, .. } if message.contains("max_output_tokens"))
    );
    assert_eq!(rig.tools.alive(), 0);
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:hi", "c:c1", "o:c1", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_turn_does_not_wait_for_a_tool_that_will_not_go() {
    let failed = serde_json::json!({"type": "response.failed", "response": {"id": "r", "error": {"code": "invalid_prompt", "message": "no"}}});
    let first =
        Reply::shell("r1", &["c1"]).after("response.output_item.done", 1, vec![event(failed)]);
    let rig = Rig::new(
        vec![first, Reply::text("r2", "ok")],
        vec![vec![ToolStep::Hang]],
    );
    *lock(&rig.tools.stubborn) = true;
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert_eq!((client.rest().await, rig.tools.alive()), (vec![], 0));
    client.user("next").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}
