//! Aborting the running turn, step by step in the order that the client and the model rely on.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::ids::SubmissionId;
use cutpoint_protocol::session::{AbortReason, EventMsg};

use crate::defect::Defect;
use crate::dispatch::Dispatcher;
use crate::history;
use crate::lock;
use crate::rollout::{AppendDefects, LineDraft, RolloutWriteError};
use crate::session_core::Turn;
use crate::turn;

impl Dispatcher {
    /// An interrupt aborts what runs. When nothing does, nothing happens. Returns whether something
    /// did.
    pub(crate) async fn interrupt(&mut self) -> bool {
        let core = Arc::clone(&self.core);
        if core.has(Defect::InterruptLostAtStart) {
            let active = lock(&core.state)
                .active
                .as_ref()
                .map(|active| Arc::clone(&active.turn));
            if active.is_some_and(|turn| !turn.was_requested()) {
                return true;
            }
        }
        if core.has(Defect::ReviewIgnoresInterrupt) && self.reviews() {
            return true;
        }
        if core.has(Defect::ApprovalClearedFirst) {
            lock(&core.state).approvals.clear();
            tokio::task::yield_now().await;
        }
        let was_interrupted = std::mem::take(&mut self.just_interrupted);
        if self.abort(AbortReason::Interrupted).await {
            self.just_interrupted = true;
            return true;
        }
        if core.has(Defect::MarkerOnIdle) {
            let left = self.leave_marker().await;
            core.report(&SubmissionId::default(), left).await;
        }
        let again = core.has(Defect::IdleInterruptAborts)
            || (core.has(Defect::AbortTwice) && was_interrupted);
        if let Some(turn) = self.last.clone().filter(|_| again) {
            self.tell(&turn, AbortReason::Interrupted).await;
        }
        false
    }

    /// Aborts the running turn. Returns whether there was one.
    pub(crate) async fn abort(&mut self, reason: AbortReason) -> bool {
        let core = Arc::clone(&self.core);
        core.hooks.point("abort.take").await;
        let active = {
            let mut state = lock(&core.state);
            let active = state.active.take();
            if let Some(active) = &active {
                active.turn.token.cancel();
            }
            active
        };
        let Some(active) = active else {
            return false;
        };
        core.hooks.point("abort.taken").await;
        self.stop_task().await;
        let turn = Arc::clone(&active.turn);
        active.task.clean_up(&core, &turn).await;
        let wound_down = core
            .record(|state| turn::wind_down(&core, state, active))
            .await;
        core.report(&turn.submission, wound_down).await;
        let early = core.has(Defect::MarkerAfterEvent);
        if early {
            self.tell(&turn, reason).await;
        }
        let recorded = self.record_abort(&turn, reason).await;
        core.report(&turn.submission, recorded).await;
        if core.has(Defect::AbortClearsQueue) {
            self.clear_queue();
        }
        turn.agents.tell_ends(&core, &turn).await;
        let later = core.has(Defect::ReplacedTooLate) && reason == AbortReason::Replaced;
        if !early && !later {
            self.tell(&turn, reason).await;
        }
        // Not before all calls saw the cancellation: one that still waited would take the dropped
        // channel for a rejection, and the model would read of it.
        if !core.has(Defect::ApprovalSurvives) {
            lock(&core.state).approvals.clear();
        }
        core.hooks.point("approval.cleared").await;
        if core.has(Defect::RequestAfterAbort) {
            turn::stray_request(&core).await;
        }
        true
    }

    /// Lets the turn's task end by itself for the grace period, then stops it hard.
    async fn stop_task(&mut self) {
        let core = Arc::clone(&self.core);
        let graceful = async {
            core.hooks.point("abort.grace").await;
            while self.task.join_next().await.is_some() {}
        };
        let waits = core.has(Defect::AbortWaitsForTool) || core.has(Defect::QuestionHoldsAbort);
        let patience = if waits {
            Duration::MAX
        } else if core.has(Defect::AbortWaitsForStream) {
            Duration::from_secs(3)
        } else {
            core.config.grace
        };
        if tokio::time::timeout(patience, graceful).await.is_err() {
            core.hooks.point("abort.hard").await;
            self.task.abort_all();
            while self.task.join_next().await.is_some() {}
        }
    }

    /// The marker (for an interrupt) and the turn's last line, and the barrier after them.
    async fn record_abort(
        &self,
        turn: &Turn,
        reason: AbortReason,
    ) -> Result<(), RolloutWriteError> {
        let core = &self.core;
        let marked = reason == AbortReason::Interrupted || core.has(Defect::MarkerOnReplace);
        let append_defects = AppendDefects {
            torn: core.has(Defect::TornLine),
            skip: core.has(Defect::OrdinalSkips),
            rewrite: core.has(Defect::RewritesRollout),
            unawaited: core.has(Defect::MarkerNotAwaited),
        };
        core.hooks.point("marker.append").await;
        core.record_with(append_defects, |state| {
            let mut drafts = Vec::new();
            let copies = if core.has(Defect::MarkerTwice) { 2 } else { 1 };
            for _ in 0..if marked { copies } else { 0 } {
                let marker = if core.has(Defect::HalfMarker) {
                    history::half_marker()
                } else {
                    history::marker()
                };
                drafts.push(LineDraft::item(&marker));
                let enough = core.has(Defect::MarkerOnce) && state.history.has_marker();
                if core.has(Defect::MarkerBehindInput) {
                    state.late_marker = Some(marker);
                } else if !core.has(Defect::MarkerMissing) && !enough {
                    state.history.push(marker);
                }
            }
            if !core.has(Defect::TerminalLineMissing) {
                drafts.push(LineDraft::turn_aborted(&turn.id, reason));
            }
            drafts
        })
        .await?;
        core.hooks.point("marker.flush").await;
        if core.has(Defect::MarkerNotAwaited) {
            return Ok(());
        }
        core.recorder.flush().await
    }

    /// Tells the client that the turn was aborted.
    pub(crate) async fn tell(&self, turn: &Turn, mut reason: AbortReason) {
        let core = &self.core;
        core.tell_joined(turn).await;
        if reason == AbortReason::Replaced && core.has(Defect::ReplacedSilently) {
            return;
        }
        if core.has(Defect::WrongReason) {
            reason = AbortReason::Replaced;
        }
        let turn_id = if core.has(Defect::WrongTurnId) {
            core.rng.id()
        } else if core.has(Defect::RespelledAtTheEnd) {
            turn.id.replace('-', "").into()
        } else {
            turn.id.clone()
        };
        let times = if core.has(Defect::TerminalTwice) {
            2
        } else {
            1
        };
        for _ in 0..times {
            let turn_id = turn_id.clone();
            let msg = EventMsg::TurnAborted { turn_id, reason };
            core.events.emit(&turn.submission, msg).await;
        }
        if reason == AbortReason::Replaced && core.has(Defect::ReplacedCompletesToo) {
            turn::tell_complete(core, turn, None).await;
        }
        if core.has(Defect::LateDelta) {
            let (turn_id, delta) = (turn.id.clone(), "…".to_owned());
            let msg = EventMsg::AgentMessageDelta { turn_id, delta };
            core.events.emit(&turn.submission, msg).await;
        }
    }

    /// For a planted defect: a marker for nothing.
    async fn leave_marker(&self) -> Result<(), RolloutWriteError> {
        let record = |state: &mut crate::session_core::SessionState| {
            let marker = history::marker();
            let draft = LineDraft::item(&marker);
            state.history.push(marker);
            vec![draft]
        };
        self.core.record(record).await?;
        self.core.recorder.flush().await
    }
}
