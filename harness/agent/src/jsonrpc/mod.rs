//! The agent as a JSON-RPC server on a pair of pipes: several conversations, listeners, requests
//! that are answered.
//!
//! One message a line, without the `jsonrpc` member. A reader takes requests one after the other
//! (`server`), a forwarder for each conversation writes its events and whatever is due after them
//! (`forward`), one writer owns the output. Everything between them is bounded: a client that
//! doesn't read makes the writer wait, then the forwarders, then the sessions, then the reader. As
//! none of these ever waits for one before it, all goes on when the client reads again.

mod client_requests;
mod conversation;
mod event_forwarder;
mod interrupts;
mod message;
mod params;
mod server;

use std::io;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::line_reader::write_line;
use crate::services::Services;
use crate::stdio::ServeError;
use message::Outbox;
use server::Server;

/// How many messages wait for the client at most.
const OUTBOX: usize = 256;

/// Serves conversations with real parts until the client shuts the agent down or closes its end.
/// The config is that of every conversation, but for ids, seeds and rollouts.
///
/// # Errors
/// If the output can't be written, or the rollout directory can't be created.
pub async fn serve_jsonrpc<R, W>(config: Config, stdin: R, stdout: W) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let services = Services::real(&config)?;
    serve_jsonrpc_with(config, services, stdin, stdout).await
}

/// The same with other parts.
///
/// # Errors
/// If the output can't be written.
pub async fn serve_jsonrpc_with<R, W>(
    config: Config,
    services: Services,
    stdin: R,
    stdout: W,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (out, outbox) = mpsc::channel(OUTBOX);
    let server = Server::new(config, services, Outbox::new(out));
    let mut input = std::pin::pin!(server.serve(stdin));
    let mut output = std::pin::pin!(write(stdout, outbox));
    // Without its client the agent ends, and the conversations are dropped with the server.
    tokio::select! {
        biased;
        result = &mut output => return Ok(result?),
        () = &mut input => {}
    }
    Ok(output.await?)
}

/// Writes messages until every sender is gone.
async fn write<W: AsyncWrite + Unpin>(
    mut stdout: W,
    mut outbox: mpsc::Receiver<Value>,
) -> io::Result<()> {
    while let Some(message) = outbox.recv().await {
        write_line(&mut stdout, serde_json::to_vec(&message)?).await?;
    }
    stdout.shutdown().await
}
