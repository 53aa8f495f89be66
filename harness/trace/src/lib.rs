//! The trace: the ordered log of everything observed in one run of one scenario.
//!
//! Stored as JSON lines: a header, then one entry per line in the order of observation.

mod breach;
pub mod case;
mod event;
mod file;
mod op;
mod raw_message;
pub mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{ConversationId, SubmissionId, TurnId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use event::{AbortReason, AgentEvent, ShownLine, TurnEnd};
pub use file::{ReadError, Unreadable};
pub use op::{ClientOp, Decision, InputMode, TaskKind};
pub use raw_message::RawMessage;

/// The name that stands in every trace's header.
pub const FORMAT: &str = "cutpoint-trace";
/// The version of the format that this build writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// The longest line that [`Trace::read`] takes, in bytes: larger than any request body the replay
/// server accepts.
pub const LINE_LIMIT_BYTES: u64 = 96 << 20;

/// What can be observed of an agent. A rule that needs what an agent lacks is not applicable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// The agent writes a rollout file that the harness reads.
    Rollout,
    /// The rollout's lines have turn brackets (started and terminal lines).
    RolloutTurns,
    /// The agent leaves a model-visible marker when a turn is interrupted.
    Marker,
    /// Turns have ids, and events carry them.
    TurnIds,
    /// Each op gets a reply of its own.
    OpReplies,
    /// The agent tells when a tool begins and ends.
    CallEvents,
    /// A new turn replaces the running one.
    Replace,
    /// Writes and syncs of the rollout are seen as they return.
    StoreLog,
    /// Requests carry a header that belongs to the turn, as the server gave it.
    TurnHeaders,
    /// Commands run on in the background when their turn is aborted, and the model is told so.
    BackgroundTools,
    /// An interrupt is answered with the abort's reason, and not before `TurnAborted`.
    DeferredAnswers,
    /// A caller may name the ids of what it starts.
    CallerIds,
    /// The agent tells when a sub-agent begins and ends, and shows its events.
    SubAgents,
    /// What a person sees of the session is observed.
    Transcript,
}

/// Who was driven, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its name, such as `reference` or `codex`.
    pub name: String,
    /// Its version, such as `0.169.0`.
    pub version: String,
    /// How it was driven, such as `in-process`, `stdio` or `app-server-v2`.
    pub driver: String,
    /// What can be observed of it.
    pub features: BTreeSet<Feature>,
    /// Planted defects that were switched on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defects: Vec<String>,
}

/// A rule that the scenario sets aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// The rule's id.
    pub rule: String,
    /// Why.
    pub because: String,
}

/// The time that an abort may take beyond the grace period unless a scenario sets another: long
/// enough for a loaded machine, short enough for a person at the keyboard.
pub const ABORT_BOUND_MS: u64 = 2000;

fn abort_bound_ms() -> u64 {
    ABORT_BOUND_MS
}

/// The first line of a stored trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always [`FORMAT`].
    pub format: String,
    /// The format's version.
    pub version: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The file that the scenario stands in.
    pub file: Option<String>,
    /// The agent.
    pub agent: AgentInfo,
    /// The seed of everything random in the run.
    pub seed: u64,
    /// How long after an interrupt, beyond the grace period, a turn may take to end, in
    /// milliseconds.
    #[serde(default = "abort_bound_ms")]
    pub abort_bound_ms: u64,
    /// Rules that the scenario sets aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<Waiver>,
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The entry's number, counted from 0.
    pub seq: u64,
    /// Nanoseconds since the run started (monotonic clock).
    pub at_ns: u64,
    /// What was observed.
    #[serde(flatten)]
    pub observation: Observation,
}

