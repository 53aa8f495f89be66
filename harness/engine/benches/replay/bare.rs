//! The bare server over TCP.

use std::sync::Arc;

use bytes::Bytes;
use cutpoint_bench::bare;
use cutpoint_engine::server::body::Pace;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves connections for ever.
pub async fn serve(listener: TcpListener, frames: Arc<[Bytes]>, pace: Pace) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without it both servers would measure Nagle's algorithm.
        let _ = stream.set_nodelay(true);
        let flushes = pace == Pace::Flushed;
        tokio::spawn(bare::serve(TokioIo::new(stream), frames.clone(), flushes));
    }
}
