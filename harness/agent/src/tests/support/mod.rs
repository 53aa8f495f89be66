//! The scripted parts and a client that drives a session with them.

mod model;
pub(super) mod peer;
mod store;
mod tools;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cutpoint_protocol::session::{AbortReason, Event, EventMsg, InputItem, Op, Submission};
use cutpoint_protocol::{Item, marker, pairing};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use crate::{
    Config, Defect, Endpoint, PointFuture, Probe, RolloutStore, Services, Session, ToolRunner, lock,
};

pub(super) use model::{Reply, ScriptModel, Step};
pub(super) use store::MemoryStore;
pub(super) use tools::{ScriptTools, ToolStep};

/// What happened, in order, as far as tests look at the order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Write(String),
    Sync,
    Emit(EventMsg),
    Request,
}

pub(super) type Log = Arc<Mutex<Vec<Entry>>>;

/// Logs events, and holds the agent at one point.
pub(super) struct Watcher {
    log: Log,
    held: Mutex<Option<(&'static str, watch::Receiver<bool>)>>,
    reached: watch::Sender<bool>,
}

impl Probe for Watcher {
    fn emitted(&self, event: &Event) {
        lock(&self.log).push(Entry::Emit(event.msg.clone()));
    }

    fn point(&self, label: &'static str) -> Option<PointFuture> {
        let held = lock(&self.held);
        let (wanted, gate) = held.as_ref()?;
        if *wanted != label {
            return None;
        }
        self.reached.send_replace(true);
        let mut gate = gate.clone();
        Some(Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
        }))
    }
}

/// Everything that a session is made of in a test.
pub(super) struct Rig {
    pub(super) config: Config,
    pub(super) model: Arc<ScriptModel>,
    pub(super) tools: Arc<ScriptTools>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) log: Log,
    pub(super) watcher: Arc<Watcher>,
}

impl Rig {
    pub(super) fn new(replies: Vec<Reply>, tools: Vec<Vec<ToolStep>>) -> Self {
        let endpoint = Endpoint::parse("http://localhost:1/v1").unwrap();
        let mut config = Config::new(endpoint, "/rollouts", "/work");
        config.seed = 7;
        config.epoch = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let log = Log::default();
        Self {
            config,
            model: Arc::new(ScriptModel::new(replies, Arc::clone(&log))),
            tools: Arc::new(ScriptTools::new(tools)),
            store: Arc::new(MemoryStore::new(Arc::clone(&log))),
            watcher: Arc::new(Watcher {
                log: Arc::clone(&log),
                held: Mutex::default(),
                reached: watch::Sender::new(false),
            }),
            log,
        }
    }

    pub(super) fn with(mut self, defect: Defect) -> Self {
        self.config.defects.insert(defect);
        self
    }

    /// Holds the agent at a point; the returned sender lets it go.
    pub(super) fn hold(&self, label: &'static str) -> watch::Sender<bool> {
        let (open, gate) = watch::channel(false);
        *lock(&self.watcher.held) = Some((label, gate));
        open
    }

    /// Returns when the agent is held.
    pub(super) async fn reached(&self) {
        let mut reached = self.watcher.reached.subscribe();
        soon(reached.wait_for(|reached| *reached)).await.unwrap();
        self.watcher.reached.send_replace(false);
    }

    pub(super) fn services(&self) -> Services {
        Services {
            model: Arc::clone(&self.model) as Arc<dyn crate::ModelClient>,
            store: Arc::clone(&self.store) as Arc<dyn RolloutStore>,
            tools: Arc::clone(&self.tools) as Arc<dyn ToolRunner>,
            probe: Some(Arc::clone(&self.watcher) as Arc<dyn Probe>),
        }
    }

    pub(super) async fn start(&self) -> Client {
        let (session, events) = Session::start(self.config.clone(), self.services())
            .await
            .unwrap();
        let mut client = Client::new(session, events);
        let first = client.next().await.msg;
        assert!(matches!(first, EventMsg::SessionConfigured { .. }));
        client
    }

    /// Starts a second session on the rollout of the first.
    pub(super) async fn resume(&mut self, path: PathBuf) -> Client {
        self.config.resume = Some(path);
        self.start().await
    }

    pub(super) fn request(&self, at: usize) -> Request {
        Request(serde_json::from_slice(&lock(&self.model.requests)[at].body).unwrap())
    }

    pub(super) fn requests(&self) -> usize {
        lock(&self.model.requests).len()
    }
}

/// A request that the model got.
pub(super) struct Request(Map<String, Value>);

