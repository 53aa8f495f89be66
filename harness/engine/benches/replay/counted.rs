//! Streams whose instructions are counted: server and client in one thread, with nothing between them
//! but memory, so that the count is the same each time.

use std::sync::Arc;

use cutpoint_engine::lab;
use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::client::{END, NUMBER};
use crate::serve::{STREAM_EVENTS, case, request};

/// So many streams are counted.
const STREAMS: usize = 100;

/// A server that has answered once.
pub fn prepare() -> Box<dyn FnOnce()> {
    let server = Arc::new(ReplayServer::in_memory(ServerConfig::default()));
    server.add("/v1", case(STREAM_EVENTS, Pace::Flushed, true));
    streams(&server, 0..1);
    Box::new(move || streams(&server, 1..STREAMS + 1))
}

fn streams(server: &ReplayServer, numbers: std::ops::Range<usize>) {
    let request = request(0);
    let exchange = async {
        let mut connection = server.connect();
        for number in numbers {
            let request = request.replace(NUMBER, &format!("{number:08}"));
            let sent = connection.write_all(request.as_bytes()).await;
            sent.expect("the server reads");
            read(&mut connection).await;
        }
    };
    lab::block_on(exchange).expect("a runtime");
}

/// Reads a response to its end.
async fn read(connection: &mut DuplexStream) {
    let mut response = Vec::new();
    while !response.ends_with(END) {
        let count = connection.read_buf(&mut response).await;
        assert_ne!(
            count.expect("the server writes"),
            0,
            "the server closed the connection"
        );
    }
    assert!(response.starts_with(b"HTTP/1.1 200 "));
}
