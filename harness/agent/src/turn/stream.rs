//! Reading a stream: deltas go to the client, finished items into the history, calls to work.

use std::ops::ControlFlow;
use std::time::Duration;

use cutpoint_protocol::session::EventMsg;
use cutpoint_protocol::{EventKind, Item, ItemKind, StreamEvent};
use serde_json::Value;

use super::request::OpenedStream;
use super::{TurnFailure, TurnWorker};
use crate::defect::Defect;
use crate::history;
use crate::lock;
use crate::model::refusal;
use crate::rollout::LineDraft;

/// How long the end of a body is waited for once the response is complete.
const END_OF_STREAM: Duration = Duration::from_millis(50);

/// Why a stream did not come to its end.
enum StreamBreak {
    /// It is worth another try.
    Broken(String),
    /// It is not.
    Fatal(TurnFailure),
}

impl<E: Into<TurnFailure>> From<E> for StreamBreak {
    fn from(failure: E) -> Self {
        Self::Fatal(failure.into())
    }
}

impl TurnWorker {
    /// One response, asked for again while its stream breaks. Returns whether it called tools.
    pub(super) async fn respond(&mut self) -> Result<bool, TurnFailure> {
        let mut attempt = 0;
        loop {
            // The outputs of an earlier try's calls went with this try's request.
            let mut called = false;
            if let Some(summary) = &mut self.summary {
                summary.clear();
            }
            let answer = self.open().await?;
            let before = lock(&self.core.state).history.len();
            let fault = match self.read(answer, &mut called).await {
                Ok(()) => return Ok(called),
                Err(StreamBreak::Fatal(failure)) => return Err(failure),
                Err(StreamBreak::Broken(fault)) => fault,
            };
            if self.core.has(Defect::DebtSettledByHeaders) {
                lock(&self.core.state).history.drop_undelivered();
            }
            attempt += 1;
            let limit = self.core.config.stream_retries;
            if attempt > limit {
                return Err(TurnFailure(format!(
                    "stream error: {fault}; gave up after {limit} retries"
                )));
            }
            let delay = self
                .core
                .rng
                .backoff(self.core.config.backoff_base, attempt);
            let message =
                format!("stream error: {fault}; retrying {attempt}/{limit} in {delay:.1?}");
            let turn_id = self.turn.id.clone();
            self.emit(EventMsg::StreamError { turn_id, message }).await;
            if self.core.has(Defect::PhantomTurnOnRetry) {
                let turn_id = self.core.rng.id();
                self.emit(EventMsg::TurnStarted { turn_id }).await;
            }
            self.core.hooks.point("stream.backoff").await;
            tokio::time::sleep(delay).await;
            self.keep_what_was_shown().await?;
            // The tools of the broken response have run: the model must hear of it now, or it
            // would have them run once more.
            self.finish_calls().await?;
            if self.core.has(Defect::DisconnectForgetsCalls) {
                let mut state = lock(&self.core.state);
                state
                    .history
                    .drop_behind(before, |item| item.call_id().is_some());
            }
        }
    }

    async fn keep_what_was_shown(&self) -> Result<(), TurnFailure> {
        self.core
            .record(|state| {
                let texts = std::mem::take(&mut lock(&self.turn.progress).texts);
                let items = texts
                    .iter()
                    .filter_map(|(_, text)| history::assistant_text(text));
                items
                    .map(|item| {
                        let draft = LineDraft::item(&item);
                        state.history.push(item);
                        draft
                    })
                    .collect()
            })
            .await?;
        Ok(())
    }

