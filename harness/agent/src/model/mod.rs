//! The model, seen from the agent: one request, one stream of events.

mod connector;
mod http;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod unclosed_stream;

use std::time::Duration;

use async_trait::async_trait;
use cutpoint_protocol::StreamEvent;

pub use connector::{Connector, TcpConnector, Transport};
pub use http::HttpModel;

/// One request for a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// The body, written as JSON.
    pub body: Vec<u8>,
    /// Headers besides those that every request has.
    pub headers: Vec<(&'static str, String)>,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The server answered with another status than 200.
    #[error("the server answered {status}: {body}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
        /// The body, as text.
        body: String,
    },
    /// The server could not be reached, or closed the connection without an answer.
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
}

/// Why a stream ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelStreamError(pub String);

/// Asks the model.
#[async_trait]
pub trait ModelClient: Send + Sync {
    /// Sends a request and waits for the head of its answer. Dropping the future takes the request
    /// back, as far as that is possible.
    async fn open(&self, request: ModelRequest) -> Result<Box<dyn ModelStream>, ModelError>;
}

/// The events of one response. Dropping it closes the stream.
#[async_trait]
pub trait ModelStream: Send {
    /// The next event; `None` at the end of the stream. Nothing is lost if the future is dropped.
    async fn next(&mut self) -> Option<Result<StreamEvent, ModelStreamError>>;

    /// What the server wants to be sent with every further request of this turn.
    fn turn_state(&self) -> Option<&str> {
        None
    }
}
