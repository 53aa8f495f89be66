//! A tiny agent: it talks with a model over the Responses API, knows one tool, and can be
//! interrupted. It knows nothing of cutpoint.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What the user wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Something said, which starts a turn.
    Say(String),
    /// The running turn is to stop.
    Interrupt,
}

/// What the user is told. Turns are numbered from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
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
    /// What the user is told.
    pub told: UnboundedSender<Told>,
    /// The bug to be found: a call that an interrupt has cut off stays without an output.
    pub forgets_calls: bool,
    /// What the model is sent.
    history: Vec<Value>,
    /// What was shown of a message that is not whole yet.
    partial: String,
}

impl Agent {
    /// An agent without the bug.
    pub fn new(base_url: &str, told: UnboundedSender<Told>) -> Self {
        Self {
            base_url: base_url.to_owned(),
            told,
            forgets_calls: false,
            history: Vec::new(),
            partial: String::new(),
        }
    }

    /// Does what the user wants until there is no user any more.
    pub async fn run(mut self, mut wishes: UnboundedReceiver<Wish>) {
        let mut turn = 0;
        while let Some(wish) = wishes.recv().await {
            // An interrupt while nothing runs stops nothing.
            let Wish::Say(text) = wish else { continue };
            turn += 1;
            self.history.push(message("user", "input_text", &text));
            self.tell(Told::Started(turn));
            let end = tokio::select! {
                done = self.turn(turn) => done.map(|()| Told::Complete(turn)),
                () = interrupted(&mut wishes) => Ok(Told::Aborted(turn)),
            };
            let end = end.unwrap_or_else(|fault| Told::Failed(turn, fault.to_string()));
            if !matches!(end, Told::Complete(_)) {
                self.settle(matches!(end, Told::Aborted(_)));
            }
            self.tell(end);
        }
    }

    fn tell(&self, what: Told) {
        // Without anyone to be told, the agent ends soon.
        let _ = self.told.send(what);
    }

    /// Asks the model until it calls no tool any more.
    async fn turn(&mut self, turn: u64) -> Result<(), Fault> {
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

    /// One request, and what the model streams.
    async fn respond(&mut self, turn: u64) -> Result<(), Fault> {
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
                if self.event(turn, &serde_json::from_str(data)?)? {
                    return Ok(());
                }
            }
        }
        Err("the stream ended too early".into())
    }

    async fn send(&self) -> Result<hyper::body::Incoming, Fault> {
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

    /// Takes an event of the stream. Says whether it is the last one.
    fn event(&mut self, turn: u64, event: &Value) -> Result<bool, Fault> {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => {
                let delta = event["delta"].as_str().unwrap_or_default();
                self.partial.push_str(delta);
                self.tell(Told::Text(turn, delta.to_owned()));
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

    /// Leaves a history that the model can go on with when the turn was cut.
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

/// Returns when the user interrupts. What is said meanwhile is not for this small agent.
async fn interrupted(wishes: &mut UnboundedReceiver<Wish>) {
    while let Some(wish) = wishes.recv().await {
        if wish == Wish::Interrupt {
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
