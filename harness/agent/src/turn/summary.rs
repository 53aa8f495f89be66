//! Asking the model for a summary of the conversation, and putting it in the history's place.

use cutpoint_protocol::session::EventMsg;

use super::{TurnFailure, TurnWorker};
use crate::defect::Defect;
use crate::rollout::LineDraft;

impl TurnWorker {
    /// Has the model summarise the conversation. What it writes goes neither into the history nor
    /// to the client, and calls that it makes are not carried out.
    pub(crate) async fn summarise(&mut self) -> Result<String, TurnFailure> {
        self.summary = Some(String::new());
        self.respond().await?;
        let summary = self.summary.take().unwrap_or_default();
        if summary.trim().is_empty() {
            return Err(TurnFailure("the model wrote no summary".to_owned()));
        }
        Ok(summary)
    }

    /// Puts the summary in the history's place. Input that waits for its turn is not touched: it
    /// was said after what the summary reports, and is recorded after it.
    pub(crate) async fn compact(&self, summary: &str) -> Result<(), TurnFailure> {
        let (core, turn) = (&self.core, &self.turn);
        core.hooks.point("compact.replace").await;
        core.record(|state| {
            let active = state.active.as_mut();
            // An abort that was quicker leaves the history as it was.
            let Some(ours) = active.filter(|active| active.turn.id == turn.id) else {
                return Vec::new();
            };
            if core.has(Defect::CompactionOverwrites) {
                ours.input.clear();
            }
            vec![LineDraft::compacted(
                summary,
                state.history.compact(summary),
            )]
        })
        .await?;
        core.recorder.flush().await?;
        let turn_id = turn.id.clone();
        self.emit(EventMsg::ContextCompacted { turn_id }).await;
        Ok(())
    }
}
