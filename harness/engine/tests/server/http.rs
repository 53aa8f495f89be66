//! Plain HTTP as clients speak it: reuse, pipelining, old versions, paths, errors' shapes.

use cutpoint_engine::server::case::{Script, ScriptedBody};
use cutpoint_engine::server::{ReplayServer, ServerConfig, ServerError};
use cutpoint_scenario::ast::ReplyEnd;
use cutpoint_trace::Observation;
use serde_json::{Value, json};

use crate::client::{self, Client, post};
use crate::rig::{PATH, Rig, composed, config, says, scripted, text_part, text_reply};

/// That a body has the shape of the API's errors.
fn assert_error_shape(body: &Value) {
    let error = body["error"]
        .as_object()
        .unwrap_or_else(|| panic!("no error: {body}"));
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, ["message", "type", "param", "code"], "{body}");
    assert_eq!(error["type"], "invalid_request_error", "{body}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{body}"
    );
}

#[tokio::test]
async fn a_streams_head_says_that_it_is_one() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let head = rig.ask(&says("hi")).await.head().await;
    assert_eq!((head.version.as_str(), head.status), ("HTTP/1.1", 200));
    assert_eq!(
        head.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(head.header("content-encoding"), None);
}

#[tokio::test]
async fn a_stream_gives_the_turns_header_and_a_trace_keeps_no_credentials() {
    let rig = Rig::replies(vec![text_reply("a"), text_reply("b")], &[]).await;
    let mut states = Vec::new();
    for _ in 0..2 {
        let request = String::from_utf8(post(PATH, &says("hi"))).unwrap();
        let long = "x".repeat(1000);
        let more = format!(
            "\r\nX-State: a\r\nX-Api-Key: k\r\nX-Auth: k\r\nX-Long: {long}\r\nOther: o\r\n"
        );
        let mut client = Client::connect(rig.address()).await;
        client
            .send(request.replacen("\r\n", &more, 1).as_bytes())
            .await;
        states.push(
            client
                .head()
                .await
                .header(cutpoint_protocol::headers::TURN_STATE)
                .unwrap()
                .to_owned(),
        );
        assert_eq!(client.finish().await, client::End::Whole);
    }
    assert_ne!(states[0], states[1]);
    let kept = |what: &Observation| match what {
        Observation::Request { headers, .. } => headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .eq([("x-state", "a")]),
        _ => false,
    };
    assert_eq!(rig.count(kept), 2);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let rig = Rig::replies((0..4).map(|n| text_reply(&n.to_string())).collect(), &[]).await;
    let mut client = Client::connect(rig.address()).await;
    for n in 0..4 {
        client.send(&post(PATH, &says("hi"))).await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.finish().await, client::End::Whole);
        let text = String::from_utf8(client.body.clone()).unwrap();
        assert!(text.contains(&format!(r#""delta":"{n}""#)), "{text}");
    }
    assert_eq!(rig.ends().len(), 4);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let rig = Rig::replies(
        vec![text_reply("one"), text_reply("two")],
        &["reply 1 event 2"],
    )
    .await;
    let mut client = Client::connect(rig.address()).await;
    let twice = [post(PATH, &says("hi")), post(PATH, &says("hi"))].concat();
    client.send(&twice).await;
    rig.reached("reply 1 event 2").await;
    client.head().await;
    let held = composed(&[text_part("one", 1)], &ReplyEnd::Completed)[..2].concat();
    client.read_body(held.len()).await;
    assert!(
        client.is_silent(),
        "the second answer must wait for the first"
    );
    rig.release("reply 1 event 2");
    for word in ["one", "two"] {
        if word == "two" {
            client.head().await;
        }
        assert_eq!(client.finish().await, client::End::Whole);
        let text = String::from_utf8(client.body.clone()).unwrap();
        assert!(text.contains(&format!(r#""delta":"{word}""#)), "{text}");
    }
}

#[tokio::test]
async fn an_old_client_gets_the_stream_up_to_the_connections_end() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let mut client = Client::connect(rig.address()).await;
    let request = String::from_utf8(post(PATH, &says("hi"))).unwrap();
    client
        .send(request.replace("HTTP/1.1", "HTTP/1.0").as_bytes())
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(
        client.body,
        composed(&[text_part("a", 1)], &ReplyEnd::Completed).concat()
    );
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let request = String::from_utf8(post(PATH, &says("hi"))).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut client = Client::connect(rig.address()).await;
    client
        .send(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes())
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send(body.as_bytes()).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.finish().await, client::End::Whole);
}

#[tokio::test]
async fn what_is_served_where() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    rig.server.add(
        "",
        config(Script::Replies(vec![text_reply("root")].into()), &[]),
    );
    let mut client = Client::connect(rig.address()).await;
    for (method, path, status) in [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models?client_version=0.1", 200),
        ("GET", "/models", 200),
        ("GET", "/v1/responses", 426),
        ("PUT", "/v1/responses", 404),
        ("DELETE", "/v1/responses", 404),
        ("POST", "/v1/models", 404),
        ("POST", "/v1/chat/completions", 404),
        ("POST", "/v2/responses", 404),
        ("POST", "/v1/responses/", 404),
        ("POST", "/v1//responses", 404),
        ("GET", "/", 404),
        ("GET", "/v1/responses/resp_1", 404),
        ("OPTIONS", "*", 404),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
        client.send(request.as_bytes()).await;
        let (head, body) = client.json().await;
        assert_eq!(head.status, status, "{method} {path}");
        if status == 200 {
            assert_eq!(body, json!({"object": "list", "data": [], "models": []}));
        } else {
            assert_error_shape(&body);
        }
    }
    client.send(&post("/responses?x=y", &says("hi"))).await;
    assert_eq!(client.head().await.status, 200);
    assert!(
        rig.tracer.is_empty(),
        "nothing of this is an exchange of the other case"
    );
}

#[tokio::test]
async fn a_removed_case_is_served_no_more() {
    let rig = Rig::replies(vec![text_reply("a"), text_reply("b")], &["reply 1 event 1"]).await;
    let mut held = rig.ask(&says("hi")).await;
    rig.reached("reply 1 event 1").await;
    rig.server.remove("/v1");
    assert_eq!(rig.ask_json(&says("hi")).await.0, 404);
    rig.release("reply 1 event 1");
    held.head().await;
    assert_eq!(held.finish().await, client::End::Whole);
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_as_the_api_does_it() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let mut client = Client::connect(rig.address()).await;
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "3",
        r#"{"input":5}"#,
        r#"{"input":[{}]}"#,
        "\u{0}",
    ] {
        let length = body.len();
        let request =
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
        client.send(request.as_bytes()).await;
        let (head, answer) = client.json().await;
        assert_eq!(head.status, 400, "{body:?}");
        assert_eq!(head.header("content-type"), Some("application/json"));
        assert_error_shape(&answer);
    }
    client
        .send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await;
    assert_eq!(client.json().await.0.status, 400);
    client.send(&post(PATH, &says("hi"))).await;
    assert_eq!(client.head().await.status, 200, "no reply was used up");
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let mut client = Client::connect(rig.address()).await;
    for encoding in ["gzip", "zstd", "br"] {
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-encoding: {encoding}\r\ncontent-length: 3\r\n\r\nabc"
        );
        client.send(request.as_bytes()).await;
        let (head, body) = client.json().await;
        assert_eq!(head.status, 415, "{encoding}");
        assert_error_shape(&body);
    }
    let request = String::from_utf8(post(PATH, &says("hi"))).unwrap();
    let plain = request.replace("host: x", "host: x\r\ncontent-encoding: identity");
    client.send(plain.as_bytes()).await;
    assert_eq!(client.head().await.status, 200);
}

