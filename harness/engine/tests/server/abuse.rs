//! Clients that are slow, greedy, broken or hostile: they get what they deserve, and nobody else
//! notices.

use std::time::Duration;

use cutpoint_engine::server::ServerConfig;
use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::Script;
use cutpoint_scenario::ast::ReplyEnd;
use cutpoint_trace::Observation;
use tokio::net::TcpSocket;

use crate::client::{self, Client, post};
use crate::rig::{PATH, Rig, composed, config, reply, says, text_part, text_reply};

const LIMIT_BYTES: usize = 64 << 10;

async fn strict_rig(request_timeout: Duration) -> Rig {
    let server = ServerConfig {
        request_limit_bytes: LIMIT_BYTES,
        request_timeout,
        ..ServerConfig::default()
    };
    let replies = vec![text_reply("a"), text_reply("b")];
    Rig::on(server, config(Script::Replies(replies.into()), &[])).await
}

async fn small_rig() -> Rig {
    strict_rig(client::PATIENCE).await
}

async fn hasty_rig() -> Rig {
    strict_rig(Duration::from_millis(50)).await
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_answered() {
    let rig = small_rig().await;
    let mut client = Client::connect(rig.address()).await;
    for byte in post(PATH, &says("hi")) {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    client.head().await;
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(
        client.body,
        composed(&[text_part("a", 1)], &ReplyEnd::Completed).concat()
    );
}

/// A client that does not read costs the sockets' buffers and one event, and holds up nobody.
#[tokio::test]
async fn a_client_that_stops_reading_holds_up_nobody() {
    const EVENT_BYTES: usize = 64 << 10;
    const EVENTS: usize = 256;
    for pace in [Pace::Flushed, Pace::Burst] {
        let parts = vec![text_part(&"x".repeat(EVENT_BYTES * EVENTS), EVENTS)];
        let script = Script::Replies(vec![reply(parts.clone(), ReplyEnd::Completed)].into());
        let mut settings = config(script, &[]);
        settings.pace = pace;
        let rig = Rig::new(settings).await;
        let others = config(
            Script::Replies((0..50).map(|_| text_reply("b")).collect()),
            &[],
        );
        rig.server.add("/other", others);

        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 << 10).unwrap();
        let mut slow = Client::over(socket.connect(rig.address()).await.unwrap());
        slow.send(&post(PATH, &says("hi"))).await;
        slow.head().await;
        for _ in 0..50 {
            let mut other = Client::ask(rig.address(), "/other/responses", &says("hi")).await;
            assert_eq!(other.head().await.status, 200);
            assert_eq!(other.finish().await, client::End::Whole);
        }
        let sent = rig.count(|what| matches!(what, Observation::Sent { .. }));
        assert!(
            sent < EVENTS / 2,
            "{sent} of {EVENTS} events were taken while nobody read"
        );

        // Once it reads, it gets all of it.
        assert_eq!(slow.finish().await, client::End::Whole);
        assert_eq!(slow.body, composed(&parts, &ReplyEnd::Completed).concat());
    }
}

#[tokio::test]
async fn headers_that_do_not_come_in_time_end_the_connection() {
    let rig = hasty_rig().await;
    let mut client = Client::connect(rig.address()).await;
    client
        .send(format!("POST {PATH} HTTP/1.1\r\nhost: ").as_bytes())
        .await;
    let (_, answer) = client.until_closed().await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_a_408() {
    let rig = hasty_rig().await;
    let mut client = Client::connect(rig.address()).await;
    let request = post(PATH, &says("hi"));
    client.send(&request[..request.len() - 3]).await;
    let (head, body) = client.json().await;
    assert_eq!(head.status, 408);
    assert_eq!(
        body["error"]["message"],
        "The request's body did not arrive in time."
    );
    client.until_closed().await;
    assert!(rig.tracer.is_empty());
}

#[tokio::test]
async fn a_body_that_is_declared_too_large_is_refused_unread() {
    let rig = small_rig().await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let mut client = Client::connect(rig.address()).await;
        let length = LIMIT_BYTES + 1;
        let head =
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{expect}\r\n");
        client.send(head.as_bytes()).await;
        let (head, body) = client.json().await;
        assert_eq!(head.status, 413);
        assert_eq!(
            body["error"]["message"],
            "The request's body is larger than 65536 bytes."
        );
        client.until_closed().await;
    }
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_taken() {
    let rig = small_rig().await;
    let empty = says("").to_string().len();
    let text = "x".repeat(LIMIT_BYTES - empty);
    assert_eq!(says(&text).to_string().len(), LIMIT_BYTES);
    rig.ask_stream(&says(&text)).await;
}

#[tokio::test]
async fn a_chunked_body_that_turns_out_too_large_is_refused() {
    let rig = small_rig().await;
    let mut client = Client::connect(rig.address()).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(head.as_bytes()).await;
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
    for _ in 0..=LIMIT_BYTES / 0x1000 {
        client.send(&chunk).await;
    }
    let (head, body) = client.json().await;
    assert_eq!(head.status, 413);
    assert_eq!(
        body["error"]["message"],
        "The request's body is larger than 65536 bytes."
    );
    client.until_closed().await;
}

/// A client that writes all it has before it reads is told why it was cut off, or cut off; it does
/// not hang.
#[tokio::test]
async fn a_client_that_sends_on_regardless_does_not_hang() {
    let rig = small_rig().await;
    let mut client = Client::connect(rig.address()).await;
    let length = 8 << 20;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    client.send(head.as_bytes()).await;
    let body = vec![b' '; length];
    let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &body);
    let _ = client::soon("the server to take or refuse the body", sent).await;
    match client.try_head().await {
        Ok(head) => assert_eq!(head.status, 413),
        Err((_, rest)) => assert_eq!(rest, b""),
    }
    rig.ask_stream(&says("hi")).await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_cut_off() {
    let rig = small_rig().await;
    for garbage in [
        b"hello\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = Client::connect(rig.address()).await;
        client.send(garbage).await;
        let (_, answer) = client.until_closed().await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 ");
        assert!(answer.is_empty() || refused, "{answer}");
    }
    rig.ask_stream(&says("hi")).await;
}

#[tokio::test]
async fn long_headers_are_taken_and_endless_ones_are_not() {
    let rig = small_rig().await;
    let request = String::from_utf8(post(PATH, &says("hi"))).unwrap();
    let long = request.replace(
        "host: x",
        &format!("host: x\r\nx-long: {}", "y".repeat(10_000)),
    );
    let mut client = Client::connect(rig.address()).await;
    client.send(long.as_bytes()).await;
    assert_eq!(client.head().await.status, 200);

    let mut client = Client::connect(rig.address()).await;
    client.send(b"GET /v1/models HTTP/1.1\r\nx-endless: ").await;
    let line = vec![b'y'; 4 << 20];
    let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &line);
    let _ = client::soon("the server to cut the header off", sent).await;
    let (_, answer) = client.until_closed().await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
}

#[tokio::test]
async fn many_connections_that_say_nothing_keep_nobody_out() {
    let rig = small_rig().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Client::connect(rig.address()).await);
    }
    rig.ask_stream(&says("hi")).await;
}
