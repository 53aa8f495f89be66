//! Connections that end before their streams do, each in its own way.

use cutpoint_engine::server::gate::GateDecision;
use cutpoint_scenario::ast::{DisconnectKind, ReplyEnd};
use cutpoint_trace::StreamEnd;

use crate::client;
use crate::rig::{Rig, composed, function_part, reply, says, text_part};

const KINDS: [(DisconnectKind, client::End, StreamEnd); 3] = [
    (DisconnectKind::Reset, client::End::Reset, StreamEnd::Reset),
    (DisconnectKind::Close, client::End::Closed, StreamEnd::Close),
    (DisconnectKind::End, client::End::Whole, StreamEnd::Cut),
];

fn parts() -> Vec<cutpoint_scenario::ast::ReplyPart> {
    vec![text_part("some words", 3), function_part("call_1", 2)]
}

#[tokio::test]
async fn a_held_response_is_dropped_where_it_is_held() {
    let frames = composed(&parts(), &ReplyEnd::Completed);
    let first: usize = frames[0].len();
    for (kind, seen, traced) in KINDS {
        for (phrase, bytes) in [
            ("headers of reply 1", 0),
            ("reply 1 event 1", first),
            ("byte 7 of reply 1 event 2", first + 7),
            ("end of reply 1", frames[..frames.len() - 1].concat().len()),
        ] {
            let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &[phrase]).await;
            let mut client = rig.ask(&says("hi")).await;
            rig.reached(phrase).await;
            client.head().await;
            rig.gate(phrase).decide(GateDecision::Drop(kind));
            assert_eq!(client.finish().await, seen, "{phrase} {kind:?}");
            assert_eq!(client.body, frames.concat()[..bytes], "{phrase} {kind:?}");
            assert_eq!(rig.ends(), [(1, traced)], "{phrase} {kind:?}");
            assert_eq!(rig.disconnects(), [0; 0]);
        }
    }
}

#[tokio::test]
async fn a_drop_decided_before_the_gate_is_reached_loses_nothing_before_it() {
    let frames = composed(&parts(), &ReplyEnd::Completed);
    let third = frames[..3].concat();
    for (kind, seen, traced) in KINDS {
        let points = ["reply 1 event 1", "reply 1 event 3"];
        let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &points).await;
        let mut client = rig.ask(&says("hi")).await;
        rig.reached(points[0]).await;
        rig.gate(points[1]).decide(GateDecision::Drop(kind));
        rig.release(points[0]);
        client.head().await;
        assert_eq!(client.finish().await, seen, "{kind:?}");
        assert_eq!(client.body, third, "{kind:?}");
        assert_eq!(rig.ends(), [(1, traced)]);
    }
}

#[tokio::test]
async fn a_request_can_be_dropped_without_any_answer() {
    for (kind, seen, traced) in KINDS {
        let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &["request 1"]).await;
        let mut client = rig.ask(&says("hi")).await;
        rig.reached("request 1").await;
        rig.gate("request 1").decide(GateDecision::Drop(kind));
        if kind == DisconnectKind::End {
            assert_eq!(client.head().await.status, 200);
            assert_eq!(client.finish().await, client::End::Whole);
            assert_eq!(client.body, b"");
        } else {
            assert_eq!(client.until_closed().await, (seen, Vec::new()), "{kind:?}");
        }
        assert_eq!(rig.ends(), [(1, traced)]);
    }
}

#[tokio::test]
async fn a_reply_drops_where_the_scenario_says() {
    for (kind, seen, traced) in KINDS {
        let end = ReplyEnd::Drop(kind);
        let whole = composed(&parts(), &end).concat();
        let rig = Rig::replies(vec![reply(parts(), end)], &[]).await;
        let mut client = rig.ask(&says("hi")).await;
        client.head().await;
        assert_eq!(client.finish().await, seen, "{kind:?}");
        assert_eq!(client.body, whole, "{kind:?}");
        assert_eq!(rig.ends(), [(1, traced)]);
    }
}

#[tokio::test]
async fn a_stalled_stream_keeps_its_connection() {
    let whole = composed(&parts(), &ReplyEnd::Stall).concat();
    let last = composed(&parts(), &ReplyEnd::Stall).len();
    let gate = format!("reply 1 event {last}");
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Stall)], &[&gate]).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached(&gate).await;
    rig.release(&gate);
    client.head().await;
    client.read_body(whole.len()).await;
    // Another exchange from end to end, so that the server had every occasion to go on.
    let mut other = client::Client::connect(rig.address()).await;
    other
        .send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(other.json().await.0.status, 200);
    assert!(client.is_silent());
    assert_eq!(client.body, whole);
    assert_eq!(rig.ends(), []);
    drop(client);
    rig.disconnected(1).await;
}