#[tokio::test]
async fn a_chunked_request_is_read_as_any_other() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let mut client = Client::connect(rig.address()).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(head.as_bytes()).await;
    for piece in says("hi").to_string().as_bytes().chunks(5) {
        client
            .send(format!("{:x}\r\n", piece.len()).as_bytes())
            .await;
        client.send(&[piece, b"\r\n"].concat()).await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.finish().await, client::End::Whole);
}

#[tokio::test]
async fn an_answer_that_is_no_stream_has_its_headers() {
    let refusal = scripted(ScriptedBody::Status {
        status: 429,
        headers: vec![("retry-after".to_owned(), "1".to_owned())],
        body: r#"{"error":{"code":"rate_limit_exceeded"}}"#.to_owned(),
    });
    let rig = Rig::replies(vec![refusal, text_reply("a")], &[]).await;
    let (head, body) = rig.ask(&says("hi")).await.json().await;
    assert_eq!((head.status, head.header("retry-after")), (429, Some("1")));
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    rig.ask_stream(&says("hi")).await;
}

#[tokio::test]
async fn an_address_in_use_is_a_clear_error() {
    let first = ReplayServer::start(ServerConfig::default()).await.unwrap();
    let again = ServerConfig {
        address: first.address(),
        ..ServerConfig::default()
    };
    let error = ReplayServer::start(again).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, ServerError::Listen { .. }));
    let expected = format!("cannot listen on {}: ", first.address());
    assert!(
        message.starts_with(&expected) && message.contains("in use"),
        "{message}"
    );
}

#[tokio::test]
async fn other_machines_are_kept_out_unless_they_are_asked_in() {
    let everywhere = ServerConfig {
        address: ([0, 0, 0, 0], 0).into(),
        ..ServerConfig::default()
    };
    let error = ReplayServer::start(everywhere.clone()).await.unwrap_err();
    assert!(matches!(error, ServerError::NotLoopback(_)));
    assert!(
        error
            .to_string()
            .starts_with("0.0.0.0 can be reached from other machines")
    );
    let allowed = ServerConfig {
        beyond_loopback: true,
        ..everywhere
    };
    let server = ReplayServer::start(allowed).await.unwrap();
    let local = ([127, 0, 0, 1], server.address().port()).into();
    let mut client = Client::connect(local).await;
    client
        .send(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(client.json().await.0.status, 404);
}
