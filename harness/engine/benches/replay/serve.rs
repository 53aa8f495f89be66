//! Servers in threads of their own, whose CPU time can be asked for.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use cutpoint_bench::cpu_time;
use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::{CaseConfig, RecordedCalls, Script};
use cutpoint_engine::server::plan;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_engine::tracer::Tracer;
use cutpoint_protocol::compose::{Composer, ItemContent};
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_recording::{Exchange, Recording, Response};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bare;
use crate::client::NUMBER;

/// Events of the stream that is measured.
pub const STREAM_EVENTS: usize = 100;
/// Events that a text has besides its deltas: created, in progress, item and part added, text, part
/// and item done, completed.
const EVENTS_AROUND: usize = 8;

/// A server in a thread of its own. The thread, and the bare server, end with the process.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    cpu: UnboundedSender<mpsc::Sender<Duration>>,
    server: Option<ReplayServer>,
    config: Option<CaseConfig>,
}

impl Running {
    /// The bare server with the stream that is measured.
    pub fn bare(pace: Pace) -> Self {
        let plan = plan::recorded(&document(STREAM_EVENTS), false);
        let frames = plan.frames.iter().map(|frame| frame.bytes.clone());
        let frames: Arc<[Bytes]> = frames.collect();
        Self::start("bare", async move |told| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await;
            let listener = listener.expect("a free port");
            let _ = told.send((listener.local_addr().expect("an address"), None));
            bare::serve(listener, frames, pace).await;
        })
    }

    /// The replay server with the same stream as a recording.
    pub fn replay(pace: Pace) -> Self {
        Self::serving("replay", case(STREAM_EVENTS, pace, false))
    }

    /// The same with a trace.
    pub fn traced(pace: Pace) -> Self {
        Self::serving("traced", case(STREAM_EVENTS, pace, true))
    }

    /// The replay server with a stream of one delta, for many requests.
    pub fn short() -> Self {
        Self::serving("short", case(EVENTS_AROUND + 1, Pace::Burst, false))
    }

    fn serving(name: &str, config: CaseConfig) -> Self {
        let mut running = Self::start(name, async move |told| {
            let server = ReplayServer::start(ServerConfig::default()).await;
            let server = server.expect("a free port");
            let _ = told.send((server.address(), Some(server)));
            std::future::pending::<()>().await;
        });
        running.config = Some(config);
        running.renew();
        running
    }

    /// The thread is named, so that a profiler tells the servers apart.
    fn start<S>(name: &str, serve: S) -> Self
    where
        S: AsyncFnOnce(mpsc::Sender<(SocketAddr, Option<ReplayServer>)>) + Send + 'static,
    {
        let (told, started) = mpsc::channel();
        let (cpu, asked) = unbounded_channel();
        let run = move || {
            keep_to_core(SERVER_CORE);
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async { tokio::join!(serve(told), answer(asked)) });
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(run).expect("a thread");
        let (address, server) = started.recv().expect("the server started");
        Self {
            address,
            cpu,
            server,
            config: None,
        }
    }

    /// Begins a new case: a trace is as long as that of one case, and not of a whole benchmark.
    pub fn renew(&self) {
        if let (Some(server), Some(config)) = (&self.server, &self.config) {
            let mut config = config.clone();
            config.tracer = config.tracer.map(|_| Arc::default());
            server.add("/v1", config);
        }
    }

    /// The CPU time of the server's thread so far.
    pub fn cpu(&self) -> Duration {
        let (answer, cpu) = mpsc::channel();
        let _ = self.cpu.send(answer);
        cpu.recv().expect("the server's thread lives")
    }
}

/// A request as a small agent makes it; its text has a place for a number, and that many bytes more.
pub fn request(more_bytes: usize) -> String {
    let text = format!("task {NUMBER}{}", " more".repeat(more_bytes / 5));
    let body = json!({
        "model": "bench-model", "stream": true, "parallel_tool_calls": true,
        "instructions": "You are an agent that works in a terminal.",
        "input": [{
            "type": "message", "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }],
    })
    .to_string();
    let length = body.len();
    format!(
        "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The core that the servers run on.
const SERVER_CORE: usize = 0;
/// The core that the client runs on.
pub const CLIENT_CORE: usize = 1;

/// Keeps the current thread to one core, so that the client and its server never share one. Where
/// that is not allowed, the figures are less steady.
pub fn keep_to_core(core: usize) {
    let mut cores = CpuSet::new();
    let _ = cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
}

/// Tells the CPU time of the thread that it runs on.
async fn answer(mut asked: UnboundedReceiver<mpsc::Sender<Duration>>) {
    while let Some(answer) = asked.recv().await {
        let _ = answer.send(cpu_time());
    }
}

/// A case that answers every request with a stream of that many events.
pub fn case(events: usize, pace: Pace, traced: bool) -> CaseConfig {
    let mut recording = Recording::new("bench", "composed for the benchmark");
    let response = Response::Stream(document(events));
    recording.exchanges.push(Exchange::bare(1, response));
    CaseConfig {
        script: Script::Recording(Arc::new(recording)),
        side_conversations: std::sync::Arc::default(),
        gates: Vec::new(),
        tracer: traced.then(|| Arc::new(Tracer::default())),
        on_request: None,
        asks_approval: false,
        timed: false,
        recorded_calls: RecordedCalls::AsRecorded,
        pace,
        fallback: None,
    }
}

/// A complete stream of that many events.
fn document(events: usize) -> Document {
    let chunks = events - EVENTS_AROUND;
    let text = "a few words ".repeat(chunks);
    let mut composer = Composer::new("resp_bench", "bench-model", 1);
    composer.item(&ItemContent::Text {
        text: &text,
        chunks,
    });
    let composed = composer.completed();
    assert_eq!(composed.len(), events);
    let bytes: Vec<u8> = composed
        .iter()
        .flat_map(|event| event.bytes.to_vec())
        .collect();
    Document::parse(&bytes, EVENT_LIMIT_BYTES).expect("a stream below the limit")
}
