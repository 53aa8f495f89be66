//! Sending a request: the debt is settled first, refusals are tried again as far as that helps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::EventMsg;
use tokio_util::sync::CancellationToken;

use super::{TurnFailure, TurnWorker};
use crate::defect::Defect;
use crate::history;
use crate::lock;
use crate::model::unclosed_stream::UnclosedStream;
use crate::model::{ModelError, ModelRequest, ModelStream, refusal, request};
use crate::rollout::LineDraft;
use crate::session_core::SessionCore;

/// The longest pause that a server can ask for.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(120);

/// An answer that has begun, and the input of its request.
pub(super) struct OpenedStream {
    pub(super) stream: Box<dyn ModelStream>,
    pub(super) input: Vec<Item>,
}

impl TurnWorker {
    /// Sends the next request, again and again while that is worth it.
    pub(super) async fn open(&mut self) -> Result<OpenedStream, TurnFailure> {
        let mut attempt = 0;
        loop {
            let (request, input) = self.prepare().await?;
            self.core.hooks.point("request.send").await;
            self.turn.requested.store(true, Ordering::Release);
            let open = self.core.model.open(request);
            let error = match tokio::time::timeout(self.core.config.stream_idle, open).await {
                Ok(Ok(mut stream)) => {
                    if self.core.has(Defect::StreamLeftOpen) {
                        stream = Box::new(UnclosedStream::new(stream, &self.core.life));
                    }
                    if let Some(routing) = stream.turn_state() {
                        lock(&self.turn.progress).routing = Some(routing.to_owned());
                    }
                    return Ok(OpenedStream { stream, input });
                }
                Ok(Err(error)) => error,
                Err(_) => ModelError::Unreachable("it did not answer in time".to_owned()),
            };
            if self.core.has(Defect::DebtSettledOnSend) {
                lock(&self.core.state).history.drop_undelivered();
            }
            if self.recover(&error).await {
                attempt += u32::from(self.core.has(Defect::RecoverySpendsRetries));
                continue;
            }
            let Some(asked) = worth_retrying(&error) else {
                return Err(TurnFailure(describe(&error)));
            };
            attempt += 1;
            let mut limit = self.core.config.request_retries;
            if self.core.has(Defect::RetriesSixtyTimes) {
                limit = 60;
            }
            if attempt > limit {
                return Err(TurnFailure(format!(
                    "{}; gave up after {limit} retries",
                    describe(&error)
                )));
            }
            let delay = self.delay(asked, attempt);
            let message = format!(
                "{}; retrying {attempt}/{limit} in {delay:.1?}",
                describe(&error)
            );
            self.emit(EventMsg::BackgroundEvent { message }).await;
            if self.core.has(Defect::RetryOutlivesAbort) {
                let (core, token) = (Arc::clone(&self.core), self.turn.token.clone());
                tokio::spawn(stray_retry(core, token, delay));
            }
            self.core.hooks.point("request.backoff").await;
            tokio::time::sleep(delay).await;
        }
    }

    /// How long to wait before a further try: as long as the server asks, within reason.
    fn delay(&self, asked: Option<Duration>, attempt: u32) -> Duration {
        let core = &self.core;
        if core.has(Defect::RetriesAtOnce) {
            return Duration::ZERO;
        }
        if core.has(Defect::RetriesSixtyTimes) {
            return Duration::from_millis(25);
        }
        let backoff = core.rng.backoff(core.config.backoff_base, attempt);
        let asked = asked.filter(|_| !core.has(Defect::RetryAfterIgnored));
        asked.map_or(backoff, |asked| asked.min(RETRY_AFTER_LIMIT))
    }

