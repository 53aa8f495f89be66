//! A server with one case, and what tests ask of its trace.

use std::net::SocketAddr;
use std::sync::Arc;

use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::{
    CaseConfig, RecordedCalls, Script, ScriptedBody, ScriptedReply, ServerCase,
};
use cutpoint_engine::server::gate::{Gate, GateDecision};
use cutpoint_engine::server::plan;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_engine::tracer::Tracer;
use cutpoint_protocol::request::ResponsesRequest;
use cutpoint_recording::Recording;
use cutpoint_scenario::ast::{CutPoint, ReplyEnd, ReplyPart};
use cutpoint_trace::{Observation, StreamEnd};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE};

/// Where requests of [`Rig`]'s case go.
pub const PATH: &str = "/v1/responses";

/// A server with one case.
pub struct Rig {
    pub server: ReplayServer,
    pub case: Arc<ServerCase>,
    pub tracer: Arc<Tracer>,
}

/// A case's settings, as most tests have them.
pub fn config(script: Script, gates: &[&str]) -> CaseConfig {
    CaseConfig {
        script,
        side_conversations: Arc::default(),
        gates: gates.iter().map(|gate| point(gate)).collect(),
        tracer: Some(Arc::new(Tracer::default())),
        on_request: None,
        asks_approval: false,
        timed: false,
        recorded_calls: RecordedCalls::AsRecorded,
        pace: Pace::Flushed,
        fallback: None,
    }
}

/// A cut point.
pub fn point(phrase: &str) -> CutPoint {
    phrase
        .parse()
        .unwrap_or_else(|error| panic!("{phrase}: {error}"))
}

impl Rig {
    /// A rig with default settings of the server.
    pub async fn new(config: CaseConfig) -> Self {
        Self::on(ServerConfig::default(), config).await
    }

    /// A rig that sends these replies and holds at these points.
    pub async fn replies(replies: Vec<ScriptedReply>, gates: &[&str]) -> Self {
        Self::new(config(Script::Replies(replies.into()), gates)).await
    }

    /// A rig that replays this recording and holds at these points.
    pub async fn recording(recording: Recording, gates: &[&str]) -> Self {
        Self::new(config(Script::Recording(Arc::new(recording)), gates)).await
    }

    /// A rig.
    pub async fn on(server: ServerConfig, config: CaseConfig) -> Self {
        let server = ReplayServer::start(server).await.unwrap();
        let tracer = config.tracer.clone().unwrap();
        let case = server.add("/v1", config);
        Self {
            server,
            case,
            tracer,
        }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Sends a request on a connection of its own.
    pub async fn ask(&self, body: &Value) -> Client {
        Client::ask(self.address(), PATH, body).await
    }

    /// Sends a request, and reads the whole answer as JSON.
    pub async fn ask_json(&self, body: &Value) -> (u16, Value) {
        let (head, body) = self.ask(body).await.json().await;
        (head.status, body)
    }

    /// Sends a request, and reads the whole stream, which must be answered with 200.
    pub async fn ask_stream(&self, body: &Value) -> Vec<u8> {
        let mut client = self.ask(body).await;
        let head = client.head().await;
        let end = client.finish().await;
        let text = String::from_utf8_lossy(&client.body);
        assert_eq!(
            (head.status, end),
            (200, crate::client::End::Whole),
            "{text}"
        );
        client.body
    }

    /// The gate at that point.
    pub fn gate(&self, phrase: &str) -> Arc<Gate> {
        self.case.gate(&point(phrase)).unwrap().clone()
    }

    /// Opens the gate at that point.
    pub fn release(&self, phrase: &str) {
        self.gate(phrase).decide(GateDecision::Release);
    }

    /// Waits until the response is held at that point.
    pub async fn reached(&self, phrase: &str) {
        let name = point(phrase).to_string();
        self.wait(|what| matches!(what, Observation::Reached { point } if *point == name))
            .await;
    }

    /// Waits until the client of that exchange was found gone.
    pub async fn disconnected(&self, number: usize) {
        self.wait(
            |what| matches!(what, Observation::Disconnected { exchange } if *exchange == number),
        )
        .await;
    }

    /// Waits for an entry of the trace.
    pub async fn wait(&self, wanted: impl Fn(&Observation) -> bool) {
        let found = self
            .tracer
            .wait(0, PATIENCE, |what| wanted(what).then_some(()))
            .await;
        found.unwrap_or_else(|_| panic!("not in the trace: {:#?}", self.tracer.entries()));
    }

    /// How many entries of the trace there are of a kind.
    pub fn count(&self, wanted: impl Fn(&Observation) -> bool) -> usize {
        self.tracer.with(0, |entries| {
            entries
                .iter()
                .filter(|entry| wanted(&entry.observation))
                .count()
        })
    }

    /// How the responses were ended by the server, with their exchanges.
    pub fn ends(&self) -> Vec<(usize, StreamEnd)> {
        let entries = self.tracer.entries();
        let end = |what: &Observation| match what {
            Observation::StreamEnd { exchange, how } => Some((*exchange, *how)),
            _ => None,
        };
        entries
            .iter()
            .filter_map(|entry| end(&entry.observation))
            .collect()
    }

    /// The exchanges whose clients went away.
    pub fn disconnects(&self) -> Vec<usize> {
        let entries = self.tracer.entries();
        let gone = |what: &Observation| match what {
            Observation::Disconnected { exchange } => Some(*exchange),
            _ => None,
        };
        entries
            .iter()
            .filter_map(|entry| gone(&entry.observation))
            .collect()
    }
}

/// A composed reply.
pub fn reply(parts: Vec<ReplyPart>, end: ReplyEnd) -> ScriptedReply {
    scripted(ScriptedBody::Stream { parts, end })
}

/// A reply of one short text.
pub fn text_reply(text: &str) -> ScriptedReply {
    reply(vec![text_part(text, 1)], ReplyEnd::Completed)
}

/// A reply with that body.
pub fn scripted(body: ScriptedBody) -> ScriptedReply {
    ScriptedReply {
        body,
        lenient: false,
        text: "reply { … }".to_owned(),
    }
}

/// The text part of a reply.
pub fn text_part(text: &str, chunks: usize) -> ReplyPart {
    ReplyPart::Text {
        text: text.to_owned(),
        chunks,
    }
}

/// The function call part of a reply.
pub fn function_part(call: &str, chunks: usize) -> ReplyPart {
    ReplyPart::Function {
        call: call.to_owned(),
        name: "look".to_owned(),
        arguments: r#"{"where":"everywhere"}"#.to_owned(),
        chunks,
    }
}

/// A request for a stream, with a text of the user.
pub fn says(text: &str) -> Value {
    json!({"model": "m", "stream": true, "store": false, "input": text})
}

/// A request for a stream, with these items.
pub fn with_items(items: &[Value]) -> Value {
    json!({"model": "m", "stream": true, "store": false, "input": items})
}

/// An item: a message of the user.
pub fn user(text: &str) -> Value {
    let content = json!([{"type": "input_text", "text": text}]);
    json!({"type": "message", "role": "user", "content": content})
}

/// The frames that reply number 1 is composed of.
pub fn composed(parts: &[ReplyPart], end: &ReplyEnd) -> Vec<Vec<u8>> {
    let request = ResponsesRequest::parse(says("hi").to_string().as_bytes()).unwrap();
    let plan = plan::compose(parts, end, "resp_1", &request, false).unwrap();
    plan.frames
        .iter()
        .map(|frame| frame.bytes.to_vec())
        .collect()
}
