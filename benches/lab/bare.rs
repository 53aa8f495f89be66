//! The least that HTTP in this process can cost: a hyper client and a hyper server that stream
//! prebuilt frames, one by one, over a connection of their own for each request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

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

struct ListBody {
    frames: Arc<[Bytes]>,
    next: usize,
    unflushed: bool,
}

impl Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(frame) = self.frames.get(self.next).cloned() else {
            return Poll::Ready(None);
        };
        // hyper writes what it has when a body has nothing for it.
        if std::mem::take(&mut self.unflushed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.next += 1;
        self.unflushed = true;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

async fn serve(stream: DuplexStream, frames: Arc<[Bytes]>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let frames = frames.clone();
        async move {
            let _ = request.into_body().collect().await;
            let body = ListBody {
                frames,
                next: 0,
                unflushed: false,
            };
            Response::builder()
                .header("content-type", "text/event-stream; charset=utf-8")
                .body(body)
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Plays exchanges, one behind the other, and gives how many bytes the client has read.
pub async fn play(exchanges: &[Exchange]) -> usize {
    let mut read = 0;
    for Exchange { request, frames } in exchanges {
        let (client, server) = tokio::io::duplex(CONNECTION_BYTES);
        tokio::spawn(serve(server, frames.clone()));
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
