//! The replay server: a mock of the Responses API that holds, drops and refuses.
//!
//! One server carries many cases, each below a base path of its own. It is written on hyper itself,
//! because a gate inside an event needs to decide when bytes are flushed, and a TCP reset needs the
//! socket.
//!
//! A client that shuts down its sending side while a response is under way counts as gone: to the
//! server this looks the same as a closed connection until it next writes, and a trace has to tell
//! an agent that hung up from one that reads on. One that pipelines a further request behind it is
//! noticed only at that write, because hyper reads no further than it has to.

pub mod body;
pub mod case;
pub mod conversation;
pub mod gate;
pub mod live_streams;
pub mod plan;
pub mod plan_cache;
mod recorded_calls;

mod connection;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cutpoint_protocol::request::ResponsesRequest;
use cutpoint_protocol::{api_error, headers};
use cutpoint_scenario::ast::DisconnectKind;
use cutpoint_trace::Observation;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::body::GatedBody;
use self::case::{Answer, CaseConfig, ServerCase};
pub(crate) use self::connection::Connection;
pub use self::connection::{ConnectionControl, Endpoints};
use self::gate::{Gate, GateDecision};
use self::plan_cache::PlanCache;

/// Default limit of a request body: 64 MiB, a few times what the API takes.
pub const REQUEST_LIMIT_BYTES: usize = 64 << 20;
/// How long a client may take to send a request's headers, or its body.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections served at once; more wait in the listener's backlog.
pub const CONNECTION_LIMIT: usize = 4096;

/// How many headers of a request are kept for the trace.
const HEADERS_KEPT: usize = 16;
/// The longest header that is kept, in bytes.
const HEADER_LIMIT_BYTES: usize = 512;
/// Words in the name of a header that may carry a credential.
const SECRETS: &[&str] = &["key", "token", "auth", "secret", "cookie", "password"];

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether an address that other machines can reach is allowed.
    pub beyond_loopback: bool,
    /// Largest request body, in bytes.
    pub request_limit_bytes: usize,
    /// How long a client may take to send a request.
    pub request_timeout: Duration,
    /// Where composed streams are kept; servers of the same scenarios may share it.
    pub plans: PlanCache,
    /// Whether a request that no recorded one is like gets the answer of its place, and is only counted
    /// as diverged.
    pub drifts: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            beyond_loopback: false,
            request_limit_bytes: REQUEST_LIMIT_BYTES,
            request_timeout: REQUEST_TIMEOUT,
            plans: PlanCache::default(),
            drifts: false,
        }
    }
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can be reached from other machines.
    #[error(
        "{0} can be reached from other machines; cutpoint listens on loopback unless the user allows more"
    )]
    NotLoopback(IpAddr),
    /// The address can't be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

type Cases = Arc<RwLock<HashMap<String, Arc<ServerCase>>>>;
type ResponseBody = BoxBody<Bytes, io::Error>;

/// The address of a server that listens nowhere.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How many bytes a connection within this process holds: as many as a socket's buffer might.
const MEMORY_BYTES: usize = 64 << 10;

/// A running server. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct ReplayServer {
    address: SocketAddr,
    cases: Cases,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
}

impl ReplayServer {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    /// If the address is not allowed or can't be had.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let wanted = config.address;
        if !wanted.ip().is_loopback() && !config.beyond_loopback {
            return Err(ServerError::NotLoopback(wanted.ip()));
        }
        let failed = |source| ServerError::Listen {
            address: wanted,
            source,
        };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let server = Self {
            address,
            cases: Cases::default(),
            config: Arc::new(config),
            stop: CancellationToken::new(),
        };
        tokio::spawn(accept(
            listener,
            server.cases.clone(),
            server.config.clone(),
            server.stop.clone(),
        ));
        Ok(server)
    }

    /// A server that only [`ReplayServer::connect`] reaches.
    pub fn in_memory(config: ServerConfig) -> Self {
        Self {
            address: NOWHERE,
            cases: Cases::default(),
            config: Arc::new(config),
            stop: CancellationToken::new(),
        }
    }

    /// Where the server listens; port 0 if it can be reached within this process only.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection within this process, served by a task of the current runtime.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(MEMORY_BYTES);
        let connection = Connection::in_memory(server);
        let serve = serve(connection, self.cases.clone(), self.config.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(serve));
        client
    }

    /// Where composed streams are kept.
    pub(crate) fn plans(&self) -> &PlanCache {
        &self.config.plans
    }

    /// Adds a case below `base`, a path without a slash at its end (`""` or `/c/7/v1`).
    pub fn add(&self, base: &str, config: CaseConfig) -> Arc<ServerCase> {
        let case = Arc::new(ServerCase::new(
            config,
            self.config.plans.clone(),
            self.config.drifts,
        ));
        let mut cases = self.cases.write().unwrap_or_else(PoisonError::into_inner);
        cases.insert(base.to_owned(), case.clone());
        case
    }

    /// Takes a case away. Responses under way go on to their end.
    pub fn remove(&self, base: &str) {
        self.cases
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(base);
    }

    /// The base URL of the case below `base`.
    pub fn base_url(&self, base: &str) -> String {
        format!("http://{}{base}", self.address)
    }
}

