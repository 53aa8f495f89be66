//! The way to the server that is recorded: HTTP/1.1 or HTTP/2, with or without TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::ProxyError;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The client of the server that is recorded.
pub(super) type Upstream = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Reads a base URL: scheme, host, and the path that requests are put below.
pub(super) fn base(url: &str) -> Result<Uri, ProxyError> {
    let wrong = |why: &str| ProxyError::Upstream(format!("`{url}` {why}"));
    let uri: Uri = url
        .trim_end_matches('/')
        .parse()
        .map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("has to begin with http:// or https://"));
    }
    if uri.query().is_some() {
        return Err(wrong("has a query: give the base URL alone"));
    }
    Ok(uri)
}

/// A client for this base URL that trusts the certificates of `ca`, else those of the system.
pub(super) fn client(base: &Uri, ca: Option<&Path>) -> Result<Upstream, ProxyError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_LIMIT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(base, ca)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_LIMIT)
        .build(connector))
}

fn tls(base: &Uri, ca: Option<&Path>) -> Result<ClientConfig, ProxyError> {
    let failed = |why: String| ProxyError::Certificates(why);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let builder = match ca {
        Some(file) => builder.with_root_certificates(roots(file)?),
        // The system's certificates are not loaded where they are not needed.
        None if base.scheme_str() == Some("http") => {
            builder.with_root_certificates(RootCertStore::empty())
        }
        None => builder.with_native_roots().map_err(|error| {
            failed(format!(
                "the system has none ({error}); name a file with --ca"
            ))
        })?,
    };
    Ok(builder.with_no_client_auth())
}

fn roots(file: &Path) -> Result<RootCertStore, ProxyError> {
    let failed = |why: &dyn std::fmt::Display| {
        ProxyError::Certificates(format!("{}: {why}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"has no certificate in it; it should be a PEM file"));
    }
    Ok(roots)
}
