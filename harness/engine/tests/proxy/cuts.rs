//! Answers that are cut off, and when what comes is handed on.

use std::time::Duration;

use cutpoint_protocol::sse::Directive;
use cutpoint_recording::session::{CutPlace, TurnCut, TurnEndKind, UserAction};
use cutpoint_scenario::ast::{ReplyEnd, ReplyPart};

use crate::rig::{Rig, composed, reply, says, text_part};
use crate::support::{ask, before, only, recording, server, stream, wire};

/// An interrupt behind so many events of the first answer.
fn cut(events: usize) -> UserAction {
    let exited = Vec::new();
    let exchange = 1;
    let place = CutPlace::Stream { exchange, events };
    UserAction::Interrupt(TurnCut { exited, place })
}

#[tokio::test]
async fn an_event_is_handed_on_before_the_next_one_comes() {
    let parts = || vec![text_part("one two three", 3)];
    let frames = composed(&parts(), &ReplyEnd::Completed);
    let rig = Rig::replies(
        vec![reply(parts(), ReplyEnd::Completed)],
        &["reply 1 event 5"],
    )
    .await;
    let proxy = before(rig.address()).await;
    let mut client = ask(&proxy, &says("hi")).await;
    client.head().await;
    let come = frames[..5].concat();
    rig.reached("reply 1 event 5").await;
    client.read_body(come.len()).await;
    assert!(client.is_silent());
    assert_eq!(client.body, come);
    rig.release("reply 1 event 5");
    client.finish().await;
    assert_eq!(client.body, frames.concat());
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_an_interrupt_at_that_point() {
    let parts = || vec![text_part("one two three", 3)];
    let frames = composed(&parts(), &ReplyEnd::Completed);
    let rig = Rig::replies(
        vec![reply(parts(), ReplyEnd::Completed)],
        &["reply 1 event 6"],
    )
    .await;
    let proxy = before(rig.address()).await;
    let mut client = ask(&proxy, &says("hi")).await;
    client.head().await;
    rig.reached("reply 1 event 6").await;
    client.read_body(frames[..6].concat().len()).await;
    drop(client);
    // The server learns of it at once: nothing is paid for that nobody reads.
    rig.disconnected(1).await;
    let recorded = proxy.finish().await;
    let document = stream(only(&recorded));
    assert_eq!(wire(document), frames[..6].concat());
    assert_eq!(document.setting("end"), Some("stall"));
    let session = recording(recorded).session().unwrap();
    let expected = [
        UserAction::Prompt("hi".to_owned()),
        cut(6),
        UserAction::Ended(TurnEndKind::Interrupted),
    ];
    assert_eq!(session.actions, expected);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_one_before_its_first_event() {
    let replies = vec![reply(vec![text_part("one", 1)], ReplyEnd::Completed)];
    let rig = Rig::replies(replies, &["request 1"]).await;
    let proxy = before(rig.address()).await;
    let client = ask(&proxy, &says("hi")).await;
    rig.reached("request 1").await;
    drop(client);
    rig.disconnected(1).await;
    let recorded = proxy.finish().await;
    assert_eq!(
        stream(only(&recorded)).to_bytes(),
        b": cutpoint status=200 end=stall\n"
    );
    let session = recording(recorded).session().unwrap();
    assert!(session.actions.contains(&cut(0)), "{session:#?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_behind_the_last_event_cuts_nothing() {
    let frames = composed(&[text_part("one", 1)], &ReplyEnd::Completed).concat();
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [
        format!("{:x}\r\n", frames.len()).as_bytes(),
        &frames,
        b"\r\n",
    ]
    .concat();
    // The body's end never comes: the server holds the connection open.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let proxy = before(listener.local_addr().unwrap()).await;
    let mut client = ask(&proxy, &says("hi")).await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut upstream, &[&head[..], &chunk].concat())
        .await
        .unwrap();
    client.head().await;
    client.read_body(frames.len()).await;
    drop(client);
    let recorded = proxy.finish().await;
    assert_eq!(stream(only(&recorded)).setting("end"), None);
    drop(upstream);
    let session = recording(recorded).session().unwrap();
    assert_eq!(
        session.actions.last(),
        Some(&UserAction::Ended(TurnEndKind::Complete))
    );
}

#[tokio::test]
async fn what_was_cut_off_inside_an_event_is_kept_without_its_secret() {
    let start = "data: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"my key: sk-proj-abcdefghij\",\"sequence_number\":1}\n\n";
    let torn = "data: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"0123456789ABCDEF and";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n";
    let pieces = [head, start, torn]
        .map(|piece| piece.as_bytes().to_vec())
        .to_vec();
    let proxy = before(server(vec![pieces]).await).await;
    let mut client = ask(&proxy, &says("hi")).await;
    client.head().await;
    client.finish().await;
    assert_eq!(client.body, [start, torn].concat().as_bytes());
    let recorded = proxy.finish().await;
    let document = stream(only(&recorded));
    let text = String::from_utf8(wire(document)).unwrap();
    let expected = [start, torn]
        .concat()
        .replace("sk-proj-abcdefghij", "<api-key-1>")
        .replace("0123456789ABCDEF", "");
    assert_eq!(text, expected);
    assert_eq!(document.setting("end"), Some("close"));
}

#[tokio::test]
async fn the_time_between_events_is_recorded() {
    let pause = Duration::from_millis(60);
    let parts = vec![
        text_part("one", 1),
        ReplyPart::Pause { duration: pause },
        text_part("two", 1),
    ];
    let rig = Rig::replies(vec![reply(parts, ReplyEnd::Completed)], &[]).await;
    let proxy = before(rig.address()).await;
    let mut client = ask(&proxy, &says("hi")).await;
    client.head().await;
    client.finish().await;
    let recorded = proxy.finish().await;
    let delays: Vec<Duration> = stream(only(&recorded))
        .frames
        .iter()
        .flat_map(|frame| &frame.directives)
        .filter_map(|directive| match directive {
            Directive::Delay(delay) => Some(*delay),
            Directive::Settings(_) => None,
        })
        .collect();
    let longest = delays.iter().max().unwrap();
    assert!(*longest >= pause - Duration::from_millis(5), "{delays:?}");
}
