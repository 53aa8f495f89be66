//! Answers that are no streams, errors, and what the proxy answers itself.

use std::io::Write as _;

use cutpoint_engine::proxy::{CaptureLimits, Proxy, ProxyError};
use cutpoint_recording::Response;
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::client::{Client, End, post};
use crate::rig::says;
use crate::support::{ask, before, config, only, server, stream, wire};

async fn answering(template: ResponseTemplate) -> (MockServer, Proxy) {
    let server = MockServer::start().await;
    let mock = Mock::given(method("POST")).and(path("/v1/responses"));
    mock.respond_with(template).mount(&server).await;
    let proxy = before(*server.address()).await;
    (server, proxy)
}

fn body(response: &Response) -> (u16, &Value) {
    match response {
        Response::Body { status, body, .. } => (*status, body),
        Response::Stream(_) => panic!("a stream: {response:?}"),
    }
}

#[tokio::test]
async fn errors_go_through_and_are_recorded() {
    let error = json!({"error": {"message": "no", "type": "x", "param": null, "code": null}});
    let cases = [
        (401, "application/json", error.to_string(), error.clone()),
        (429, "application/json", error.to_string(), error.clone()),
        // Its bytes can't be told from its value, so it is kept as a text.
        (
            400,
            "application/json",
            format!("{error:#}"),
            json!(format!("{error:#}")),
        ),
        (
            500,
            "text/html",
            "<h1>oops</h1>".to_owned(),
            json!("<h1>oops</h1>"),
        ),
        (503, "text/plain", String::new(), json!("")),
    ];
    for (status, kind, text, value) in cases {
        let template = ResponseTemplate::new(status)
            .insert_header("retry-after", "7")
            .insert_header("set-cookie", "session=abcdefghijklmnop")
            .set_body_raw(text.clone(), kind);
        let (_server, proxy) = answering(template).await;
        let mut client = ask(&proxy, &says("hi")).await;
        let head = client.head().await;
        assert_eq!(client.finish().await, End::Whole);
        assert_eq!(
            (head.status, client.body.as_slice()),
            (status, text.as_bytes())
        );
        assert_eq!(head.header("set-cookie"), Some("session=abcdefghijklmnop"));
        let recorded = proxy.finish().await;
        let exchange = only(&recorded);
        assert_eq!(body(&exchange.response), (status, &value));
        let Response::Body { headers, .. } = &exchange.response else {
            unreachable!()
        };
        assert_eq!(headers["retry-after"], "7");
        assert_eq!(headers.get("set-cookie"), None);
        assert_eq!(recorded.report.headers, 1);
    }
}

#[tokio::test]
async fn what_is_packed_goes_through_packed_and_is_recorded_unpacked() {
    let answer = json!({"id": "resp_1", "output": []});
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(answer.to_string().as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let template = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_raw(packed.clone(), "application/json");
    let (_server, proxy) = answering(template).await;
    let mut client = ask(&proxy, &says("hi")).await;
    let head = client.head().await;
    client.finish().await;
    assert_eq!(head.header("content-encoding"), Some("gzip"));
    assert_eq!(client.body, packed);
    let recorded = proxy.finish().await;
    assert_eq!(body(&only(&recorded).response), (200, &answer));
}

#[tokio::test]
async fn a_request_reaches_the_server_as_it_was_sent() {
    let server = MockServer::start().await;
    let mock = Mock::given(method("POST"))
        .and(path("/v1/responses/compact"))
        .and(header("authorization", "Bearer one-two-three-four"))
        .and(header("x-mine", "kept"));
    mock.respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let proxy = before(*server.address()).await;
    let mut client = Client::connect(proxy.address()).await;
    let request = b"POST /v1/responses/compact HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, x-hop\r\nx-hop: gone\r\nx-mine: kept\r\nauthorization: Bearer one-two-three-four\r\ncontent-length: 24\r\n\r\none-two-three-four, five";
    client.send(request).await;
    assert_eq!(client.head().await.status, 204);
    let received = server.received_requests().await.unwrap();
    assert_eq!(received[0].body, b"one-two-three-four, five");
    assert_eq!(received[0].headers.get("x-hop"), None);
    assert_eq!(received[0].headers["host"], server.address().to_string());
    drop(client);
    let recorded = proxy.finish().await;
    let request = only(&recorded).request.as_ref().unwrap();
    assert_eq!(request.body, json!("<credential-1>, five"));
    assert_eq!(request.headers.len(), 0);
}

#[tokio::test]
async fn websocket_is_answered_with_426_and_foreign_paths_with_404() {
    let proxy = before(server(Vec::new()).await).await;
    let cases = [
        (
            "GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            426,
        ),
        ("GET /other HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        ("GET /v1x HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ];
    for (request, status) in cases {
        let mut client = Client::connect(proxy.address()).await;
        client.send(request.as_bytes()).await;
        assert_eq!(client.head().await.status, status);
    }
    assert_eq!(proxy.finish().await.exchanges, []);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_502_and_told() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let proxy = before(address).await;
    for _ in 0..2 {
        let (head, body) = ask(&proxy, &says("hi")).await.json().await;
        assert_eq!(head.status, 502);
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap()
                .contains("did not answer"),
            "{body}"
        );
    }
    let recorded = proxy.finish().await;
    assert_eq!(recorded.exchanges, []);
    assert_eq!(recorded.notes.len(), 1, "{:?}", recorded.notes);
}

#[tokio::test]
async fn what_is_too_large_reaches_the_client_and_is_recorded_as_cut() {
    let event = format!(
        "data: {{\"type\":\"x\",\"text\":\"{}\"}}\n\n",
        "y".repeat(1000)
    );
    let whole = event.repeat(30);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
        whole.len()
    );
    let mut pieces = vec![head.into_bytes()];
    pieces.extend(vec![event.clone().into_bytes(); 30]);
    let limits = CaptureLimits {
        body_bytes: 10_000,
        ..CaptureLimits::default()
    };
    let upstream = format!("http://{}/v1", server(vec![pieces]).await);
    let proxy = Proxy::start(cutpoint_engine::proxy::ProxyConfig {
        limits,
        ..config(&upstream)
    })
    .await
    .unwrap();
    let mut client = ask(&proxy, &says("hi")).await;
    client.head().await;
    assert_eq!(client.finish().await, End::Whole);
    assert_eq!(client.body, whole.as_bytes());
    let mut large = Client::connect(proxy.address()).await;
    large
        .send(&post("/v1/responses", &json!("x".repeat(20_000))))
        .await;
    assert_eq!(large.head().await.status, 413);
    drop((client, large));
    let recorded = proxy.finish().await;
    let document = stream(only(&recorded));
    assert_eq!(document.setting("end"), Some("close"));
    assert!(wire(document).len() <= 10_000 && whole.as_bytes().starts_with(&wire(document)));
    assert!(
        recorded.notes[0].contains("10000 bytes"),
        "{:?}",
        recorded.notes
    );
}

#[tokio::test]
async fn an_upstream_that_cannot_be_is_refused() {
    for url in [
        "ftp://127.0.0.1/v1",
        "127.0.0.1",
        "http://127.0.0.1/v1?x=1",
        "http://a b/",
    ] {
        let error = Proxy::start(config(url)).await.unwrap_err();
        assert!(matches!(error, ProxyError::Upstream(_)), "{url}: {error}");
    }
}
