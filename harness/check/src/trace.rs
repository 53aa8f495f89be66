//! The trace: the ordered log of everything observed in one run of one scenario.
//!
//! Stored as JSON lines: a header, then one entry per line in the order of observation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};

use cutpoint_protocol::Item;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    pub what: What,
}

/// What can be observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
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
        id: String,
        /// What is asked for.
        op: ClientOp,
    },
    /// The agent answered an op.
    OpReply {
        /// The op's id.
        id: String,
        /// The id of the turn that the op started, where the answer tells.
        turn_id: Option<String>,
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
        /// The body.
        body: Value,
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
        /// The event; a string where the frame is no valid event.
        data: Value,
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
        /// The event as it was received; null where the meaning is all there is.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        raw: Value,
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
        done: Stored,
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

/// What a client can ask of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientOp {
    /// User input.
    Input {
        /// The text.
        text: String,
        /// What it is meant to do.
        mode: InputMode,
    },
    /// The user's Esc or Ctrl-C.
    Interrupt {
        /// The turn that is named as the one to interrupt, where the protocol names one.
        turn_id: Option<String>,
    },
    /// The user's answer to an approval request.
    Approval {
        /// The call.
        call_id: String,
        /// The answer.
        decision: Decision,
    },
    /// The user's answer to a question.
    Answer {
        /// The call that asked.
        call_id: String,
        /// The answer.
        text: String,
    },
    /// End the session.
    Shutdown,
}

/// What user input is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputMode {
    /// Start a turn.
    Start,
    /// Join the running turn.
    Steer,
    /// Replace the running turn.
    Replace,
}

/// The user's answer to an approval request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Run it.
    Approve,
    /// Don't.
    Deny,
    /// Don't, and stop the turn.
    Abort,
}

/// How the server ended a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Stored {
    /// Bytes were written: they survive the process.
    Written {
        /// How many.
        bytes: u64,
    },
    /// The file was synced: what was written before survives a power loss.
    Synced,
}

/// Why a rollout was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum ReadTrigger {
    /// A turn's terminal event was received: the file is read before anything else is done.
    TurnEnded {
        /// The turn.
        turn_id: Option<String>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub ppid: u32,
    /// Its command line, words joined by spaces.
    pub command: String,
}

/// What an agent tells its client, whatever protocol it speaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentEvent {
    /// A turn started.
    TurnStarted {
        /// The turn.
        turn_id: String,
    },
    /// A turn ended.
    TurnEnded {
        /// The turn; absent where the protocol does not say.
        turn_id: Option<String>,
        /// How.
        end: TurnEnd,
    },
    /// A piece of the model's message was shown.
    TextDelta {
        /// The turn.
        turn_id: Option<String>,
        /// The piece.
        text: String,
    },
    /// A whole message of the model was shown.
    Message {
        /// The turn.
        turn_id: Option<String>,
        /// The message.
        text: String,
    },
    /// A tool began to run.
    CallBegin {
        /// The turn.
        turn_id: Option<String>,
        /// The call.
        call_id: String,
        /// Its command line, where it has one.
        command: String,
        /// Its process, where the agent tells.
        pid: Option<u32>,
    },
    /// A piece of a tool's output was shown.
    CallOutput {
        /// The turn.
        turn_id: Option<String>,
        /// The call.
        call_id: String,
        /// The piece.
        chunk: String,
    },
    /// A tool ended.
    CallEnd {
        /// The turn.
        turn_id: Option<String>,
        /// The call.
        call_id: String,
        /// Its exit code; absent if it was cut off.
        exit_code: Option<i32>,
        /// What it printed.
        output: String,
    },
    /// A call waits for the user's approval.
    ApprovalRequest {
        /// The turn.
        turn_id: Option<String>,
        /// The call.
        call_id: String,
    },
    /// Something the user may want to know of.
    Background {
        /// The text.
        message: String,
    },
    /// An error was shown.
    Error {
        /// The turn.
        turn_id: Option<String>,
        /// The text.
        message: String,
    },
    /// The session has ended.
    ShutdownComplete,
    /// Anything else.
    Other {
        /// The turn that the event names as its own.
        turn_id: Option<String>,
        /// The event's name in its protocol.
        name: String,
    },
}

impl AgentEvent {
    /// The turn that the event belongs to.
    pub fn turn_id(&self) -> Option<&str> {
        match self {
            Self::TurnStarted { turn_id } => Some(turn_id),
            Self::TurnEnded { turn_id, .. }
            | Self::TextDelta { turn_id, .. }
            | Self::Message { turn_id, .. }
            | Self::CallBegin { turn_id, .. }
            | Self::CallOutput { turn_id, .. }
            | Self::CallEnd { turn_id, .. }
            | Self::ApprovalRequest { turn_id, .. }
            | Self::Error { turn_id, .. }
            | Self::Other { turn_id, .. } => turn_id.as_deref(),
            Self::Background { .. } | Self::ShutdownComplete => None,
        }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum TurnEnd {
    /// It ran to its end.
    Complete,
    /// It was aborted.
    Aborted {
        /// Why; absent where the protocol does not say.
        reason: Option<AbortReason>,
    },
    /// It ended with an error.
    Failed {
        /// What went wrong.
        message: String,
    },
}

/// Why a turn was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// The user stopped it.
    Interrupted,
    /// A new turn took its place.
    Replaced,
}

/// A whole trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What was run.
    pub header: Header,
    /// What was observed, in order.
    pub entries: Vec<Entry>,
}