    async fn read(
        &mut self,
        mut answer: OpenedStream,
        called: &mut bool,
    ) -> Result<(), StreamBreak> {
        loop {
            let next = answer.stream.next();
            let event = match tokio::time::timeout(self.core.config.stream_idle, next).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(fault))) => return Err(StreamBreak::Broken(fault.to_string())),
                Ok(None) => {
                    return Err(StreamBreak::Broken(
                        "it ended before response.completed".to_owned(),
                    ));
                }
                Err(_) => return Err(StreamBreak::Broken("it was silent for too long".to_owned())),
            };
            self.core.hooks.point("stream.event").await;
            if self.take(&event, &answer.input, called).await?.is_break() {
                // Reading the end of the body lets the connection close in good order. A server
                // that keeps it open is not waited for.
                let rest = async { while answer.stream.next().await.is_some() {} };
                let _ = tokio::time::timeout(END_OF_STREAM, rest).await;
                return Ok(());
            }
        }
    }

    async fn take(
        &mut self,
        event: &StreamEvent,
        input: &[Item],
        called: &mut bool,
    ) -> Result<ControlFlow<()>, StreamBreak> {
        match event.kind() {
            Some(EventKind::Created) => lock(&self.core.state).history.created(input),
            Some(EventKind::OutputTextDelta | EventKind::RefusalDelta)
                if self.summary.is_none() =>
            {
                self.text(event).await;
            }
            Some(EventKind::ReasoningSummaryTextDelta | EventKind::ReasoningTextDelta) => {
                let turn_id = self.turn.id.clone();
                let delta = event.text("delta").unwrap_or_default().to_owned();
                self.emit(EventMsg::AgentReasoningDelta { turn_id, delta })
                    .await;
            }
            Some(EventKind::OutputItemAdded) => {
                let call = event.item().filter(|item| item.call_kind().is_some());
                lock(&self.turn.progress).half_call = call.map(|call| (call, String::new()));
            }
            Some(EventKind::FunctionCallArgumentsDelta | EventKind::CustomToolCallInputDelta) => {
                if let Some((_, text)) = &mut lock(&self.turn.progress).half_call {
                    text.push_str(event.text("delta").unwrap_or_default());
                }
            }
            Some(EventKind::OutputItemDone) => {
                if let Some(item) = event.item() {
                    *called |= self.item(event.item_id().unwrap_or_default(), item).await?;
                }
            }
            Some(EventKind::Completed) => {
                self.completed(event).await;
                return Ok(ControlFlow::Break(()));
            }
            Some(EventKind::Incomplete) => {
                let reason = event
                    .response()
                    .map(|it| &it["incomplete_details"]["reason"]);
                let reason = reason.and_then(Value::as_str).unwrap_or("unknown reason");
                let failure = TurnFailure(format!("the response is incomplete: {reason}"));
                return Err(StreamBreak::Fatal(failure));
            }
            Some(EventKind::Failed) => {
                let error = event.response().map(|response| &response["error"]);
                return Err(failed(error.unwrap_or(&Value::Null)));
            }
            Some(EventKind::Error) => {
                let whole = event.as_value();
                let nested = Some(&whole["error"]).filter(|error| error.is_object());
                return Err(failed(nested.unwrap_or(whole)));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn text(&self, event: &StreamEvent) {
        let delta = event.text("delta").unwrap_or_default();
        let item_id = event.item_id().unwrap_or_default();
        {
            // Kept before it is shown: what the user saw must not be lost.
            let texts = &mut lock(&self.turn.progress).texts;
            match texts.iter_mut().find(|(id, _)| id == item_id) {
                Some((_, text)) => text.push_str(delta),
                None => texts.push((item_id.into(), delta.to_owned())),
            }
        }
        let turn_id = self.turn.id.clone();
        let delta = delta.to_owned();
        self.emit(EventMsg::AgentMessageDelta { turn_id, delta })
            .await;
    }

    /// Takes a finished item. Returns whether it is a call.
    async fn item(&mut self, item_id: &str, item: Item) -> Result<bool, TurnFailure> {
        if let Some(summary) = &mut self.summary {
            if item.kind() == Some(ItemKind::Message) {
                summary.push_str(&message_text(&item));
            }
            return Ok(false);
        }
        if let Some(kind) = item.call_kind() {
            return self.call(item, kind).await;
        }
        let message = (item.kind() == Some(ItemKind::Message)).then(|| message_text(&item));
        // The API takes an empty message in its answer, but refuses it in a history.
        let keep = message.as_ref().is_none_or(|message| !message.is_empty());
        let turn_id = &self.turn.id;
        self.core
            .record(|state| {
                let mut progress = lock(&self.turn.progress);
                progress
                    .texts
                    .retain(|(id, _)| message.is_none() || id != item_id);
                let mut drafts = Vec::new();
                if keep {
                    drafts.push(LineDraft::item(&item));
                    state.history.push(item);
                }
                if let Some(message) = message.as_ref().filter(|message| !message.is_empty()) {
                    progress.last_message = Some(message.clone());
                    drafts.push(LineDraft::agent_message(turn_id, message));
                }
                drafts
            })
            .await?;
        if let Some(message) = message {
            let turn_id = turn_id.clone();
            self.emit(EventMsg::AgentMessage { turn_id, message }).await;
        }
        Ok(false)
    }

    async fn completed(&self, event: &StreamEvent) {
        let usage = event.response().map(|response| &response["usage"]);
        let count = |name: &str| usage.and_then(|it| it[name].as_u64()).unwrap_or(0);
        let mode = self.core.config.history;
        // The response that holds a summary is not part of the conversation.
        if self.summary.is_none() {
            lock(&self.core.state)
                .history
                .completed(event.response_id(), mode);
        }
        let used = {
            let mut progress = lock(&self.turn.progress);
            progress.texts.clear();
            progress.half_call = None;
            progress.input_tokens = progress.input_tokens.saturating_add(count("input_tokens"));
            progress.output_tokens = progress
                .output_tokens
                .saturating_add(count("output_tokens"));
            (progress.input_tokens, progress.output_tokens)
        };
        let msg = EventMsg::TokenCount {
            turn_id: self.turn.id.clone(),
            input_tokens: used.0,
            output_tokens: used.1,
        };
        self.emit(msg).await;
    }
}

/// What a `response.failed` or an `error` event means.
fn failed(error: &Value) -> StreamBreak {
    let code = error["code"].as_str().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or("the response failed");
    if refusal::is_final(code) {
        StreamBreak::Fatal(TurnFailure(format!("{message} ({code})")))
    } else {
        StreamBreak::Broken(message.to_owned())
    }
}

/// The text of a message's parts.
fn message_text(item: &Item) -> String {
    let parts = item
        .get("content")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let texts = parts.filter_map(|part| part["text"].as_str().or_else(|| part["refusal"].as_str()));
    texts.collect()
}
