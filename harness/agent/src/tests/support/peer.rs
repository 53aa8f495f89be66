//! A client that speaks JSON-RPC with the agent over pipes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;

use super::{Rig, soon};
use crate::{ServeError, serve_jsonrpc_with};

/// The client. It reads every message, and keeps those that a test has not looked at yet.
pub(in crate::tests) struct Peer {
    stdin: Option<DuplexStream>,
    stdout: Lines<BufReader<DuplexStream>>,
    kept: Vec<Value>,
    next: u64,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Peer {
    /// A client of an agent with pipes of that size, before `initialize`.
    pub(in crate::tests) fn connect(rig: &Rig, pipe_bytes: usize) -> Self {
        let (stdin, input) = tokio::io::duplex(pipe_bytes);
        let (output, stdout) = tokio::io::duplex(pipe_bytes);
        let served = serve_jsonrpc_with(rig.config.clone(), rig.services(), input, output);
        Self {
            stdin: Some(stdin),
            stdout: BufReader::new(stdout).lines(),
            kept: Vec::new(),
            next: 0,
            served: tokio::spawn(served),
        }
    }

    /// A client with a conversation, and the conversation's id.
    pub(in crate::tests) async fn start(rig: &Rig) -> (Self, String) {
        let mut peer = Self::connect(rig, 1 << 16);
        peer.ask("initialize", json!({})).await;
        let thread = peer.open(json!({})).await;
        (peer, thread)
    }

    /// Opens a conversation.
    pub(in crate::tests) async fn open(&mut self, params: Value) -> String {
        let answer = self.ask("thread/start", params).await;
        text(&answer["result"]["thread"]["id"])
    }

    /// Writes a line.
    pub(in crate::tests) async fn write(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        soon(stdin.write_all(line)).await.unwrap();
        soon(stdin.write_all(b"\n")).await.unwrap();
    }

    /// Sends a request; gives its id.
    pub(in crate::tests) async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let request = json!({"id": self.next, "method": method, "params": params});
        self.write(request.to_string().as_bytes()).await;
        self.next
    }

    /// Sends a request and waits for its answer.
    pub(in crate::tests) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    /// Sends input that starts a turn or joins one; gives the turn's id.
    pub(in crate::tests) async fn user(&mut self, thread: &str, text: &str) -> String {
        let answer = self.ask("turn/start", input(thread, text)).await;
        self::text(&answer["result"]["turn"]["id"])
    }

    /// Sends an interrupt request; gives its id.
    pub(in crate::tests) async fn interrupt(&mut self, thread: &str, turn: Option<&str>) -> u64 {
        let params = json!({"threadId": thread, "turnId": turn});
        self.send("turn/interrupt", params).await
    }

    /// The next message, kept ones first.
    pub(in crate::tests) async fn next(&mut self) -> Value {
        if self.kept.is_empty() {
            return self.read().await.expect("the agent has ended");
        }
        self.kept.remove(0)
    }

    /// The first message that `wanted` picks; those before it are kept.
    pub(in crate::tests) async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        loop {
            let message = self.read().await.expect("the agent has ended");
            if wanted(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }

    /// The answer to a request.
    pub(in crate::tests) async fn answer(&mut self, id: u64) -> Value {
        self.find(|message| message["id"] == id && message["method"].is_null())
            .await
    }

    /// The next event of that type.
    pub(in crate::tests) async fn event(&mut self, kind: &str) -> Value {
        let mut event = self
            .find(|message| message["params"]["msg"]["type"] == kind && message["id"].is_null())
            .await;
        event["params"].take()
    }

    /// Writes lines while nothing is read for a while, then both at once. Gives what was read.
    pub(in crate::tests) async fn flood(&mut self, lines: Vec<String>) -> Vec<Value> {
        let mut stdin = self.stdin.take().unwrap();
        let writing = tokio::spawn(async move {
            for line in lines {
                stdin.write_all(line.as_bytes()).await.unwrap();
                stdin.write_all(b"\n").await.unwrap();
            }
            stdin
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!writing.is_finished(), "the agent slows its client down");
        let mut read = Vec::new();
        while !writing.is_finished() {
            read.extend(self.read().await);
        }
        self.stdin = Some(writing.await.unwrap());
        read
    }

    /// Is gone from one moment to the next.
    pub(in crate::tests) async fn break_off(self) {
        drop((self.stdin, self.stdout));
        // What the agent makes of a broken pipe depends on what it did just then.
        let _ = soon(self.served).await.unwrap();
    }

    /// Closes the input and reads to the end: everything that was not looked at.
    pub(in crate::tests) async fn end(mut self) -> Vec<Value> {
        self.stdin = None;
        while let Some(message) = self.read().await {
            self.kept.push(message);
        }
        soon(self.served).await.unwrap().unwrap();
        self.kept
    }

    async fn read(&mut self) -> Option<Value> {
        let line = soon(self.stdout.next_line()).await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }
}

/// The parameters of a request for input.
pub(in crate::tests) fn input(thread: &str, text: &str) -> Value {
    json!({"threadId": thread, "input": [{"type": "text", "text": text}]})
}

/// A text that must be one.
pub(in crate::tests) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Each message in a word: an event's type, a request's method, `3` for the answer to request 3.
pub(in crate::tests) fn outline(messages: &[Value]) -> Vec<String> {
    let word = |message: &Value| match (&message["method"], &message["params"]["msg"]["type"]) {
        (Value::String(method), Value::String(kind)) if method == "event" => kind.clone(),
        (Value::String(method), _) => method.clone(),
        _ => message["id"].to_string(),
    };
    messages.iter().map(word).collect()
}
