//! A review: a one-shot sub-agent whose last message the session keeps.

use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_protocol::Item;
use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::session::EventMsg;

use super::agents::SubAgents;
use crate::dispatch::Dispatcher;
use crate::history;
use crate::lock;
use crate::rollout::LineDraft;
use crate::session_core::{SessionCore, Turn};
use crate::turn::{TurnFailure, TurnWorker};
use crate::turn_task::TurnTask;

/// A review by a sub-agent.
#[derive(Debug)]
pub(crate) struct Review {
    prompt: String,
    /// What the model learns of it, finished or not.
    note: Item,
}

impl Review {
    pub(crate) fn new(prompt: String) -> Self {
        let note = format!("<user_action>\nThe user asked for a review: {prompt}\n</user_action>");
        let note = Item::user_text(&note);
        Self { prompt, note }
    }
}

#[async_trait]
impl TurnTask for Review {
    async fn work(&self, worker: &mut TurnWorker) -> Result<(), TurnFailure> {
        let (core, turn) = (&worker.core, &worker.turn);
        let agent = SubAgents::start(core, turn, &CallId::default(), self.prompt.clone(), true);
        let status = agent.until(|status| status.idle).await;
        if let Some(failure) = status.failure {
            return Err(TurnFailure(format!("the review failed: {failure}")));
        }
        let message = status.last_message.unwrap_or_default();
        let Some(item) = history::assistant_text(&message).filter(|_| !message.is_empty()) else {
            return Ok(());
        };
        core.record(|state| {
            lock(&turn.progress).last_message = Some(message.clone());
            let drafts = vec![
                LineDraft::item(&item),
                LineDraft::agent_message(&turn.id, &message),
            ];
            state.history.push(item);
            drafts
        })
        .await?;
        let turn_id = turn.id.clone();
        worker
            .emit(EventMsg::AgentMessage { turn_id, message })
            .await;
        Ok(())
    }

    async fn clean_up(&self, _core: &Arc<SessionCore>, turn: &Arc<Turn>) {
        turn.agents.wind_up().await;
    }

    fn opening(&self) -> Option<&Item> {
        Some(&self.note)
    }

    fn is_review(&self) -> bool {
        true
    }
}

impl Dispatcher {
    /// For a planted defect: whether the running turn is a review.
    pub(crate) fn reviews(&self) -> bool {
        let state = lock(&self.core.state);
        let active = state.active.as_ref();
        active.is_some_and(|active| active.task.is_review())
    }
}
