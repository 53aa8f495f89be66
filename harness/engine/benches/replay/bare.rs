//! The least that hyper can do: read the request, stream a prebuilt list.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cutpoint_engine::server::body::Pace;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

struct ListBody {
    frames: Arc<[Bytes]>,
    next: usize,
    pace: Pace,
    unflushed: bool,
}

impl Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next == self.frames.len() {
            return Poll::Ready(None);
        }
        // hyper writes what it has when a body has nothing for it.
        if self.pace == Pace::Flushed && std::mem::take(&mut self.unflushed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = self.frames[self.next].clone();
        self.next += 1;
        self.unflushed = true;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

/// Serves connections for ever.
pub async fn serve(listener: TcpListener, frames: Arc<[Bytes]>, pace: Pace) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without it both servers would measure Nagle's algorithm.
        let _ = stream.set_nodelay(true);
        let frames = frames.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let frames = frames.clone();
            async move {
                let _ = request.into_body().collect().await;
                let body = ListBody {
                    frames,
                    next: 0,
                    pace,
                    unflushed: false,
                };
                Response::builder()
                    .header("content-type", "text/event-stream; charset=utf-8")
                    .header("cache-control", "no-store")
                    .body(body)
            }
        });
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