impl Drop for ReplayServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    cases: Cases,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTION_LIMIT => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(connection) = Connection::new(stream) {
                    connections.spawn(serve(connection, cases.clone(), config.clone()));
                }
            }
            // Out of file descriptors, or the peer was gone already: the next one may work.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    connections.shutdown().await;
}

async fn serve(connection: Connection, cases: Cases, config: Arc<ServerConfig>) {
    let control = connection.control();
    // A client within this process is part of the run, which has limits of its own.
    let header_timeout = control.ends().map(|_| config.request_timeout);
    let service = service_fn(move |request| {
        let answered = respond(request, cases.clone(), config.clone(), control.clone());
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // An error here is a client that went away or spoke no HTTP: hyper has answered what it could.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    cases: Cases,
    config: Arc<ServerConfig>,
    control: Arc<ConnectionControl>,
) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let (base, resource) = match path.rfind('/') {
        Some(at) => path.split_at(at),
        None => ("", path.as_str()),
    };
    let found = cases
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(base)
        .cloned();
    let Some(case) = found else {
        let message = format!("Nothing is served at {path}.");
        return error(StatusCode::NOT_FOUND, &message);
    };
    match (request.method(), resource) {
        (&Method::POST, "/responses") => responses(request, &case, base, &config, control).await,
        (&Method::GET, "/models") => json_response(StatusCode::OK, models()),
        // What the API's hosts without WebSocket answer; clients then use HTTP.
        (&Method::GET, "/responses") => error(
            StatusCode::UPGRADE_REQUIRED,
            "This server speaks HTTP only.",
        ),
        (method, resource) => {
            let message = format!("cutpoint does not serve {method} {resource}.");
            error(StatusCode::NOT_FOUND, &message)
        }
    }
}

/// An empty list in both shapes that clients ask for: the API's (`data`) and Codex's (`models`).
fn models() -> String {
    json!({"object": "list", "data": [], "models": []}).to_string()
}

async fn responses(
    request: Request<Incoming>,
    case: &Arc<ServerCase>,
    base: &str,
    config: &ServerConfig,
    control: Arc<ConnectionControl>,
) -> Response<ResponseBody> {
    let headers = state_headers(request.headers());
    let parsed = match read_request(request, config).await {
        Ok(parsed) => parsed,
        Err((status, message)) => return error(status, &message),
    };
    let exchange = case.next_exchange();
    match case.answer(exchange, &parsed, headers) {
        Answer::Body {
            status,
            headers,
            body,
            before,
            reply,
        } => {
            if let Some(kind) = pass(before, &control, case, exchange).await {
                return dropped(kind, control, case, exchange);
            }
            case.record(|| Observation::ResponseHead {
                exchange,
                status,
                reply,
                retry_after_ms: retry_after_ms(&headers),
            });
            case.record(|| Observation::ResponseBody {
                exchange,
                body: serde_json::from_str(&body).unwrap_or_else(|_| json!(body)),
            });
            case.record(|| Observation::StreamEnd {
                exchange,
                how: cutpoint_trace::StreamEnd::Complete,
            });
            whole(status, &headers, body)
        }
        Answer::Stream {
            plan,
            holds,
            before,
            reply,
            remember,
        } => {
            if let Some(kind) = pass(before, &control, case, exchange).await {
                return dropped(kind, control, case, exchange);
            }
            if !parsed.stream() {
                return not_streamed(case, exchange, reply, &plan, remember);
            }
            let status = plan.status;
            case.record(|| Observation::ResponseHead {
                exchange,
                status,
                reply: Some(reply),
                retry_after_ms: None,
            });
            let mut body = GatedBody::new(&plan, holds, control)
                .pace(case.pace())
                .live(case.streams().open())
                .traced(exchange, case.tracer().cloned());
            if let Some((id, history)) = remember {
                let case = case.clone();
                body = body.on_sent(Box::new(move || case.remember(id, history)));
            }
            let mut response = stream_response(status, body);
            if let Ok(state) = turn_state(base, exchange).parse() {
                response.headers_mut().insert(headers::TURN_STATE, state);
            }
            response
        }
    }
}

/// What a client is to send with the further requests of its turn. It tells the case and the
/// exchange that gave it, so that no two are the same.
fn turn_state(base: &str, exchange: usize) -> String {
    let case: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    let case = if case.is_empty() {
        "cutpoint".to_owned()
    } else {
        case.join("-")
    };
    format!("{case}-{exchange}")
}

/// The headers that say something of a client's state: a few short ones that begin with `x-`, and
/// none that may be a credential.
fn state_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let secret = |name: &str| SECRETS.iter().any(|word| name.contains(word));
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") && !secret(name.as_str()))
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .filter(|(_, value)| value.len() <= HEADER_LIMIT_BYTES)
        .take(HEADERS_KEPT)
        .collect()
}

