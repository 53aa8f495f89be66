//! A turn: requests, streams and calls until the model has nothing more to ask for.

mod calls;
mod end;
mod request;
mod stream;
mod summary;
mod tool_invocation;
pub(crate) mod tool_tasks;
mod user_requests;

use std::collections::HashSet;
use std::sync::Arc;

use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::session::EventMsg;

pub(crate) use calls::{RunningCall, stray_call};
pub(crate) use end::{failed, in_hand, tell_complete, wind_down};
pub(crate) use request::stray_request;

use crate::defect::Defect;
use crate::lock;
use crate::rollout::RolloutWriteError;
use crate::session_core::{SessionCore, Turn};
use crate::turn_task::TurnTask;
use tool_tasks::ToolTasks;

/// Why a turn fails. The text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TurnFailure(pub(crate) String);

impl From<RolloutWriteError> for TurnFailure {
    fn from(fault: RolloutWriteError) -> Self {
        Self(fault.to_string())
    }
}

/// A turn at work.
pub(crate) struct TurnWorker {
    pub(crate) core: Arc<SessionCore>,
    pub(crate) turn: Arc<Turn>,
    tool_tasks: Arc<ToolTasks>,
    /// The calls that a 400 has named already.
    recovered: HashSet<CallId>,
    /// What the model has written of a summary; absent unless it is asked for one.
    summary: Option<String>,
}

/// Runs a turn to its end, whichever way it ends: complete, failed, or cancelled, in which case the
/// abort that cancelled it does the rest.
pub(crate) async fn run(core: Arc<SessionCore>, turn: Arc<Turn>, task: Arc<dyn TurnTask>) {
    let tool_tasks = Arc::new(ToolTasks::default());
    let mut worker = TurnWorker {
        core: Arc::clone(&core),
        turn: Arc::clone(&turn),
        tool_tasks: Arc::clone(&tool_tasks),
        recovered: HashSet::new(),
        summary: None,
    };
    let work = async {
        // Here and not where the turn is started: a client that does not read must not keep the
        // session from taking an interrupt.
        core.tell_joined(&turn).await;
        to_its_end(task.as_ref(), &mut worker).await
    };
    // The work is dropped wherever it stands: all that must outlive it is in the turn and in the
    // session's state. The calls are told by the same token and end their tools themselves.
    let outcome = tokio::select! {
        biased;
        () = turn.token.cancelled(), if !core.has(Defect::AbortWaitsForStream) => None,
        outcome = tool_tasks.drive(work) => Some(outcome),
    };
    let Some(outcome) = outcome else {
        return tool_tasks.drive_out().await;
    };
    core.hooks.point("turn.finish").await;
    match outcome {
        Ok(()) => end::complete(&core, &turn).await,
        Err(failure) => end::fail(&core, &turn, &tool_tasks, failure).await,
    }
}

/// Does the work of a turn; no sub-agent outlives it.
async fn to_its_end(task: &dyn TurnTask, worker: &mut TurnWorker) -> Result<(), TurnFailure> {
    let outcome = task.work(worker).await;
    worker.turn.agents.wind_up().await;
    outcome
}

impl TurnWorker {
    /// Asks the model until it calls no more tools.
    pub(crate) async fn converse(&mut self) -> Result<(), TurnFailure> {
        loop {
            let called = self.respond().await?;
            self.finish_calls().await?;
            if !called {
                break;
            }
        }
        self.core.hooks.point("turn.flush").await;
        self.core.recorder.flush().await?;
        Ok(())
    }

    /// Waits for the calls at work and records their outputs, in the order of the calls.
    async fn finish_calls(&self) -> Result<(), TurnFailure> {
        self.core.hooks.point("turn.calls").await;
        self.tool_tasks.idle().await;
        self.core
            .record(|state| {
                let drafts = self.turn.collect_outputs(state);
                if self.core.has(Defect::ItemAfterRequest) {
                    lock(&self.turn.progress).late.extend(drafts);
                    return Vec::new();
                }
                drafts
            })
            .await?;
        Ok(())
    }

    /// Emits an event of this turn.
    pub(crate) async fn emit(&self, msg: EventMsg) {
        self.core.events.emit(&self.turn.submission, msg).await;
    }
}