impl Request {
    pub(super) fn body(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn items(&self) -> Vec<Item> {
        let input = self.0["input"].as_array().unwrap();
        input
            .iter()
            .map(|item| Item::from_value(item.clone()).unwrap())
            .collect()
    }

    /// Each item in a few letters: `u:text`, `a:text`, `c:call_id`, `o:call_id`, `marker`, `r`.
    pub(super) fn outline(&self) -> Vec<String> {
        self.items().iter().map(outline).collect()
    }

    pub(super) fn faults(&self) -> Vec<pairing::PairingFault> {
        pairing::faults(&self.items())
    }

    pub(super) fn output(&self, call_id: &str) -> String {
        let items = self.items();
        let output = items
            .iter()
            .find(|item| item.output_kind().is_some() && item.call_id() == Some(call_id));
        output
            .and_then(|item| item.text("output"))
            .unwrap_or_default()
            .to_owned()
    }
}

fn outline(item: &Item) -> String {
    let id = item.call_id().unwrap_or_default();
    match (item.call_kind(), item.output_kind(), item.role()) {
        (Some(_), _, _) => format!("c:{id}"),
        (_, Some(_), _) => format!("o:{id}"),
        _ if marker::is_marker(item) => "marker".to_owned(),
        (_, _, Some("user")) => format!("u:{}", item.all_text()),
        (_, _, Some(_)) => format!("a:{}", item.all_text()),
        _ => "r".to_owned(),
    }
}

/// A client that reads every event.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) events: mpsc::Receiver<Event>,
    next: usize,
}

impl Client {
    pub(super) fn new(session: Session, events: mpsc::Receiver<Event>) -> Self {
        Self {
            session,
            events,
            next: 0,
        }
    }

    pub(super) async fn submit(&mut self, op: Op) -> String {
        let id = format!("sub_{}", self.next);
        self.next += 1;
        let submission = Submission {
            id: id.as_str().into(),
            op,
        };
        soon(self.session.submit(submission)).await.unwrap();
        id
    }

    pub(super) async fn user(&mut self, text: &str) -> String {
        self.submit(Op::UserInput {
            items: texts(text),
            turn_id: None,
        })
        .await
    }

    pub(super) async fn replace(&mut self, text: &str) -> String {
        self.submit(Op::UserTurn {
            items: texts(text),
            turn_id: None,
        })
        .await
    }

    pub(super) async fn interrupt(&mut self) {
        self.submit(Op::Interrupt).await;
    }

    pub(super) async fn next(&mut self) -> Event {
        soon(self.events.recv())
            .await
            .expect("the session has ended")
    }

    /// Reads events up to the first that `wanted` picks, and returns all of them.
    pub(super) async fn until(&mut self, wanted: impl Fn(&EventMsg) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let found = wanted(&event.msg);
            events.push(event);
            if found {
                return events;
            }
        }
    }

    /// Reads up to the end of a turn and returns how it ended.
    pub(super) async fn end(&mut self) -> EventMsg {
        self.until(EventMsg::is_terminal).await.pop().unwrap().msg
    }

    /// Everything that is emitted before the agent has seen to all that was submitted.
    pub(super) async fn rest(&mut self) -> Vec<EventMsg> {
        let op = serde_json::json!({"type": "sentinel"});
        self.submit(Op::Unknown(op)).await;
        let is_it = |msg: &EventMsg| matches!(msg, EventMsg::Error { message } if message.contains("sentinel"));
        let mut events = self.until(is_it).await;
        events.pop();
        events.into_iter().map(|event| event.msg).collect()
    }

    pub(super) async fn begin_of_tool(&mut self) {
        self.until(|msg| matches!(msg, EventMsg::ExecCommandBegin { .. }))
            .await;
    }

    pub(super) async fn delta(&mut self) {
        self.until(|msg| matches!(msg, EventMsg::AgentMessageDelta { .. }))
            .await;
    }

    pub(super) async fn shutdown(mut self) -> Vec<EventMsg> {
        self.submit(Op::Shutdown).await;
        let mut events = Vec::new();
        while let Some(event) = soon(self.events.recv()).await {
            events.push(event.msg);
        }
        assert_eq!(events.last(), Some(&EventMsg::ShutdownComplete));
        events
    }
}

fn texts(text: &str) -> Vec<InputItem> {
    let text = text.to_owned();
    vec![InputItem::Text { text }]
}

/// Fails the test instead of hanging. The clock is paused, so this takes no time.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(200), future)
        .await
        .expect("the agent hangs")
}

pub(super) fn is_aborted(msg: &EventMsg, wanted: AbortReason) -> bool {
    matches!(msg, EventMsg::TurnAborted { reason, .. } if *reason == wanted)
}

pub(super) fn aborts(events: &[EventMsg]) -> usize {
    let is_it = |msg: &&EventMsg| matches!(msg, EventMsg::TurnAborted { .. });
    events.iter().filter(is_it).count()
}
