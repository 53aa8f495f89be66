//! A proxy in front of something, and what it has recorded.

use std::net::SocketAddr;

use cutpoint_engine::proxy::{CaptureLimits, Proxy, ProxyConfig, RecordedSession};
use cutpoint_protocol::sse::Document;
use cutpoint_recording::{Exchange, Recording, Redactor, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::Client;

/// Where requests go.
pub const PATH: &str = "/v1/responses";

pub fn config(upstream: &str) -> ProxyConfig {
    ProxyConfig {
        upstream: upstream.to_owned(),
        ca: None,
        redactor: Redactor::new(&[]).unwrap(),
        limits: CaptureLimits::default(),
    }
}

/// A proxy in front of a server on this address.
pub async fn before(upstream: SocketAddr) -> Proxy {
    Proxy::start(config(&format!("http://{upstream}/v1")))
        .await
        .unwrap()
}

pub async fn ask(proxy: &Proxy, body: &Value) -> Client {
    Client::ask(proxy.address(), PATH, body).await
}

/// The only exchange that was recorded.
pub fn only(recorded: &RecordedSession) -> &Exchange {
    assert_eq!(recorded.exchanges.len(), 1, "{recorded:#?}");
    &recorded.exchanges[0]
}

/// The stream of an exchange.
pub fn stream(exchange: &Exchange) -> &Document {
    match &exchange.response {
        Response::Stream(document) => document,
        Response::Body { .. } => panic!("no stream: {exchange:#?}"),
    }
}

/// What a stream sends.
pub fn wire(document: &Document) -> Vec<u8> {
    document
        .frames
        .iter()
        .flat_map(|frame| frame.wire.clone())
        .collect()
}

/// A recording of these exchanges.
pub fn recording(recorded: RecordedSession) -> Recording {
    let mut recording = Recording::new("r", "a test");
    recording.exchanges = recorded.exchanges;
    recording
}

/// A server that answers its connections in turn with these pieces, each a write of its own, and
/// then closes the connection.
pub async fn server(answers: Vec<Vec<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for pieces in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            read_request(&mut stream).await;
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
        }
    });
    address
}

async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some(at) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1);
            let length = length.map_or(0, |rest| {
                rest.split("\r\n").next().unwrap().parse().unwrap()
            });
            if read.len() >= at + 4 + length {
                return;
            }
        }
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "the request was cut off"
        );
    }
}