async fn read_request(
    request: Request<Incoming>,
    config: &ServerConfig,
) -> Result<ResponsesRequest, (StatusCode, String)> {
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
        && encoding.as_bytes() != b"identity"
    {
        let message =
            format!("cutpoint does not read requests with content-encoding {encoding:?}.");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let limit = config.request_limit_bytes;
    let too_large = || {
        let message = format!("The request's body is larger than {limit} bytes.");
        (StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    // What the request declares needs not be read to be refused.
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit).collect();
    let body = match tokio::time::timeout(config.request_timeout, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(cause)) => {
            let message = format!("The request's body could not be read: {cause}");
            return Err((StatusCode::BAD_REQUEST, message));
        }
        Err(_) => {
            let message = "The request's body did not arrive in time.".to_owned();
            return Err((StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    ResponsesRequest::parse(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// Waits at a gate in front of a response; tells how it is to be dropped if it is not to go on.
async fn pass(
    gate: Option<Arc<Gate>>,
    control: &ConnectionControl,
    case: &ServerCase,
    exchange: usize,
) -> Option<DisconnectKind> {
    let gate = gate?;
    let mut waiting = Waiting {
        case,
        exchange,
        held: true,
    };
    let verdict = poll_fn(|context| gate.poll(control.ends(), context)).await;
    waiting.held = false;
    match verdict {
        GateDecision::Release => None,
        GateDecision::Drop(kind) => Some(kind),
    }
}

/// A request that waits at a gate. When its client goes away hyper drops the wait, and this with it.
struct Waiting<'a> {
    case: &'a ServerCase,
    exchange: usize,
    held: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.held {
            self.case.record(|| Observation::Disconnected {
                exchange: self.exchange,
            });
        }
    }
}

/// How long an answer asks its client to wait.
fn retry_after_ms(headers: &[(String, String)]) -> Option<u64> {
    let number = |wanted: &str| -> Option<u64> {
        let (_, value) = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        value.trim().parse().ok()
    };
    let seconds = || number("retry-after").map(|seconds| seconds.saturating_mul(1000));
    number("retry-after-ms").or_else(seconds)
}

/// A connection that ends before the response began: the body fails at once, and hyper has sent
/// nothing yet. One that is to end in good order is a head without a body.
fn dropped(
    kind: DisconnectKind,
    control: Arc<ConnectionControl>,
    case: &ServerCase,
    exchange: usize,
) -> Response<ResponseBody> {
    if kind == DisconnectKind::End {
        case.record(|| Observation::ResponseHead {
            exchange,
            status: 200,
            reply: None,
            retry_after_ms: None,
        });
    }
    let plan = plan::StreamPlan {
        status: 200,
        frames: Arc::from([]),
        ending: plan::Ending::Drop(kind),
    };
    let body = GatedBody::new(&plan, Vec::new(), control).without_head();
    stream_response(200, body.traced(exchange, case.tracer().cloned()))
}

fn not_streamed(
    case: &ServerCase,
    exchange: usize,
    reply: usize,
    plan: &plan::StreamPlan,
    remember: Option<(String, Vec<cutpoint_protocol::Item>)>,
) -> Response<ResponseBody> {
    let Some(response) = plan.whole_response() else {
        let message = "cutpoint: this reply has no terminal event, so it can only be streamed.";
        case.record(|| Observation::Unscripted {
            exchange,
            message: message.to_owned(),
        });
        return error(StatusCode::INTERNAL_SERVER_ERROR, message);
    };
    let body = response.clone();
    case.record(|| Observation::ResponseHead {
        exchange,
        status: 200,
        reply: Some(reply),
        retry_after_ms: None,
    });
    let text = body.to_string();
    case.record(|| Observation::ResponseBody { exchange, body });
    case.record(|| Observation::StreamEnd {
        exchange,
        how: cutpoint_trace::StreamEnd::Complete,
    });
    if let Some((id, history)) = remember {
        case.remember(id, history);
    }
    json_response(StatusCode::OK, text)
}

fn stream_response(status: u16, body: GatedBody) -> Response<ResponseBody> {
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

fn whole(status: u16, headers: &[(String, String)], body: String) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, body);
    for (name, value) in headers {
        // A header that HTTP can't carry was refused when the scenario or recording was read.
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::try_from(value.as_str()),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn json_response(status: StatusCode, body: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn error(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = api_error::invalid_body(message).body;
    json_response(status, body.to_string())
}
