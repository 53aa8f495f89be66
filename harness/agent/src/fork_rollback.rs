//! What a client can do to the conversation as a whole: copy it, take turns out of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{ConversationId, SubmissionId};
use cutpoint_protocol::session::{AbortReason, EventMsg};

use crate::defect::Defect;
use crate::dispatch::Dispatcher;
use crate::history;
use crate::lock;
use crate::rollout::{self, LineDraft};
use crate::session_core::{ActiveTurn, SessionCore, SessionState};
use crate::turn;

impl Dispatcher {
    /// Copies the conversation into a rollout of its own. A running turn goes on, and is closed as
    /// interrupted in the copy.
    pub(crate) async fn fork(&mut self, id: &SubmissionId) {
        let core = Arc::clone(&self.core);
        // What a turn that is just finishing has in hand is in no place that a copy could be taken of.
        self.finished().await;
        let session_id = core.rng.id();
        let drafts = copy(&core, &lock(&core.state), &session_id);
        let msg = match write(&core, &session_id, drafts).await {
            Ok(path) => EventMsg::Forked {
                session_id,
                rollout_path: path.display().to_string(),
            },
            Err(error) => EventMsg::Error {
                message: format!("the fork could not be written: {error}"),
            },
        };
        core.events.emit(id, msg).await;
    }

    /// Takes the last turns out of the history.
    pub(crate) async fn rollback(&mut self, id: &SubmissionId, turns: usize) {
        let core = Arc::clone(&self.core);
        self.finished().await;
        let mut done = Err(RollbackError::NotRecorded);
        let recorded = core
            .record(|state| {
                done = roll_back(&core, state, turns);
                match done {
                    Ok(()) => vec![LineDraft::rolled_back(turns)],
                    Err(_) => Vec::new(),
                }
            })
            .await;
        core.report(id, recorded).await;
        let msg = match done {
            Ok(()) => {
                let flushed = core.recorder.flush().await;
                core.report(id, flushed).await;
                EventMsg::RolledBack { turns }
            }
            Err(error) => EventMsg::Error {
                message: error.to_string(),
            },
        };
        core.events.emit(id, msg).await;
    }
}

impl Dispatcher {
    /// Waits for a turn that is just finishing: it still writes its last lines.
    async fn finished(&mut self) {
        if lock(&self.core.state).active.is_none() {
            self.task_ended().await;
        }
    }
}

/// Why turns can't be taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RollbackError {
    #[error("no turn can be taken back while one runs")]
    TurnRuns,
    #[error("{turns} turns can't be taken back: there are {known}")]
    TooFewTurns { turns: usize, known: usize },
    #[error("the rollback could not be recorded")]
    NotRecorded,
}

fn roll_back(
    core: &SessionCore,
    state: &mut SessionState,
    turns: usize,
) -> Result<(), RollbackError> {
    if state.active.is_some() {
        return Err(RollbackError::TurnRuns);
    }
    let known = state.history.openings().len();
    let Some(gone) = state.history.roll_back(turns) else {
        return Err(RollbackError::TooFewTurns { turns, known });
    };
    if core.has(Defect::RollbackLeavesOutput) {
        let outputs = gone.into_iter().filter(|item| item.output_kind().is_some());
        outputs.for_each(|output| state.history.push(output));
    }
    Ok(())
}

/// The conversation as the lines of a rollout of its own.
fn copy(core: &SessionCore, state: &SessionState, session_id: &ConversationId) -> Vec<LineDraft> {
    let cwd = core.config.cwd.display().to_string();
    let from = Some(&core.session_id);
    let mut drafts = vec![LineDraft::session_meta(session_id, &cwd, from)];
    let mut items = state.history.items().to_vec();
    let active = state.active.as_ref();
    items.extend(active.map(turn::in_hand).into_iter().flatten());
    for (call_id, kind) in history::open_calls(&items) {
        items.push(Item::output(kind, &call_id, history::ABORTED));
    }
    if core.has(Defect::ForkLeavesCallOpen) {
        items.retain(|item| item.output_kind().is_none());
    }
    let mut running = active.map(|active| &active.turn.id);
    let mut messages = 0;
    for item in &history::paired(items) {
        let is_user = item.role() == Some("user");
        let mut openings = state.history.openings().iter();
        let opening = openings.find(|opening| is_user && opening.message == messages);
        messages += usize::from(is_user);
        let Some(opening) = opening else {
            drafts.push(LineDraft::item(item));
            continue;
        };
        if let Some(turn_id) = running.take_if(|turn_id| **turn_id == opening.turn_id) {
            drafts.push(LineDraft::turn_started(turn_id));
        }
        drafts.extend(LineDraft::opening(&opening.turn_id, item));
    }
    // A turn that no message opened, such as a command of the user's.
    drafts.extend(running.map(LineDraft::turn_started));
    drafts.extend(active.into_iter().flat_map(|active| closing(core, active)));
    drafts
}

/// What closes a running turn as interrupted.
fn closing(core: &SessionCore, active: &ActiveTurn) -> Vec<LineDraft> {
    let mut drafts = Vec::new();
    if !core.has(Defect::ForkWithoutMarker) {
        drafts.push(LineDraft::item(&history::marker()));
    }
    let turn_id = &active.turn.id;
    drafts.push(LineDraft::turn_aborted(turn_id, AbortReason::Interrupted));
    drafts
}

async fn write(
    core: &SessionCore,
    session_id: &ConversationId,
    drafts: Vec<LineDraft>,
) -> io::Result<PathBuf> {
    let name = format!("rollout-{}-{session_id}.jsonl", core.clock.file_stamp());
    let file = core.store.create(&name).await?;
    let path = file.path().to_owned();
    rollout::write_whole(file, core.clock, core.hooks.clone(), drafts).await?;
    Ok(path)
}
