//! The reference agent: a small coding agent that satisfies the whole rule book, with planted
//! defects that break one rule each.
//!
//! A [`Session`] takes submissions and emits events, both through bounded queues. One task takes
//! the submissions one after the other (`dispatch`), one runs the turn (`turn`), one owns the
//! rollout file (`rollout`); all three end at once when the session is dropped. What can be
//! replaced is behind the traits [`ModelClient`], [`RolloutStore`] and [`ToolRunner`]; who wants to
//! look on from inside is a [`Probe`].
//!
//! Architecture invariant: the agent knows nothing of the harness that drives it.

mod abort;
mod approvals;
mod clock;
mod config;
mod defect;
mod delegate;
mod dispatch;
mod events;
mod front;
mod history;
mod ids;
mod lines;
mod model;
mod parts;
mod past;
mod probe;
mod rollout;
mod session;
mod shared;
mod stdio;
mod task;
mod tools;
mod transcript;
mod turn;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use config::{Config, Endpoint, EndpointError, HistoryMode};
pub use defect::{Defect, DefectSet, UnknownDefect};
pub use front::{serve_jsonrpc, serve_jsonrpc_with};
pub use model::{
    Connector, HttpModel, ModelClient, ModelError, ModelRequest, ModelStream, StreamFault,
    TcpConnector, Wire,
};
pub use parts::Parts;
pub use probe::{Hold, POINTS, Probe};
pub use rollout::{FileStore, RolloutFile, RolloutStore};
pub use session::{Closed, Killer, Session, StartError, Submitter};
pub use stdio::{ServeError, serve_stdio, serve_with};
pub use tools::{
    Abandon, Disk, Files, ProcessTools, RunningTool, ToolCommand, ToolEvent, ToolRunner,
};
pub use transcript::{Transcript, TranscriptLine};

/// Locks a mutex whatever happened to an earlier holder: the state behind it is changed in single
/// steps, so a panic in between leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
