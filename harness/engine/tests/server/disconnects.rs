//! Clients that go away before their response has ended.

use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::Script;
use cutpoint_scenario::ast::ReplyEnd;
use cutpoint_trace::Observation;
use tokio::io::AsyncWriteExt;

use crate::client;
use crate::rig::{Rig, composed, config, function_part, reply, says, text_part, text_reply};

fn parts() -> Vec<cutpoint_scenario::ast::ReplyPart> {
    vec![text_part("some words", 3), function_part("call_1", 2)]
}

#[tokio::test]
async fn at_each_event_the_trace_tells_it_once() {
    for event in 1..=composed(&parts(), &ReplyEnd::Completed).len() {
        for reset in [false, true] {
            let gate = format!("reply 1 event {event}");
            let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &[&gate]).await;
            let client = rig.ask(&says("hi")).await;
            rig.reached(&gate).await;
            if reset {
                client.stream.set_zero_linger().unwrap();
            }
            drop(client);
            rig.disconnected(1).await;
            rig.release(&gate);
            // A further exchange gives the server time to say more than it should.
            assert_eq!(rig.ask_json(&says("hi")).await.0, 500);
            assert_eq!(rig.disconnects(), [1], "{gate}");
            assert!(
                rig.ends().iter().all(|(exchange, _)| *exchange != 1),
                "{gate}"
            );
            let sent = rig.count(|what| matches!(what, Observation::Sent { exchange: 1, .. }));
            assert_eq!(sent, event, "{gate}");
        }
    }
}

#[tokio::test]
async fn while_a_request_is_held() {
    let rig = Rig::replies(vec![text_reply("a"), text_reply("b")], &["request 1"]).await;
    let client = rig.ask(&says("hi")).await;
    rig.reached("request 1").await;
    drop(client);
    rig.disconnected(1).await;
    rig.release("request 1");
    rig.ask_stream(&says("hi")).await;
    assert_eq!(rig.disconnects(), [1]);
    assert!(rig.ends().iter().all(|(exchange, _)| *exchange == 2));
}

/// A closed sending side is how a client that went away looks, so it counts as gone.
#[tokio::test]
async fn a_client_that_shuts_down_its_sending_side_is_gone() {
    let gate = "reply 1 event 2";
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &[gate]).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached(gate).await;
    client.head().await;
    client.stream.shutdown().await.unwrap();
    rig.disconnected(1).await;
    assert_ne!(client.finish().await, client::End::Whole);
    assert_eq!(
        client.body,
        composed(&parts(), &ReplyEnd::Completed)[..2].concat()
    );
    assert_eq!((rig.disconnects(), rig.ends()), (vec![1], vec![]));
}

#[tokio::test]
async fn while_the_server_waits_for_it_to_read() {
    for pace in [Pace::Flushed, Pace::Burst] {
        let big = reply(
            vec![text_part(&"x".repeat(32 << 20), 64)],
            ReplyEnd::Completed,
        );
        let mut settings = config(Script::Replies(vec![big].into()), &[]);
        settings.pace = pace;
        let rig = Rig::new(settings).await;
        let mut client = rig.ask(&says("hi")).await;
        client.head().await;
        client.read_body(1 << 20).await;
        drop(client);
        rig.disconnected(1).await;
        assert_eq!((rig.disconnects(), rig.ends()), (vec![1], vec![]));
    }
}

#[tokio::test]
async fn a_client_that_reads_on_behind_the_last_event_is_not_gone() {
    let rig = Rig::replies(vec![text_reply("a"), text_reply("b")], &[]).await;
    rig.ask_stream(&says("hi")).await;
    rig.ask_stream(&says("hi")).await;
    assert_eq!(rig.disconnects(), [0; 0]);
    assert_eq!(rig.ends().len(), 2);
}