    /// The next request: what was said in the meantime joins it, and the debt is settled.
    async fn prepare(&self) -> Result<(ModelRequest, Vec<Item>), TurnFailure> {
        let (core, turn) = (&self.core, &self.turn);
        core.hooks.point("request.build").await;
        let mut built = None;
        core.record(|state| {
            let settled = state.history.settle();
            if core.has(Defect::OutputBehindInput) {
                state.history.move_to_end(settled.clone());
            }
            let mut drafts: Vec<_> = settled.iter().map(LineDraft::item).collect();
            let ours = state
                .active
                .as_mut()
                .filter(|active| active.turn.id == turn.id);
            for item in ours
                .map(|active| std::mem::take(&mut active.input))
                .into_iter()
                .flatten()
            {
                drafts.extend(LineDraft::user_input(&turn.id, &item));
                turn.joined(&item);
                state.history.push(item);
            }
            let mut input = state.history.input();
            if self.summary.is_some() {
                input.items.push(history::compaction_prompt());
            }
            let stale = state.stale_header.clone();
            built = Some((input, stale));
            drafts
        })
        .await?;
        core.tell_joined(turn).await;
        let (input, stale) =
            built.ok_or_else(|| TurnFailure("the session has ended".to_owned()))?;
        let mut headers = vec![
            ("x-cutpoint-session-id", core.session_id.to_string()),
            ("x-cutpoint-turn-id", turn.id.to_string()),
        ];
        let routing = lock(&turn.progress).routing.clone();
        headers.extend(
            routing
                .or(stale)
                .map(|routing| (cutpoint_protocol::headers::TURN_STATE, routing)),
        );
        let body = request::body(&core.config, &input, &core.session_id);
        Ok((ModelRequest { body, headers }, input.items))
    }

    /// Whether the refusal has a cause that the next request does not have any more: then it is
    /// sent at once and costs no retry.
    async fn recover(&mut self, error: &ModelError) -> bool {
        let ModelError::Status {
            status: 400, body, ..
        } = error
        else {
            return false;
        };
        if let Some((call_id, kind)) = refusal::named_call(body) {
            let core = &self.core;
            let misread = (core.has(Defect::RecoversFunctionsOnly) && kind != CallKind::Function)
                || (core.has(Defect::RecoversJsonOnly) && !body.starts_with('{'));
            let again = !self.recovered.insert(call_id.clone()) && !core.has(Defect::RecoversAgain);
            if core.has(Defect::NoRecovery) || misread || again {
                return false;
            }
            self.owe(&call_id, kind).await;
            return true;
        }
        if refusal::forgets_response(body) && lock(&self.core.state).history.server_forgot() {
            let message = "the server no longer has the conversation; sending all of it".to_owned();
            self.emit(EventMsg::BackgroundEvent { message }).await;
            return true;
        }
        false
    }

    async fn owe(&self, call_id: &CallId, kind: CallKind) {
        self.core.hooks.point("request.recover").await;
        lock(&self.core.state).history.owe_by_id(call_id, kind);
        let message =
            format!("the server misses the output of call {call_id}; sending it as aborted");
        if self.core.has(Defect::RecoveryIsSilent) {
            return;
        }
        self.emit(EventMsg::BackgroundEvent { message }).await;
    }
}

/// For planted defects: a request without a cause.
pub(crate) async fn stray_request(core: &SessionCore) {
    let input = lock(&core.state).history.input();
    let body = request::body(&core.config, &input, &core.session_id);
    let headers = Vec::new();
    let open = core.model.open(ModelRequest { body, headers });
    let _ = tokio::time::timeout(core.config.grace, open).await;
}

/// For a planted defect: a retry that is not stopped when its turn is aborted.
async fn stray_retry(core: Arc<SessionCore>, token: CancellationToken, delay: Duration) {
    tokio::time::sleep(delay).await;
    if token.is_cancelled() && !core.life.is_cancelled() {
        stray_request(&core).await;
    }
}

/// Whether another try may help, and when the server wants it.
fn worth_retrying(error: &ModelError) -> Option<Option<Duration>> {
    match error {
        ModelError::Status {
            status: 429 | 500..=599,
            retry_after,
            ..
        } => Some(*retry_after),
        ModelError::Status { .. } => None,
        ModelError::Unreachable(_) => Some(None),
    }
}

fn describe(error: &ModelError) -> String {
    match error {
        ModelError::Status { status, body, .. } => {
            format!("the server answered {status}: {}", refusal::message(body))
        }
        ModelError::Unreachable(_) => error.to_string(),
    }
}
