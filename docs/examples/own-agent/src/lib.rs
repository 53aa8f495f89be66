//! A tiny agent: it talks with a model over the Responses API, knows one tool, and can be
//! interrupted. It does not know about cutpoint.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the user asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Input that starts a turn.
    Say(String),
    /// Stop the running turn.
    Interrupt,
}

/// What the agent reports to the user. Turns are numbered from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A turn has started.
    Started(u64),
    /// A piece of the model's answer.
    Text(u64, String),
    /// The turn has run to its end.
    Complete(u64),
    /// The turn was interrupted.
    Aborted(u64),
    /// The turn could not go on.
    Failed(u64, String),
}

/// The agent.
pub struct Agent {
    /// Where the model is, such as `http://127.0.0.1:8080/v1`.
    pub base_url: String,
    /// Where events for the user go.
    pub events: UnboundedSender<Event>,
    /// Switches on the bug to be found: a call that an interrupt cuts off gets no output.
    pub forgets_calls: bool,
    /// The items that each request carries.
    history: Vec<Value>,
    /// The shown part of a message that is still streaming.
    partial: String,
}

impl Agent {
    /// An agent without the bug.
    pub fn new(base_url: &str, events: UnboundedSender<Event>) -> Self {
        Self {
            base_url: base_url.to_owned(),
            events,
            forgets_calls: false,
            history: Vec::new(),
            partial: String::new(),
        }
    }

    /// Serves commands until their sender is gone.
    pub async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        let mut turn = 0;
        while let Some(command) = commands.recv().await {
            // An interrupt while no turn runs has no effect.
            let Command::Say(text) = command else {
                continue;
            };
            turn += 1;
            self.history.push(message("user", "input_text", &text));
            self.emit(Event::Started(turn));
            let end = tokio::select! {
                done = self.turn(turn) => done.map(|()| Event::Complete(turn)),
                () = interrupted(&mut commands) => Ok(Event::Aborted(turn)),
            };
            let end = end.unwrap_or_else(|error| Event::Failed(turn, error.to_string()));
            if !matches!(end, Event::Complete(_)) {
                self.settle(matches!(end, Event::Aborted(_)));
            }
            self.emit(end);
        }
    }

    fn emit(&self, event: Event) {
        // If the receiver is gone, the agent ends soon.
        let _ = self.events.send(event);
    }

    /// Sends requests until the model calls no more tools.
    async fn turn(&mut self, turn: u64) -> Result<(), BoxError> {
        loop {
            self.respond(turn).await?;
            let open = self.open_calls();
            if open.is_empty() {
                return Ok(());
            }
            for call in open {
                let output = nap(&call).await;
                self.answer(&call, output);
            }
        }
    }

    /// Sends one request and reads its stream.
    async fn respond(&mut self, turn: u64) -> Result<(), BoxError> {
        let mut body = self.send().await?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
            while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
                let lines: Vec<u8> = bytes.drain(..end + 2).collect();
                let text = String::from_utf8(lines)?;
                let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) else {
                    continue;
                };
                if self.stream_event(turn, &serde_json::from_str(data)?)? {
                    return Ok(());
                }
            }
        }
        Err("the stream ended too early".into())
    }

    async fn send(&self) -> Result<hyper::body::Incoming, BoxError> {
        let url: hyper::Uri = format!("{}/responses", self.base_url).parse()?;
        let authority = url.authority().ok_or("the address names no host")?;
        let stream = TcpStream::connect(authority.as_str()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let nap = json!({"type": "function", "name": "nap", "strict": false,
            "description": "Sleeps for some milliseconds.", "parameters": {
                "type": "object", "properties": {"ms": {"type": "integer"}}}});
        let body = json!({"model": "any", "instructions": "Be brief.", "input": self.history,
            "tools": [nap], "stream": true, "store": false});
        let request = hyper::Request::post(url.path())
            .header("host", authority.as_str())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        match response.status().is_success() {
            true => Ok(response.into_body()),
            false => Err(format!("the model answered {}", response.status()).into()),
        }
    }

    /// Handles an event of the stream. Returns true for the last one.
    fn stream_event(&mut self, turn: u64, event: &Value) -> Result<bool, BoxError> {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => {
                let delta = event["delta"].as_str().unwrap_or_default();
                self.partial.push_str(delta);
                self.emit(Event::Text(turn, delta.to_owned()));
            }
            "response.output_item.done" => {
                self.partial.clear();
                self.history.push(event["item"].clone());
            }
            "response.completed" => return Ok(true),
            "response.failed" | "response.incomplete" | "error" => return Err("it failed".into()),
            _ => {}
        }
        Ok(false)
    }

    fn open_calls(&self) -> Vec<Value> {
        let answers = |item: &Value, call: &Value| {
            item["type"] == "function_call_output" && item["call_id"] == call["call_id"]
        };
        let calls = self
            .history
            .iter()
            .filter(|item| item["type"] == "function_call");
        let open = calls.filter(|call| !self.history.iter().any(|item| answers(item, call)));
        open.cloned().collect()
    }

    fn answer(&mut self, call: &Value, output: &str) {
        let id = &call["call_id"];
        let output = json!({"type": "function_call_output", "call_id": id, "output": output});
        self.history.push(output);
    }

    /// Makes the history of a cut turn complete, so that the next request is valid.
    fn settle(&mut self, interrupted: bool) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() {
            self.history
                .push(message("assistant", "output_text", &partial));
        }
        if !self.forgets_calls {
            for call in self.open_calls() {
                self.answer(&call, "aborted");
            }
        }
        if interrupted {
            let marker = "<turn_aborted>\nThe user stopped this turn.\n</turn_aborted>";
            self.history.push(message("user", "input_text", marker));
        }
    }
}

/// Returns when the user interrupts. This small agent ignores input in the meantime.
async fn interrupted(commands: &mut UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        if command == Command::Interrupt {
            return;
        }
    }
}

fn message(role: &str, part: &str, text: &str) -> Value {
    json!({"type": "message", "role": role, "content": [{"type": part, "text": text}]})
}

/// The tool.
async fn nap(call: &Value) -> &'static str {
    let arguments: Value =
        serde_json::from_str(call["arguments"].as_str().unwrap_or_default()).unwrap_or_default();
    let Some(ms) = arguments["ms"].as_u64() else {
        return "`ms` must be a number";
    };
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "slept well"
}
