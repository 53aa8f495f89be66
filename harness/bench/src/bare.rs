//! The least that a hyper server can do: read a request, stream a prebuilt list. Benchmarks compare
//! cutpoint's servers with it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};

struct ListBody {
    frames: Arc<[Bytes]>,
    next: usize,
    flushes: bool,
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
        if self.flushes && std::mem::take(&mut self.unflushed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.next += 1;
        self.unflushed = true;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

/// Answers every request of a connection with the same frames, each flushed by itself if `flushes`.
pub async fn serve<C>(connection: C, frames: Arc<[Bytes]>, flushes: bool)
where
    C: Read + Write + Unpin + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let frames = frames.clone();
        async move {
            let _ = request.into_body().collect().await;
            let body = ListBody {
                frames,
                next: 0,
                flushes,
                unflushed: false,
            };
            Response::builder()
                .header("content-type", "text/event-stream; charset=utf-8")
                .header("cache-control", "no-store")
                .body(body)
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(connection, service).await;
}
