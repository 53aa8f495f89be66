//! What steps wait for.

use std::time::Duration;

use cutpoint_scenario::ast::Await;
use cutpoint_trace::{AgentEvent, Observation, TurnEnd};
use tokio::time::Instant;

use super::{Failure, StepRunner};
use crate::calls;
use crate::driver::{AgentError, AgentSession};
use crate::runner::turn_is_active;
use crate::settling;
use crate::trace_queries;

/// How long after the report of a tool's start its process is looked for.
const SPAWN_LIMIT: Duration = Duration::from_secs(1);

impl StepRunner<'_> {
    /// Waits for what an `await` step names.
    pub(super) async fn wait_for(&mut self, wanted: &Await) -> Result<(), Failure> {
        match wanted {
            Await::TurnStarted => {
                let started = |what: &Observation| trace_queries::announced(what).map(|_| ());
                self.consume("a turn to start", started).await
            }
            Await::Request { number } => {
                let arrived = |what: &Observation| {
                    matches!(what, Observation::Request { exchange, .. } if exchange == number)
                        .then_some(())
                };
                self.wait(0, &format!("request {number}"), arrived).await
            }
            Await::Running { call } => {
                self.wait(0, &format!("`{call}` to run"), calls::begins(call))
                    .await
            }
            Await::Exited { call } => {
                self.wait(0, &format!("`{call}` to end"), calls::ends(call))
                    .await
            }
            Await::Approval { call } => {
                let asks = |what: &Observation| trace_queries::asks(what, call).then_some(());
                self.wait(0, &format!("the approval request of `{call}`"), asks)
                    .await
            }
            Await::Question { call } => {
                let asks = |what: &Observation| trace_queries::questions(what, call).then_some(());
                self.wait(0, &format!("the question of `{call}`"), asks)
                    .await
            }
            Await::Compacted => self.compacted().await,
            Await::Output { call, containing } => self.output(call, containing).await,
            Await::Text { containing } => self.text(containing).await,
            Await::TurnEnded => self.turn_end("the turn to end", |_| true).await,
            Await::TurnComplete => {
                let complete = |end: &_| matches!(end, TurnEnd::Complete);
                self.turn_end("the turn to complete", complete).await
            }
            Await::TurnFailed => {
                let failed = |end: &_| matches!(end, TurnEnd::Failed { .. });
                self.turn_end("the turn to fail", failed).await
            }
            Await::TurnAborted { reason } => {
                let aborted = |end: &_| trace_queries::is_abort(end, *reason);
                self.turn_end("the turn to be aborted", aborted).await
            }
        }
    }

    async fn compacted(&mut self) -> Result<(), Failure> {
        let compacted = |what: &Observation| match trace_queries::event_of(what) {
            Some(AgentEvent::Compacted { .. }) => Some(()),
            _ => None,
        };
        self.consume("the history to be compacted", compacted).await
    }

    async fn output(&self, call: &str, containing: &str) -> Result<(), Failure> {
        let mut shown = String::new();
        let prints = |what: &Observation| {
            if let Some(AgentEvent::CallOutput { call_id, chunk, .. }) =
                trace_queries::event_of(what)
                && call_id == call
            {
                shown.push_str(chunk);
            }
            shown.contains(containing).then_some(())
        };
        self.wait(0, &format!("`{call}` to print {containing:?}"), prints)
            .await
    }

    async fn text(&mut self, containing: &str) -> Result<(), Failure> {
        let mut shown = String::new();
        let shows = |what: &Observation| {
            match trace_queries::event_of(what) {
                Some(AgentEvent::TextDelta { text, .. }) => shown.push_str(text),
                Some(AgentEvent::Message { text, .. }) => shown.clone_from(text),
                _ => {}
            }
            shown.contains(containing).then_some(())
        };
        self.consume(&format!("the text {containing:?}"), shows)
            .await
    }

    /// Waits for the next end of a turn; another end than the wanted one will not become it.
    pub(super) async fn turn_end(
        &mut self,
        waiting_for: &str,
        is_wanted: impl Fn(&TurnEnd) -> bool,
    ) -> Result<(), Failure> {
        let ended = |what: &Observation| trace_queries::turn_end(what).cloned();
        let (at, end) = self.wait_at(self.cursor, waiting_for, ended).await?;
        self.cursor = at + 1;
        if self.rules_only || is_wanted(&end) {
            return Ok(());
        }
        Err(Failure::Found(format!(
            "the turn ended as {}",
            trace_queries::end_in_words(&end)
        )))
    }

    pub(super) async fn consume(
        &mut self,
        waiting_for: &str,
        wanted: impl FnMut(&Observation) -> Option<()>,
    ) -> Result<(), Failure> {
        let (at, ()) = self.wait_at(self.cursor, waiting_for, wanted).await?;
        self.cursor = at + 1;
        Ok(())
    }

    pub(super) async fn wait<T>(
        &self,
        from: usize,
        waiting_for: &str,
        wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Result<T, Failure> {
        self.wait_at(from, waiting_for, wanted)
            .await
            .map(|(_, found)| found)
    }

    /// Waits for an entry. An agent that ends in the meantime will not bring it any more.
    pub(super) async fn wait_at<T>(
        &self,
        from: usize,
        waiting_for: &str,
        mut wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Result<(usize, T), Failure> {
        let limit = self.env.limit;
        let found = |what: &Observation| match wanted(what) {
            Some(found) => Some(Ok(found)),
            None => match what {
                Observation::AgentExited {
                    expected: false, ..
                }
                | Observation::Unscripted { .. } => {
                    Some(Err(matches!(what, Observation::Unscripted { .. })))
                }
                _ => None,
            },
        };
        let waited = self.env.tracer.wait(from, limit, found);
        let waited = tokio::select! {
            biased;
            waited = waited => waited,
            () = settling::reached(&self.env.tracer), if self.gives_up() => {
                return Err(Failure::Found(format!("waited for {waiting_for} in vain")));
            }
        };
        match waited {
            Ok((at, Ok(found))) => Ok((at, found)),
            Ok((_, Err(true))) => {
                let found = format!("no reply is scripted for a request; waited for {waiting_for}");
                Err(Failure::Found(found))
            }
            Ok((_, Err(false))) => {
                let why = format!("while the scenario waited for {waiting_for}");
                Err(Failure::Agent(AgentError::Died(why)))
            }
            Err(_) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                let waiting_for = waiting_for.to_owned();
                self.env.tracer.record(Observation::TimedOut {
                    waiting_for: waiting_for.clone(),
                    limit_ms,
                });
                let seconds = limit.as_secs_f64();
                Err(Failure::Found(format!(
                    "waited {seconds} s for {waiting_for}; it did not come"
                )))
            }
        }
    }

    /// Whether a wait is given up when nothing will come any more: the schedule is not the scenario's
    /// own, and no clock jumps ahead to the limit.
    pub(super) fn gives_up(&self) -> bool {
        self.rules_only && self.env.lab.is_none()
    }

    pub(super) async fn idle(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.env.limit;
        while turn_is_active(&self.env.tracer) {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = self.env.tracer.len();
            let changes = |what: &Observation| {
                let other = matches!(
                    what,
                    Observation::OpReply { .. }
                        | Observation::AgentExited { .. }
                        | Observation::AgentKilled
                );
                (other || trace_queries::turn_end(what).is_some()).then_some(())
            };
            if !turn_is_active(&self.env.tracer) {
                break;
            }
            if self.env.tracer.wait(seen, left, changes).await.is_err()
                && turn_is_active(&self.env.tracer)
            {
                let seconds = self.env.limit.as_secs_f64();
                return Err(Failure::Found(format!(
                    "a turn is still active after {seconds} s"
                )));
            }
        }
        Ok(())
    }

    /// An agent may report a tool's start before the tool's process exists; a cut "while it runs"
    /// waits for the process. A tool that is no process, or has ended already, has none.
    pub(super) async fn wait_for_process(&self, session: &mut dyn AgentSession) {
        let deadline = Instant::now() + SPAWN_LIMIT;
        while session.processes().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
