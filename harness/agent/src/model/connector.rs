//! Connections to the server.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// One connection.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Makes connections.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Connects to `host:port`.
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Transport>>;
}

/// Connects over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect(authority).await?;
        // A request is one small write; waiting for more would only delay it.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
