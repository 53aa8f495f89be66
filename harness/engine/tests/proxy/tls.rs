//! TLS to the server, with HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use cutpoint_engine::proxy::{Proxy, ProxyConfig, ProxyError};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::End;
use crate::rig::says;
use crate::support::{ask, config, only, stream, wire};

const EVENTS: [&str; 3] = [
    "data: {\"type\":\"one\"}\n\n",
    "data: {\"type\":\"two\"}\n\n",
    ": end\n\n",
];

/// A server with a certificate of its own making that speaks one protocol, and the certificate.
async fn server(protocol: &'static str) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = service_fn(move |request| answer(protocol, request));
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                if protocol == "h2" {
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(io, service).await;
                } else {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(io, service).await;
                }
            });
        }
    });
    (address, made.cert.pem())
}

async fn answer(
    protocol: &str,
    request: Request<Incoming>,
) -> Result<Response<String>, Infallible> {
    let wanted = if protocol == "h2" {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    assert_eq!(request.version(), wanted);
    assert_eq!(request.uri().path(), "/v1/responses");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{"));
    let mut response = Response::new(EVENTS.concat());
    let kind = "text/event-stream".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}

#[tokio::test]
async fn a_server_with_tls_is_recorded_over_http_1_and_2() {
    for protocol in ["http/1.1", "h2"] {
        let (address, certificate) = server(protocol).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate).unwrap();
        let settings = ProxyConfig {
            ca: Some(file.path().to_owned()),
            ..config(&format!("https://{address}/v1"))
        };
        let proxy = Proxy::start(settings).await.unwrap();
        let mut client = ask(&proxy, &says("hi")).await;
        let head = client.head().await;
        assert_eq!(
            (head.status, head.version.as_str()),
            (200, "HTTP/1.1"),
            "{protocol}"
        );
        assert_eq!(client.finish().await, End::Whole);
        assert_eq!(client.body, EVENTS.concat().as_bytes());
        drop(client);
        let recorded = proxy.finish().await;
        assert_eq!(wire(stream(only(&recorded))), EVENTS.concat().as_bytes());
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (address, _) = server("h2").await;
    let (_, other) = server("h2").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), other).unwrap();
    let settings = ProxyConfig {
        ca: Some(file.path().to_owned()),
        ..config(&format!("https://{address}/v1"))
    };
    let proxy = Proxy::start(settings).await.unwrap();
    let (head, body) = ask(&proxy, &says("hi")).await.json().await;
    assert_eq!(head.status, 502);
    assert!(body.to_string().contains("certificate"), "{body}");
    assert_eq!(proxy.finish().await.exchanges, []);
}

#[tokio::test]
async fn a_file_without_certificates_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(file.path(), text).unwrap();
        let settings = ProxyConfig {
            ca: Some(file.path().to_owned()),
            ..config("https://127.0.0.1/v1")
        };
        let error = Proxy::start(settings).await.unwrap_err();
        assert!(matches!(error, ProxyError::Certificates(_)), "{error}");
    }
}
