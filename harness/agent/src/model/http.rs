//! The model over HTTP/1.1, one connection per request.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cutpoint_protocol::sse::{Decoder, SseEvent};
use cutpoint_protocol::{StreamEvent, headers};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::{Connector, ModelClient, ModelError, ModelRequest, ModelStream, ModelStreamError};
use crate::config::Endpoint;

/// How much of an error's body is read.
const ERROR_BODY_LIMIT_BYTES: usize = 64 << 10;

/// Speaks HTTP/1.1 over the connections of a [`Connector`].
#[derive(Clone)]
pub struct HttpModel {
    endpoint: Endpoint,
    connector: Arc<dyn Connector>,
}

impl fmt::Debug for HttpModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpModel")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl HttpModel {
    /// A client for this endpoint.
    pub fn new(endpoint: Endpoint, connector: Arc<dyn Connector>) -> Self {
        Self {
            endpoint,
            connector,
        }
    }

    fn request(&self, request: ModelRequest) -> Result<Request<Full<Bytes>>, ModelError> {
        let mut builder = Request::post(format!("{}/responses", self.endpoint.path))
            .header(HOST, &self.endpoint.authority)
            .header(
                USER_AGENT,
                concat!("cutpoint-agent/", env!("CARGO_PKG_VERSION")),
            )
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream");
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        builder
            .body(Full::new(Bytes::from(request.body)))
            .map_err(unreachable)
    }
}

fn unreachable(error: impl fmt::Display) -> ModelError {
    ModelError::Unreachable(error.to_string())
}

#[async_trait]
impl ModelClient for HttpModel {
    async fn open(&self, request: ModelRequest) -> Result<Box<dyn ModelStream>, ModelError> {
        let request = self.request(request)?;
        let wire = self
            .connector
            .connect(&self.endpoint.authority)
            .await
            .map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire))
            .await
            .map_err(unreachable)?;
        let mut connection = Connection(Some(Box::pin(async move {
            // What breaks the connection shows in the answer or its body.
            let _ = connection.await;
        })));
        let response = connection
            .beside(sender.send_request(request))
            .await
            .map_err(unreachable)?;
        let status = response.status().as_u16();
        if status != 200 {
            let retry_after = retry_after(response.headers());
            let body = error_body(&mut connection, response).await;
            return Err(ModelError::Status {
                status,
                retry_after,
                body,
            });
        }
        let state = response.headers().get(headers::TURN_STATE);
        Ok(Box::new(HttpStream {
            turn_state: state
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            connection,
            body: response.into_body(),
            decoder: Decoder::default(),
            events: VecDeque::new(),
            ended: false,
        }))
    }
}

/// The work that moves a connection's bytes. It is done by whoever waits for the answer, not by a
/// task of its own, so that dropping the answer closes the connection at once.
struct Connection(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Connection {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(work) = &mut self.0
            && work.as_mut().poll(context).is_ready()
        {
            self.0 = None;
        }
    }

    async fn beside<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            self.poll(context);
            future.as_mut().poll(context)
        })
        .await
    }

    /// The next bytes of a body; trailers are passed over.
    async fn data(&mut self, body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|context| {
            loop {
                self.poll(context);
                match ready!(Pin::new(&mut *body).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                }
            }
        })
        .await
    }
}

async fn error_body(connection: &mut Connection, response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = connection.data(&mut body).await {
        let room = ERROR_BODY_LIMIT_BYTES - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == ERROR_BODY_LIMIT_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `retry-after-ms` or `retry-after` in seconds. The form with a date is not read: it needs clocks
/// that agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| {
        let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        (value >= 0.0 && value.is_finite()).then_some(value)
    };
    let seconds = number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .or_else(|| number("retry-after"));
    Duration::try_from_secs_f64(seconds?).ok()
}

struct HttpStream {
    turn_state: Option<String>,
    connection: Connection,
    body: Incoming,
    decoder: Decoder,
    events: VecDeque<SseEvent>,
    ended: bool,
}

#[async_trait]
impl ModelStream for HttpStream {
    async fn next(&mut self) -> Option<Result<StreamEvent, ModelStreamError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if event.data == "[DONE]" {
                    continue;
                }
                return Some(
                    StreamEvent::parse(&event.data)
                        .map_err(|error| ModelStreamError(error.to_string())),
                );
            }
            if self.ended {
                return None;
            }
            let mut events = Vec::new();
            match self.connection.data(&mut self.body).await {
                Some(Ok(data)) => {
                    let result = self.decoder.push(&data, &mut events);
                    self.events.extend(events);
                    if let Err(error) = result {
                        self.ended = true;
                        return Some(Err(ModelStreamError(error.to_string())));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(ModelStreamError(error.to_string())));
                }
                None => self.ended = true,
            }
        }
    }

    fn turn_state(&self) -> Option<&str> {
        self.turn_state.as_deref()
    }
}
