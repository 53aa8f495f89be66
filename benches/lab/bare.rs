//! The least that HTTP in this process can cost: a hyper client and a hyper server that stream
//! prebuilt frames, one by one, over a connection of their own for each request.

use std::sync::Arc;

use bytes::Bytes;
use cutpoint_bench::bare;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;

/// How many bytes a connection holds, as in the lab.
const CONNECTION_BYTES: usize = 64 << 10;

/// What goes over the wire in one exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request's body.
    pub request: Bytes,
    /// The frames of the answer.
    pub frames: Arc<[Bytes]>,
}

/// Plays exchanges, one after the other, and gives how many bytes the client has read.
pub async fn play(exchanges: &[Exchange]) -> usize {
    let mut read = 0;
    for Exchange { request, frames } in exchanges {
        let (client, server) = tokio::io::duplex(CONNECTION_BYTES);
        tokio::spawn(bare::serve(TokioIo::new(server), frames.clone(), true));
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client)).await;
        let (mut sender, connection) = handshake.expect("a connection within this process");
        let connection = tokio::spawn(connection);
        let request = Request::post("/v1/responses")
            .header("host", "lab")
            .header("content-type", "application/json")
            .body(Full::new(request.clone()));
        let response = sender.send_request(request.expect("a request")).await;
        let mut body = response.expect("an answer").into_body();
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        connection.abort();
    }
    read
}
