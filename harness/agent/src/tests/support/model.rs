//! A model that answers with what the test wrote.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_protocol::StreamEvent;
use cutpoint_protocol::compose::{Composer, ItemContent};
use tokio::sync::watch;

use super::{Entry, Log};
use serde_json::Value;

use crate::{ModelClient, ModelError, ModelRequest, ModelStream, ModelStreamError, lock};

#[derive(Clone)]
pub(crate) enum Step {
    Event(StreamEvent),
    /// Wait until the test opens the gate.
    Gate(watch::Receiver<bool>),
    /// Never go on.
    Hang,
    Fault,
}

#[derive(Clone)]
pub(crate) enum Reply {
    Stream(Vec<Step>),
    Refuse(ModelError),
    /// Never answer.
    Silence,
}

impl Reply {
    pub(crate) fn text(id: &str, text: &str) -> Self {
        Self::compose(id, &[ItemContent::Text { text, chunks: 2 }])
    }

    /// Function calls of `shell`, each running `run`.
    pub(crate) fn shell(id: &str, calls: &[&str]) -> Self {
        let contents: Vec<_> = calls
            .iter()
            .map(|call_id| ItemContent::Function {
                call_id,
                name: "shell",
                arguments: r#"{"command":["run"]}"#,
                chunks: 2,
            })
            .collect();
        Self::compose(id, &contents)
    }

    /// Function calls of `shell` that ask for approval, each with its program.
    pub(crate) fn asking(id: &str, calls: &[(&str, &str)]) -> Self {
        let arguments = |program| {
            format!(r#"{{"command":["{program}"],"sandbox_permissions":"require_escalated"}}"#)
        };
        let calls: Vec<_> = calls
            .iter()
            .map(|(call_id, program)| (*call_id, arguments(*program)))
            .collect();
        let contents: Vec<_> = calls
            .iter()
            .map(|(call_id, arguments)| ItemContent::Function {
                call_id,
                name: "shell",
                arguments,
                chunks: 2,
            })
            .collect();
        Self::compose(id, &contents)
    }

    pub(crate) fn compose(id: &str, contents: &[ItemContent<'_>]) -> Self {
        let mut composer = Composer::new(id, "m", 1);
        contents.iter().for_each(|content| composer.item(content));
        let events = composer.completed();
        Self::Stream(
            events
                .into_iter()
                .map(|composed| Step::Event(composed.event))
                .collect(),
        )
    }

    pub(crate) fn status(status: u16) -> Self {
        let body = cutpoint_protocol::api_error::for_status(status)
            .body
            .to_string();
        Self::refuse(status, body, None)
    }

    pub(crate) fn refuse(status: u16, body: String, retry_after: Option<Duration>) -> Self {
        Self::Refuse(ModelError::Status {
            status,
            retry_after,
            body,
        })
    }

    /// The 400 that names a call.
    pub(crate) fn misses(call_id: &str) -> Self {
        let message = format!("No tool output found for function call {call_id}.");
        Self::refuse(
            400,
            serde_json::json!({"error": {"message": message}}).to_string(),
            None,
        )
    }

    /// Replaces what follows the `nth` event of that type (counted from 1).
    pub(crate) fn after(self, kind: &str, nth: usize, then: Vec<Step>) -> Self {
        let Self::Stream(mut steps) = self else {
            panic!("no stream to cut")
        };
        let is_it = |step: &Step| matches!(step, Step::Event(event) if event.type_name() == kind);
        let at = steps
            .iter()
            .enumerate()
            .filter(|(_, step)| is_it(step))
            .nth(nth - 1);
        let at = at.expect("the stream has such an event").0;
        steps.truncate(at + 1);
        steps.extend(then);
        Self::Stream(steps)
    }

    pub(crate) fn hang_after(self, kind: &str, nth: usize) -> Self {
        self.after(kind, nth, vec![Step::Hang])
    }

    /// Waits after the `nth` event of that type until the gate is open.
    pub(crate) fn gated(self, kind: &str, nth: usize, gate: watch::Receiver<bool>) -> Self {
        let Self::Stream(whole) = self.clone() else {
            panic!("no stream to hold")
        };
        let Self::Stream(mut head) = self.after(kind, nth, Vec::new()) else {
            unreachable!("a stream stays one")
        };
        let tail = whole[head.len()..].to_vec();
        head.push(Step::Gate(gate));
        head.extend(tail);
        Self::Stream(head)
    }
}

pub(crate) struct ScriptModel {
    replies: Mutex<VecDeque<Reply>>,
    /// The replies of a conversation that opens with a text of its own.
    aside: Mutex<(String, VecDeque<Reply>)>,
    pub(crate) requests: Mutex<Vec<ModelRequest>>,
    /// How many streams were dropped.
    pub(crate) closed: Arc<watch::Sender<usize>>,
    log: Log,
}

impl ScriptModel {
    pub(crate) fn new(replies: Vec<Reply>, log: Log) -> Self {
        Self {
            replies: Mutex::new(replies.into()),
            aside: Mutex::default(),
            requests: Mutex::default(),
            closed: Arc::new(watch::Sender::new(0)),
            log,
        }
    }

    pub(crate) fn replace(&self, replies: Vec<Reply>) {
        *lock(&self.replies) = replies.into();
    }

    pub(crate) fn aside(&self, opening: &str, replies: Vec<Reply>) {
        *lock(&self.aside) = (opening.to_owned(), replies.into());
    }

    /// The next reply of the conversation.
    fn next(&self, request: &ModelRequest) -> Option<Reply> {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let opening = &body["input"][0]["content"][0]["text"];
        let mut aside = lock(&self.aside);
        if opening.as_str() == Some(&aside.0) {
            return aside.1.pop_front();
        }
        lock(&self.replies).pop_front()
    }

    pub(crate) fn push(&self, reply: Reply) {
        lock(&self.replies).push_back(reply);
    }
}

#[async_trait]
impl ModelClient for ScriptModel {
    async fn open(&self, request: ModelRequest) -> Result<Box<dyn ModelStream>, ModelError> {
        let reply = self.next(&request);
        lock(&self.requests).push(request);
        lock(&self.log).push(Entry::Request);
        match reply.unwrap_or_else(|| Reply::refuse(418, "nothing is scripted".to_owned(), None)) {
            Reply::Stream(steps) => Ok(Box::new(ScriptStream {
                steps: steps.into(),
                closed: Arc::clone(&self.closed),
            })),
            Reply::Refuse(error) => Err(error),
            Reply::Silence => std::future::pending().await,
        }
    }
}

struct ScriptStream {
    steps: VecDeque<Step>,
    closed: Arc<watch::Sender<usize>>,
}

#[async_trait]
impl ModelStream for ScriptStream {
    async fn next(&mut self) -> Option<Result<StreamEvent, ModelStreamError>> {
        loop {
            match self.steps.front()?.clone() {
                Step::Event(event) => {
                    self.steps.pop_front();
                    return Some(Ok(event));
                }
                Step::Gate(mut gate) => {
                    let _ = gate.wait_for(|open| *open).await;
                    self.steps.pop_front();
                }
                Step::Hang => std::future::pending().await,
                Step::Fault => {
                    self.steps.pop_front();
                    return Some(Err(ModelStreamError("the connection was reset".to_owned())));
                }
            }
        }
    }

    fn turn_state(&self) -> Option<&str> {
        Some("route-1")
    }
}

impl Drop for ScriptStream {
    fn drop(&mut self) {
        self.closed.send_modify(|closed| *closed += 1);
    }
}
