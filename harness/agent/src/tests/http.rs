//! The HTTP client, against a listener that sends canned bytes.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::compose::{Composer, ItemContent};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    Endpoint, HttpModel, ModelClient, ModelError, ModelRequest, ModelStream, TcpConnector,
};

/// Accepts one connection and reads one request; returns its text and the connection.
async fn accept(listener: &TcpListener) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap();
        text.extend_from_slice(&piece[..count]);
        if text.ends_with(b"}") {
            return (String::from_utf8(text).unwrap(), stream);
        }
    }
}

async fn listen() -> (TcpListener, HttpModel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/c/7/v1", listener.local_addr().unwrap());
    let model = HttpModel::new(Endpoint::parse(&url).unwrap(), Arc::new(TcpConnector));
    (listener, model)
}

fn request() -> ModelRequest {
    ModelRequest {
        body: json!({"input": []}).to_string().into_bytes(),
        headers: vec![("x-cutpoint-turn-id", "t".to_owned())],
    }
}

fn stream_bytes() -> Vec<u8> {
    let mut composer = Composer::new("resp_1", "m", 1);
    composer.item(&ItemContent::Text {
        text: "héllo",
        chunks: 3,
    });
    composer
        .completed()
        .iter()
        .flat_map(|event| event.bytes.to_vec())
        .collect()
}

async fn names(mut stream: Box<dyn ModelStream>) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(event) = stream.next().await {
        names.push(event.unwrap().type_name().to_owned());
    }
    names
}

#[tokio::test]
async fn a_stream_in_odd_chunks() {
    let body = stream_bytes();
    for size in [1, 7, 1000] {
        let (listener, model) = listen().await;
        let serving = async {
            let (text, mut stream) = accept(&listener).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-codex-turn-state: abc\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for chunk in body.chunks(size) {
                stream
                    .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                    .await
                    .unwrap();
                stream.write_all(chunk).await.unwrap();
                stream.write_all(b"\r\n").await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            text
        };
        let asking = async {
            let stream = model.open(request()).await.unwrap();
            assert_eq!(stream.turn_state(), Some("abc"));
            names(stream).await
        };
        let (text, names) = tokio::join!(serving, asking);
        assert!(
            text.starts_with("POST /c/7/v1/responses HTTP/1.1\r\n"),
            "{text}"
        );
        assert!(text.contains("x-cutpoint-turn-id: t\r\n"));
        assert_eq!(names.first().map(String::as_str), Some("response.created"));
        assert_eq!(names.last().map(String::as_str), Some("response.completed"));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle() {
    let (listener, model) = listen().await;
    let serving = async {
        let (_, mut stream) = accept(&listener).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\ndata: {";
        stream.write_all(head.as_bytes()).await.unwrap();
    };
    let asking = async {
        let mut stream = model.open(request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_err());
        assert!(stream.next().await.is_none());
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn malformed_events_are_faults() {
    let (listener, model) = listen().await;
    let serving = async {
        let (_, mut stream) = accept(&listener).await;
        let text =
            "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\ndata: [DONE]\n\ndata: nonsense\n\n";
        stream.write_all(text.as_bytes()).await.unwrap();
    };
    let asking = async {
        let mut stream = model.open(request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_err());
        assert!(stream.next().await.is_none());
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_refusal_with_its_headers() {
    let (listener, model) = listen().await;
    let serving = async {
        let (_, mut stream) = accept(&listener).await;
        let text = "HTTP/1.1 429 Slow\r\nretry-after: 1.5\r\ncontent-length: 4\r\n\r\nbusy";
        stream.write_all(text.as_bytes()).await.unwrap();
    };
    let ((), answer) = tokio::join!(serving, model.open(request()));
    let wanted = ModelError::Status {
        status: 429,
        retry_after: Some(Duration::from_millis(1500)),
        body: "busy".to_owned(),
    };
    assert_eq!(answer.err(), Some(wanted));
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, model) = listen().await;
    drop(listener);
    assert!(matches!(
        model.open(request()).await.err(),
        Some(ModelError::Unreachable(_))
    ));
}

#[tokio::test]
async fn a_server_that_hangs_up_without_an_answer() {
    let (listener, model) = listen().await;
    let serving = async { drop(accept(&listener).await) };
    let ((), answer) = tokio::join!(serving, model.open(request()));
    assert!(matches!(answer.err(), Some(ModelError::Unreachable(_))));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (listener, model) = listen().await;
    let serving = async {
        let (_, mut stream) = accept(&listener).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The end of the connection, or its reset.
        stream.read(&mut [0; 16]).await.unwrap_or(0)
    };
    let asking = async { drop(model.open(request()).await.unwrap()) };
    let (rest, ()) = tokio::join!(serving, asking);
    assert_eq!(rest, 0);
}
