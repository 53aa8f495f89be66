//! A turn: requests, streams and calls until the model has nothing more to ask for.

mod calls;
pub(crate) mod crew;
mod end;
mod request;
mod stream;

use std::collections::HashSet;
use std::sync::Arc;

use cutpoint_protocol::session::EventMsg;

pub(crate) use calls::stray_call;
pub(crate) use end::{failed, wind_down};

use crate::defect::Defect;
use crate::lock;
use crate::rollout::WriteFault;
use crate::shared::{Core, Turn};
use crew::Crew;

/// Why a turn fails. The text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

impl From<WriteFault> for Failure {
    fn from(fault: WriteFault) -> Self {
        Self(fault.to_string())
    }
}

/// A turn at work.
struct Worker {
    core: Arc<Core>,
    turn: Arc<Turn>,
    crew: Arc<Crew>,
    /// The calls that a 400 has named already.
    recovered: HashSet<String>,
}

/// Runs a turn to its end, whichever way it ends: complete, failed, or cancelled, in which case the
/// abort that cancelled it does the rest.
pub(crate) async fn run(core: Arc<Core>, turn: Arc<Turn>) {
    let crew = Arc::new(Crew::default());
    let mut worker = Worker {
        core: Arc::clone(&core),
        turn: Arc::clone(&turn),
        crew: Arc::clone(&crew),
        recovered: HashSet::new(),
    };
    // The work is dropped wherever it stands: all that must outlive it is in the turn and in the
    // session's state. The calls are told by the same token and end their tools themselves.
    let outcome = tokio::select! {
        biased;
        () = turn.token.cancelled() => None,
        outcome = crew.drive(worker.work()) => Some(outcome),
    };
    let Some(outcome) = outcome else {
        return crew.drive_out().await;
    };
    core.hooks.point("turn.finish").await;
    match outcome {
        Ok(()) => end::complete(&core, &turn).await,
        Err(failure) => end::fail(&core, &turn, &crew, failure).await,
    }
}

impl Worker {
    /// Asks the model until it calls no more tools.
    async fn work(&mut self) -> Result<(), Failure> {
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
    async fn finish_calls(&self) -> Result<(), Failure> {
        self.core.hooks.point("turn.calls").await;
        self.crew.idle().await;
        self.core
            .record(|state| {
                let drafts = self.turn.collect_outputs(state);
                if self.core.has(Defect::ItemAfterRequest) {
                    lock(&self.turn.live).late.extend(drafts);
                    return Vec::new();
                }
                drafts
            })
            .await?;
        Ok(())
    }

    /// Emits an event of this turn.
    async fn emit(&self, msg: EventMsg) {
        self.core.events.emit(&self.turn.submission, msg).await;
    }
}
