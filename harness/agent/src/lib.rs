//! The reference agent: a small coding agent that satisfies the whole rule book, with planted
//! defects that break one rule each.
//!
//! A [`Session`] takes submissions and emits events, both through bounded queues. One task takes
//! the submissions one after the other (`dispatch`), one runs the turn (`turn`), one owns the
//! rollout file (`rollout`); all three end at once when the session is dropped. What can be
//! replaced sits behind the traits [`ModelClient`], [`RolloutStore`] and [`ToolRunner`]; an observer
//! inside the agent is a [`Probe`].
//!
//! Architecture invariant: the agent knows nothing of the harness that drives it.

mod abort;
mod approvals;
mod caller_ids;
mod clock;
mod config;
mod defect;
mod dispatch;
mod events;
mod fork_rollback;
mod history;
mod jsonrpc;
mod line_reader;
mod model;
mod probe;
mod rollout;
mod services;
mod session;
mod session_core;
mod stdio;
mod sub_agent;
mod tools;
mod transcript;
mod turn;
mod turn_task;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use config::{Config, Endpoint, EndpointError, HistoryMode};
pub use defect::{Defect, DefectSet, UnknownDefect};
pub use jsonrpc::{serve_jsonrpc, serve_jsonrpc_with};
pub use model::{
    Connector, HttpModel, ModelClient, ModelError, ModelRequest, ModelStream, ModelStreamError,
    TcpConnector, Transport,
};
pub use probe::{POINTS, PointFuture, Probe};
pub use rollout::{FileStore, RolloutFile, RolloutStore};
pub use services::Services;
pub use session::{Killer, Session, SessionClosed, StartError, Submitter};
pub use stdio::{ServeError, serve_stdio, serve_with};
pub use tools::{
    AbandonMode, Disk, Files, ProcessTools, RunningTool, ToolCommand, ToolEvent, ToolRunner,
};
pub use transcript::{Transcript, TranscriptLine};

/// Locks a mutex whatever happened to an earlier holder: the state behind it is changed in single
/// steps, so a panic in between leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
