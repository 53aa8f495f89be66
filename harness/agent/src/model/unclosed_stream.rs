//! For a planted defect: a stream that is not closed when it is dropped.

use async_trait::async_trait;
use cutpoint_protocol::StreamEvent;
use tokio_util::sync::CancellationToken;

use super::{ModelStream, ModelStreamError};

/// Keeps the stream open until the session ends, even if it is dropped.
pub(crate) struct UnclosedStream {
    stream: Option<Box<dyn ModelStream>>,
    life: CancellationToken,
}

impl UnclosedStream {
    pub(crate) fn new(stream: Box<dyn ModelStream>, life: &CancellationToken) -> Self {
        Self {
            stream: Some(stream),
            life: life.clone(),
        }
    }
}

#[async_trait]
impl ModelStream for UnclosedStream {
    async fn next(&mut self) -> Option<Result<StreamEvent, ModelStreamError>> {
        self.stream.as_mut()?.next().await
    }

    fn turn_state(&self) -> Option<&str> {
        self.stream.as_ref()?.turn_state()
    }
}

impl Drop for UnclosedStream {
    fn drop(&mut self) {
        let (stream, life) = (self.stream.take(), self.life.clone());
        // A session can be dropped after its runtime; then the stream goes with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                life.cancelled().await;
                drop(stream);
            });
        }
    }
}
