//! The agent on a pair of pipes: JSON lines `{"id","op"}` in, `{"id","msg"}` out.

use std::io;

use cutpoint_protocol::ids::SubmissionId;
use cutpoint_protocol::session::{Event, EventMsg, Op, Submission};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::line_reader::{LineReader, LineTooLong, write_line};
use crate::services::Services;
use crate::session::{Session, StartError};

/// How many complaints about lines wait at most.
const COMPLAINTS: usize = 16;

/// Why the agent stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The session did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A pipe broke.
    #[error("the client can't be reached: {0}")]
    Pipe(#[from] io::Error),
}

/// Serves one session with real parts until its client shuts it down or closes its end.
///
/// # Errors
/// If the session can't start, or the output can't be written.
pub async fn serve_stdio<R, W>(config: Config, stdin: R, stdout: W) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let services = Services::real(&config)?;
    serve_with(config, services, stdin, stdout).await
}

/// The same with other parts.
///
/// # Errors
/// If the session can't start, or the output can't be written.
pub async fn serve_with<R, W>(
    config: Config,
    services: Services,
    stdin: R,
    stdout: W,
) -> Result<(), ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (session, events) = Session::start(config, services).await?;
    let (complain, complaints) = mpsc::channel(COMPLAINTS);
    let input = read(stdin, session, complain);
    let output = write(stdout, events, complaints);
    let mut input = std::pin::pin!(input);
    let mut output = std::pin::pin!(output);
    // The input side owns the session, so it is awaited only for the session to be dropped last.
    tokio::select! {
        biased;
        result = &mut output => Ok(result?),
        never = &mut input => match never {},
    }
}

/// Hands lines to the session, and a shutdown at their end; never returns, as the session must live
/// until its last event is written.
async fn read<R: AsyncRead + Unpin>(
    stdin: R,
    session: Session,
    complain: mpsc::Sender<Event>,
) -> std::convert::Infallible {
    let mut lines = LineReader::new(stdin);
    while let Some(line) = lines.next().await {
        let submission = match line {
            Ok(line) if line.trim_ascii().is_empty() => continue,
            Ok(line) => parse(&line),
            Err(LineTooLong) => Err(error("", "the line is longer than the agent reads")),
        };
        match submission {
            Ok(submission) => {
                if session.submit(submission).await.is_err() {
                    break;
                }
            }
            Err(event) => {
                if complain.send(event).await.is_err() {
                    break;
                }
            }
        }
    }
    let shutdown = Submission {
        id: SubmissionId::default(),
        op: Op::Shutdown,
    };
    // A session that is over already needs no telling.
    let _ = session.submit(shutdown).await;
    std::future::pending().await
}

fn parse(line: &[u8]) -> Result<Submission, Event> {
    serde_json::from_slice(line).map_err(|fault| {
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        let id = value["id"].as_str().unwrap_or_default();
        error(id, &format!("the line is no submission: {fault}"))
    })
}

fn error(id: &str, message: &str) -> Event {
    Event {
        id: id.into(),
        msg: EventMsg::Error {
            message: message.to_owned(),
        },
    }
}

/// Writes events until the session's last one.
async fn write<W: AsyncWrite + Unpin>(
    mut stdout: W,
    mut events: mpsc::Receiver<Event>,
    mut complaints: mpsc::Receiver<Event>,
) -> io::Result<()> {
    loop {
        // The session's events come first, so that the very first line is its greeting.
        let event = tokio::select! {
           biased;
            event = events.recv() => event,
            Some(event) = complaints.recv() => Some(event),
        };
        let Some(event) = event else {
            return stdout.shutdown().await;
        };
        if event.msg == EventMsg::ShutdownComplete {
            // Nothing follows this one, so what waits goes first.
            while let Ok(complaint) = complaints.try_recv() {
                put(&mut stdout, &complaint).await?;
            }
        }
        put(&mut stdout, &event).await?;
    }
}

async fn put<W: AsyncWrite + Unpin>(stdout: &mut W, event: &Event) -> io::Result<()> {
    write_line(stdout, serde_json::to_vec(event)?).await
}
