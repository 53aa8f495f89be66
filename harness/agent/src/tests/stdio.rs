//! The agent on a pair of pipes.

use cutpoint_protocol::session::{Event, EventMsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::support::{Reply, Rig, aborts, soon};
use crate::{ServeError, serve_with};

/// Serves `rig` on pipes, with `input` as all that the client writes.
async fn serve(rig: &Rig, input: &[u8]) -> Vec<Event> {
    let (mut client, agent) = tokio::io::duplex(1 << 10);
    let (from_agent, to_client) = tokio::io::simplex(1 << 10);
    let serving = serve_with(rig.config.clone(), rig.services(), agent, to_client);
    let writing = async {
        client.write_all(input).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let reading = async {
        let mut text = String::new();
        BufReader::new(from_agent)
            .read_to_string(&mut text)
            .await
            .unwrap();
        text
    };
    let (served, (), text) = soon(async { tokio::join!(serving, writing, reading) }).await;
    served.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn messages(events: &[Event]) -> Vec<EventMsg> {
    events.iter().map(|event| event.msg.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_input_is_a_shutdown() {
    let events = serve(&Rig::new(vec![], vec![]), b"").await;
    assert!(matches!(events[0].msg, EventMsg::SessionConfigured { .. }));
    assert_eq!(messages(&events[1..]), [EventMsg::ShutdownComplete]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_over_pipes() {
    let rig = Rig::new(vec![Reply::Silence], vec![]);
    let input = concat!(
        r#"{"id":"a","op":{"type":"user_input","items":[{"type":"text","text":"hi"}]}}"#,
        "\r\n",
        r#"{"id":"b","op":{"type":"interrupt"}}"#,
    );
    let events = serve(&rig, input.as_bytes()).await;
    assert_eq!(aborts(&messages(&events)), 1);
    assert!(events[1..3].iter().all(|event| event.id == "a"));
}

#[tokio::test(start_paused = true)]
async fn malformed_lines_are_answered_with_errors() {
    let long = "x".repeat(5 << 20);
    let nested = "[".repeat(100_000);
    let lines = [
        "not json",
        "",
        "[]",
        "null",
        "{}",
        r#"{"id":7,"op":{}}"#,
        r#"{"id":"seven","op":"#,
        r#"{"id":"q"}"#,
        r#"{"id":"u","op":{"type":"fly"}}"#,
        r#"{"id":"n","op":null}"#,
        r#"{"id":"i","op":{"type":"user_input","items":"x"}}"#,
        &long,
        &nested,
        "\u{0}",
    ];
    let mut input = lines.join("\n").into_bytes();
    input.extend_from_slice(b"\n\xFF\xFE\n");
    let events = serve(&Rig::new(vec![], vec![]), &input).await;
    let errors = events
        .iter()
        .filter(|event| matches!(event.msg, EventMsg::Error { .. }));
    assert_eq!(errors.count(), lines.len() - 1 + 1);
    assert!(events.iter().any(|event| event.id == "q"));
    assert!(matches!(events[0].msg, EventMsg::SessionConfigured { .. }));
    assert_eq!(events.last().unwrap().msg, EventMsg::ShutdownComplete);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_ends_the_agent() {
    let rig = Rig::new(vec![], vec![]);
    let (client, agent): (DuplexStream, DuplexStream) = tokio::io::duplex(16);
    let (output, to_client) = tokio::io::duplex(16);
    drop(output);
    let served = soon(serve_with(
        rig.config.clone(),
        rig.services(),
        agent,
        to_client,
    ))
    .await;
    assert!(matches!(served, Err(ServeError::Pipe(_))));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn lines_come_one_by_one() {
    let rig = Rig::new(vec![Reply::text("r1", "hello")], vec![]);
    let (mut client, agent) = tokio::io::duplex(64);
    let (from_agent, to_client) = tokio::io::simplex(64);
    let config = rig.config.clone();
    let task = tokio::spawn(serve_with(config, rig.services(), agent, to_client));
    let mut lines = BufReader::new(from_agent).lines();
    assert!(
        soon(lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .contains("session_configured")
    );
    let line = r#"{"id":"a","op":{"type":"user_turn","items":[{"type":"text","text":"hi"}]}}"#;
    for byte in line.bytes().chain([b'\n']) {
        client.write_all(&[byte]).await.unwrap();
    }
    loop {
        let line = soon(lines.next_line()).await.unwrap().unwrap();
        if line.contains("turn_complete") {
            break;
        }
    }
    client
        .write_all(b"{\"id\":\"z\",\"op\":{\"type\":\"shutdown\"}}\n")
        .await
        .unwrap();
    let last = soon(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(last, r#"{"id":"z","msg":{"type":"shutdown_complete"}}"#);
    soon(task).await.unwrap().unwrap();
}