/// Why a stored trace could not be read. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the trace: {0}")]
    Io(#[from] io::Error),
    /// There is no header.
    #[error("this is no trace: its first line is not a {FORMAT} header ({0})")]
    NoHeader(String),
    /// Another version of the format.
    #[error("this trace has format version {found}; this build reads version {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A line that is no entry.
    #[error("line {line}: {message}")]
    Line {
        /// Which one.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl Trace {
    /// Reads a stored trace.
    ///
    /// # Errors
    /// If it can't be read, is no trace, has another version, or has a line that is no entry.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReadError> {
        let mut line = String::new();
        read_line(&mut from, &mut line, 1)?;
        let header: Value =
            serde_json::from_str(&line).map_err(|error| ReadError::NoHeader(error.to_string()))?;
        if header["format"] != FORMAT {
            return Err(ReadError::NoHeader(format!(
                "`format` is {}",
                header["format"]
            )));
        }
        let found = header["version"]
            .as_u64()
            .and_then(|found| u32::try_from(found).ok());
        match found {
            Some(VERSION) => {}
            Some(found) => return Err(ReadError::Version { found }),
            None => return Err(ReadError::NoHeader("it has no version".to_owned())),
        }
        let header = serde_json::from_value(header)
            .map_err(|error| ReadError::NoHeader(error.to_string()))?;
        let mut entries = Vec::new();
        for number in 2.. {
            line.clear();
            if read_line(&mut from, &mut line, number)? == 0 {
                break;
            }
            let entry = serde_json::from_str(&line).map_err(|error| ReadError::Line {
                line: number,
                message: error.to_string(),
            })?;
            entries.push(entry);
        }
        Ok(Self { header, entries })
    }

    /// Writes the trace in the form that [`Trace::read`] reads.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.header)?;
        to.write_all(b"\n")?;
        for entry in &self.entries {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

fn read_line(
    from: &mut impl BufRead,
    line: &mut String,
    number: usize,
) -> Result<usize, ReadError> {
    let read = io::Read::take(&mut *from, LINE_LIMIT_BYTES)
        .read_line(line)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ReadError::Line {
                line: number,
                message: "not valid UTF-8".to_owned(),
            },
            _ => ReadError::Io(error),
        })?;
    if read as u64 == LINE_LIMIT_BYTES {
        let message = format!("longer than {LINE_LIMIT_BYTES} bytes");
        return Err(ReadError::Line {
            line: number,
            message,
        });
    }
    Ok(read)
}

/// The items of a list of JSON values; what is no item is left out.
pub fn items(values: &[Value]) -> Vec<Item> {
    values
        .iter()
        .filter_map(|value| Item::from_value(value.clone()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let agent = AgentInfo {
            name: "reference".into(),
            version: "1".into(),
            driver: "in-process".into(),
            features: BTreeSet::from([Feature::Rollout]),
            defects: vec![],
        };
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            scenario: "s".into(),
            file: None,
            agent,
            seed: 7,
            abort_bound_ms: ABORT_BOUND_MS,
            waived: vec![],
        };
        let event = AgentEvent::TurnEnded {
            turn_id: Some("t".into()),
            end: TurnEnd::Aborted {
                reason: Some(AbortReason::Interrupted),
            },
        };
        let what = What::Event {
            event,
            raw: Value::Null,
        };
        let trigger = ReadTrigger::TurnEnded { turn_id: None };
        let read = What::Rollout {
            trigger,
            path: "r".into(),
            from: 0,
            text: "{}\n".into(),
        };
        let entries = vec![
            Entry {
                seq: 0,
                at_ns: 5,
                what,
            },
            Entry {
                seq: 1,
                at_ns: 6,
                what: read,
            },
        ];
        Trace { header, entries }
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        assert_eq!(Trace::read(&bytes[..]).unwrap(), trace());
    }

    #[test]
    fn what_is_no_trace_says_why() {
        let message = |text: &str| Trace::read(text.as_bytes()).unwrap_err().to_string();
        assert!(message("").contains("no trace"));
        assert!(message("{\"format\":\"x\"}\n").contains("`format` is \"x\""));
        assert!(message("{\"format\":\"cutpoint-trace\",\"version\":9}\n").contains("version 9"));
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        let torn = &bytes[..bytes.len() - 5];
        assert!(
            Trace::read(torn)
                .unwrap_err()
                .to_string()
                .starts_with("line 3: ")
        );
    }
}
