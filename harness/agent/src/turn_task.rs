//! What a turn can be: a kind of work with a beginning, a cancellation and a clean-up of its own.

use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_protocol::Item;
use cutpoint_protocol::ids::CallId;

use crate::defect::Defect;
use crate::lock;
use crate::session_core::{ActiveCall, CallOrigin, SessionCore, Turn};
use crate::turn::{TurnFailure, TurnWorker};

/// A kind of work. Starting one aborts the running one as replaced.
#[async_trait]
pub(crate) trait TurnTask: Send + Sync {
    /// Does the work. When the turn is cancelled the future is dropped wherever it stands, while
    /// the calls that it has set to work see the cancellation themselves and end their tools.
    async fn work(&self, worker: &mut TurnWorker) -> Result<(), TurnFailure>;

    /// What an abort has to do for this kind of work after the end of its future, before anything
    /// is recorded. It must be bounded: the client waits for it.
    async fn clean_up(&self, core: &Arc<SessionCore>, turn: &Arc<Turn>) {
        let _ = (core, turn);
    }

    /// Called when the turn is created: its progress is saved from here on, however it ends.
    fn take_up(&self, turn: &Turn) {
        let _ = turn;
    }

    /// For a planted defect: whether it is a review.
    fn is_review(&self) -> bool {
        false
    }

    /// What is recorded in the history as the turn starts.
    fn opening(&self) -> Option<&Item> {
        None
    }
}

/// A turn with the model.
#[derive(Debug)]
pub(crate) struct ModelTurn {
    /// What the user said.
    pub(crate) input: Item,
}

#[async_trait]
impl TurnTask for ModelTurn {
    async fn work(&self, worker: &mut TurnWorker) -> Result<(), TurnFailure> {
        worker.converse().await
    }

    async fn clean_up(&self, _core: &Arc<SessionCore>, turn: &Arc<Turn>) {
        turn.agents.wind_up().await;
    }

    fn opening(&self) -> Option<&Item> {
        Some(&self.input)
    }
}

/// A command that the user runs.
#[derive(Debug)]
pub(crate) struct UserShell {
    /// Tells the command apart in events. The model never sees it.
    pub(crate) call_id: CallId,
    /// The command line.
    pub(crate) command: String,
}

#[async_trait]
impl TurnTask for UserShell {
    async fn work(&self, worker: &mut TurnWorker) -> Result<(), TurnFailure> {
        worker.user_command(&self.call_id, &self.command).await
    }

    fn take_up(&self, turn: &Turn) {
        let call = ActiveCall::new(&self.call_id, CallOrigin::User(self.command.clone()));
        lock(&turn.progress).calls.push(call);
    }
}

/// The history is replaced by a summary.
#[derive(Debug)]
pub(crate) struct Compact;

#[async_trait]
impl TurnTask for Compact {
    async fn work(&self, worker: &mut TurnWorker) -> Result<(), TurnFailure> {
        let summary = worker.summarise().await?;
        worker.compact(&summary).await
    }

    async fn clean_up(&self, core: &Arc<SessionCore>, _: &Arc<Turn>) {
        if core.has(Defect::CompactsAfterAbort) {
            lock(&core.state).history.compact("");
        }
    }
}
