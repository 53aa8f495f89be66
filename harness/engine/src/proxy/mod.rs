//! The recording proxy: between any client and a server that speaks the Responses API.
//!
//! Towards the client it is plain HTTP/1.1 on loopback. What the server sends goes to the client as
//! it comes, with the same bytes and the same end; a copy is kept in memory, and redacted before
//! anybody can store it.

pub mod command;
mod decode;
mod recorder;
mod relay;
mod upstream;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cutpoint_recording::Redactor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::recorder::Recorder;
pub use self::recorder::{CaptureLimits, RecordedSession};
use self::relay::{BASE, Relay};
use crate::server::Connection;

/// How long answers that are under way may take to end once the proxy is to stop.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Settings of a proxy.
#[derive(Debug)]
pub struct ProxyConfig {
    /// The base URL that requests go to.
    pub upstream: String,
    /// Certificates to trust in place of the system's, as a PEM file.
    pub ca: Option<PathBuf>,
    /// Takes secrets out of what is recorded.
    pub redactor: Redactor,
    /// Bounds of what is recorded.
    pub limits: CaptureLimits,
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The base URL is none.
    #[error("the upstream {0}")]
    Upstream(String),
    /// The certificates can't be used.
    #[error("no certificates: {0}")]
    Certificates(String),
    /// There is no port to listen on.
    #[error("cannot listen on 127.0.0.1: {0}")]
    Listen(std::io::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If a setting is wrong, or there is no port.
    pub async fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        let base = upstream::base(&config.upstream)?;
        let client = upstream::client(&base, config.ca.as_deref())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(ProxyError::Listen)?;
        let address = listener.local_addr().map_err(ProxyError::Listen)?;
        let recorder = Recorder::start(config.redactor, config.limits);
        let stop = CancellationToken::new();
        let relay = Relay {
            base,
            client,
            recorder: recorder.clone(),
        };
        let accepting = tokio::spawn(accept(listener, Arc::new(relay), stop.clone()));
        Ok(Self {
            address,
            recorder,
            stop,
            accepting,
        })
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    /// Waits a moment for what is under way, ends all connections, and returns what was recorded.
    pub async fn finish(self) -> RecordedSession {
        self.recorder.idle(END_LIMIT).await;
        self.stop.cancel();
        // It ends by itself; a panic in it is a bug that was already reported.
        let _ = self.accepting.await;
        self.recorder.finish()
    }
}

async fn accept(listener: TcpListener, relay: Arc<Relay>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(connection) = Connection::new(stream) {
                    connections.spawn(serve(connection, relay.clone()));
                }
            }
            // Out of file descriptors, or the peer was gone already: the next one may work.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    connections.shutdown().await;
}

async fn serve(connection: Connection, relay: Arc<Relay>) {
    let control = connection.control();
    let service = service_fn(move |request| {
        let (relay, control) = (relay.clone(), control.clone());
        async move { Ok::<_, Infallible>(relay.answer(request, control).await) }
    });
    // An error here is a client that went away, or a server that cut an answer off: both are recorded.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), service)
        .await;
}