/// What can be observed.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// The runner came to a step of the scenario.
    Step {
        /// Counted from 1.
        number: usize,
        /// The step's line in its file; 0 without a file.
        line: usize,
        /// The step as it is written.
        text: String,
    },
    /// A cut point was reached; what is held there is held from now on.
    Reached {
        /// The cut point as it is written.
        point: String,
    },
    /// A cut point was let go.
    Released {
        /// The cut point as it is written.
        point: String,
    },
    /// The client is about to send an op to the agent.
    Op {
        /// Unique in the run.
        id: SubmissionId,
        /// What is asked for.
        op: ClientOp,
    },
    /// The agent answered an op.
    OpReply {
        /// The op's id.
        id: SubmissionId,
        /// The id of the turn that the op started, where the answer tells.
        turn_id: Option<TurnId>,
        /// The conversation that the op opened, where the answer tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread_id: Option<ConversationId>,
        /// Why the turn was aborted, where the answer to an interrupt tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<AbortReason>,
        /// The error, if the op was refused.
        error: Option<String>,
    },
    /// A model request arrived, whole.
    Request {
        /// The exchange's number in the run, counted from 1.
        exchange: usize,
        /// The conversation that it belongs to, counted from 0.
        conversation: usize,
        /// The request's path below the case's base path, such as `/responses`.
        path: String,
        /// The headers that say something of the agent's state: those that begin with `x-`, in lower
        /// case. Never credentials.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// The body, shared with the server that has read it.
        body: Arc<Value>,
        /// The whole history, rebuilt through `previous_response_id`; absent where the body's input
        /// is the whole history.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<Vec<Value>>,
    },
    /// The server refused a request as the API would.
    Refused {
        /// The exchange.
        exchange: usize,
        /// The HTTP status.
        status: u16,
        /// The API's message.
        message: String,
    },
    /// No reply was left for a request, or none matched.
    Unscripted {
        /// The exchange.
        exchange: usize,
        /// What is missing, with the nearest scripted reply.
        message: String,
    },
    /// A response's status line and headers were sent.
    ResponseHead {
        /// The exchange.
        exchange: usize,
        /// The HTTP status.
        status: u16,
        /// The scripted reply that is sent, counted from 1.
        reply: Option<usize>,
        /// How long the client is asked to wait before it tries again, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// A response that is not a stream was sent, with this body.
    ResponseBody {
        /// The exchange.
        exchange: usize,
        /// The body: JSON, or a string where it is none.
        body: Value,
    },
    /// An event of a stream was handed to the connection, whole.
    Sent {
        /// The exchange.
        exchange: usize,
        /// The event's number in its stream, counted from 1.
        index: usize,
        /// The event, shared with the frame that carries it; a string where the frame is no valid
        /// event.
        data: Arc<Value>,
    },
    /// Part of an event was handed to the connection.
    SentPart {
        /// The exchange.
        exchange: usize,
        /// The event's number in its stream, counted from 1.
        index: usize,
        /// How many of its bytes have been sent so far.
        bytes: usize,
    },
    /// The server ended a response.
    StreamEnd {
        /// The exchange.
        exchange: usize,
        /// How.
        how: StreamEnd,
    },
    /// The client closed the connection before the response had ended.
    Disconnected {
        /// The exchange.
        exchange: usize,
    },
    /// The agent sent an event.
    Event {
        /// What it means.
        event: AgentEvent,
        /// The event as it was received; nothing where the meaning is all there is.
        #[serde(default, skip_serializing_if = "RawMessage::is_empty")]
        raw: RawMessage,
    },
    /// A rollout file was read.
    Rollout {
        /// What made the harness read it.
        trigger: ReadTrigger,
        /// The file.
        path: String,
        /// The byte from which `text` replaces what was known: the length known before where the
        /// file only grew, 0 where earlier bytes changed or the file is new.
        from: u64,
        /// The file's bytes from there on (lossy UTF-8).
        text: String,
    },
    /// A write to a session's rollout returned, or a sync of it. Only seen of an agent in this process.
    Stored {
        /// The file.
        path: String,
        /// What returned.
        done: StoreOp,
    },
    /// A rollout file could not be read.
    RolloutUnreadable {
        /// What made the harness read it.
        trigger: ReadTrigger,
        /// The file.
        path: String,
        /// Why.
        error: String,
    },
    /// The processes below the agent, without the agent itself.
    Processes {
        /// Those that are alive.
        alive: Vec<Process>,
        /// Whether this is the last look, after the agent was told to end.
        at_end: bool,
    },
    /// The agent was started.
    AgentStarted {
        /// Its process id; absent in process.
        pid: Option<u32>,
        /// Whether a session was continued from its rollout.
        resumed: bool,
    },
    /// The harness killed the agent, as the scenario asked.
    AgentKilled,
    /// The agent's process ended, or its session closed.
    AgentExited {
        /// The exit code; absent if a signal ended it, or in process.
        code: Option<i32>,
        /// Whether the harness had asked for it.
        expected: bool,
        /// The end of what it wrote to stderr.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stderr: String,
    },
    /// The client stopped reading the agent's events, or goes on.
    Reading {
        /// Whether it reads from now on.
        on: bool,
    },
    /// The harness cut the end of a rollout off, as a crash or a power loss can do.
    Torn {
        /// The file.
        path: String,
        /// How many bytes it has lost.
        bytes: u64,
    },
    /// An event of a turn that has ended was given to the transcript view once more, late.
    Redelivered {
        /// The event.
        event: AgentEvent,
    },
    /// What a person sees from now on.
    Shown {
        /// The new line.
        line: ShownLine,
    },
    /// The agent wrote something that is no message of its protocol.
    Garbage {
        /// The start of it.
        text: String,
    },
    /// A wait ran into its limit.
    TimedOut {
        /// What was waited for.
        waiting_for: String,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The harness itself got into trouble: nothing can be said of the agent.
    Trouble {
        /// What happened.
        message: String,
    },
}

/// How the server ended a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnd {
    /// All of it was sent.
    Complete,
    /// TCP RST before the end.
    Reset,
    /// FIN in the middle of the body.
    Close,
    /// The body ended in good order without a terminal event.
    Cut,
}

/// What a store has done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum StoreOp {
    /// Bytes were written: they survive the process.
    Written {
        /// How many.
        bytes: u64,
    },
    /// The file was synced: what was written before survives a power loss.
    Synced,
}

/// Why a rollout was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum ReadTrigger {
    /// A turn's terminal event was received: the file is read before anything else is done.
    TurnEnded {
        /// The turn.
        turn_id: Option<TurnId>,
    },
    /// A model request arrived.
    Request {
        /// The exchange.
        exchange: usize,
    },
    /// The agent was killed or has exited.
    Exit,
    /// The scenario has ended.
    End,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub ppid: u32,
    /// Its command line, words joined by spaces.
    pub command: String,
}

/// A whole trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What was run.
    pub header: Header,
    /// What was observed, in order.
    pub entries: Vec<Entry>,
}

/// The items of a list of JSON values; what is no item is left out.
pub fn items(values: &[Value]) -> Vec<Item> {
    values
        .iter()
        .filter_map(|value| Item::from_value(value.clone()).ok())
        .collect()
}
