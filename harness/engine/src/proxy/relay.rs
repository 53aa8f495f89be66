//! One request through the proxy: what goes on to the server, and what comes back, piece by piece.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cutpoint_protocol::api_error;
use cutpoint_recording::ResponseCut;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::recorder::{Capture, Headers, RawExchange, Recorder};
use super::upstream::Upstream;
use crate::server::ConnectionControl;

/// What a client's base URL ends in.
pub(super) const BASE: &str = "/v1";

/// Headers that belong to one connection and not to what is sent over it.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

pub(super) type ResponseBody = BoxBody<Bytes, io::Error>;

/// What all requests share.
pub(super) struct Relay {
    pub(super) base: Uri,
    pub(super) client: Upstream,
    pub(super) recorder: Arc<Recorder>,
}

impl Relay {
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        control: Arc<ConnectionControl>,
    ) -> Response<ResponseBody> {
        if wants_websocket(request.headers()) {
            // What the API's hosts without WebSocket answer; clients then use HTTP.
            let message = "cutpoint records HTTP only.";
            return refusal(StatusCode::UPGRADE_REQUIRED, message);
        }
        let Some(uri) = self.target(request.uri()) else {
            let path = request.uri().path();
            let message = format!("cutpoint records what is below {BASE}, not {path}.");
            return refusal(StatusCode::NOT_FOUND, &message);
        };
        let (head, body) = request.into_parts();
        let limit = self.recorder.limits.body_bytes;
        let body = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = format!("The request's body is larger than {limit} bytes.");
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, &message);
            }
            Err(error) => {
                let message = format!("The request's body could not be read: {error}");
                return refusal(StatusCode::BAD_REQUEST, &message);
            }
        };
        let mut capture = self.recorder.begin(RawExchange {
            order: 0,
            method: head.method.to_string(),
            path: head
                .uri
                .path_and_query()
                .map_or(BASE, |path| path.as_str())
                .to_owned(),
            request_headers: pairs(&head.headers),
            request_body: body.clone(),
            // What a client that leaves before the head would have got, as far as anybody knows.
            status: 200,
            headers: vec![(CONTENT_TYPE.to_string(), "text/event-stream".to_owned())],
            chunks: Vec::new(),
            cut: Some(ResponseCut::Stall),
        });
        let request = onward(head.method, uri, head.headers, body);
        match self.client.request(request).await {
            Ok(response) => back(response, capture, control),
            Err(error) => {
                capture.forget();
                let why = chain(&error);
                let message = format!("cutpoint: {} did not answer: {why}", self.base);
                self.recorder
                    .note(format!("{} did not answer: {why}", self.base));
                refusal(StatusCode::BAD_GATEWAY, &message)
            }
        }
    }

    /// Where a request goes: its path below the client's base, appended to the server's base.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path_and_query()?.as_str();
        let rest = path.strip_prefix(BASE)?;
        if !(rest.is_empty() || rest.starts_with(['/', '?'])) {
            return None;
        }
        let (scheme, authority) = (self.base.scheme_str()?, self.base.authority()?);
        let above = self.base.path().trim_end_matches('/');
        format!("{scheme}://{authority}{above}{rest}").parse().ok()
    }
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.to_ascii_lowercase().contains("websocket"))
}

/// The request as it goes on.
fn onward(method: Method, uri: Uri, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    without_hops(&mut headers);
    // Both are made anew: the host is another, and the body is sent whole.
    for name in [HOST, EXPECT, CONTENT_LENGTH] {
        headers.remove(name);
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// The answer as it goes back, a piece at a time.
fn back(
    response: Response<Incoming>,
    mut capture: Capture,
    control: Arc<ConnectionControl>,
) -> Response<ResponseBody> {
    let (mut head, upstream) = response.into_parts();
    capture.head(head.status.as_u16(), pairs(&head.headers));
    without_hops(&mut head.headers);
    head.version = hyper::Version::HTTP_11;
    let body = RecordingBody {
        upstream,
        capture,
        control,
        failure: None,
    };
    Response::from_parts(head, BoxBody::new(body))
}

fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn pairs(headers: &HeaderMap) -> Headers {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    headers.iter().map(pair).collect()
}

fn refusal(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = api_error::invalid_body(message).body.to_string();
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An error with what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// Hands on what the server sends as it comes, and keeps a copy.
struct RecordingBody {
    upstream: Incoming,
    capture: Capture,
    control: Arc<ConnectionControl>,
    /// How the server cut the answer off, while what came before goes out.
    failure: Option<io::Error>,
}

impl Body for RecordingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match std::task::ready!(Pin::new(&mut self.upstream).poll_frame(context)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.capture.data(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let cut = how(&error);
                self.capture.end(Some(cut));
                if cut == ResponseCut::Reset {
                    self.control.reset_on_drop();
                }
                // The connection gets a turn to flush what came before it ends the same way.
                self.failure = Some(io::Error::other(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.capture.end(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.upstream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}

impl Drop for RecordingBody {
    fn drop(&mut self) {
        // A body that is known to be whole is not asked again.
        if self.failure.is_none() && self.upstream.is_end_stream() {
            self.capture.end(None);
        }
    }
}

/// How the server cut an answer off.
fn how(error: &hyper::Error) -> ResponseCut {
    let mut source: Option<&dyn Error> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            )
        {
            return ResponseCut::Reset;
        }
        source = error.source();
    }
    ResponseCut::Close
}
