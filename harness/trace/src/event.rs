//! What an agent tells its client, and what a person sees of it.

use cutpoint_protocol::ids::{CallId, ConversationId, TurnId};
use serde::{Deserialize, Serialize};

/// What an agent tells its client, whatever protocol it speaks.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentEvent {
    /// A turn started.
    TurnStarted {
        /// The turn.
        turn_id: TurnId,
    },
    /// A turn ended.
    TurnEnded {
        /// The turn; absent where the protocol does not say.
        turn_id: Option<TurnId>,
        /// How.
        end: TurnEnd,
    },
    /// A piece of the model's message was shown.
    TextDelta {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The piece.
        text: String,
    },
    /// A piece of the model's reasoning was shown.
    ReasoningDelta {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The piece.
        text: String,
    },
    /// A whole message of the model was shown.
    Message {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The message.
        text: String,
    },
    /// A tool began to run.
    CallBegin {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The call.
        call_id: CallId,
        /// Its command line, where it has one.
        command: String,
        /// Its process, where the agent tells.
        pid: Option<u32>,
    },
    /// A piece of a tool's output was shown.
    CallOutput {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The call.
        call_id: CallId,
        /// The piece.
        chunk: String,
    },
    /// A tool ended.
    CallEnd {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The call.
        call_id: CallId,
        /// Its exit code; absent if it was cut off.
        exit_code: Option<i32>,
        /// What it printed.
        output: String,
    },
    /// A call waits for the user's approval.
    ApprovalRequest {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The call.
        call_id: CallId,
    },
    /// A call waits for the user's answers to its questions.
    Question {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The call.
        call_id: CallId,
        /// The questions.
        questions: Vec<String>,
    },
    /// What the user said was taken into the history.
    UserMessage {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The text.
        text: String,
    },
    /// A sub-agent was started.
    SubAgentStarted {
        /// The turn that started it.
        turn_id: Option<TurnId>,
        /// The sub-agent.
        agent_id: ConversationId,
        /// The text that its conversation opens with.
        task: String,
        /// Whether it is to shut down by itself at the end of its first turn.
        one_shot: bool,
    },
    /// A sub-agent has ended.
    SubAgentEnded {
        /// The turn that started it.
        turn_id: Option<TurnId>,
        /// The sub-agent.
        agent_id: ConversationId,
        /// How, as its protocol names it.
        how: String,
    },
    /// An event of a sub-agent, as it was forwarded to the consumer of its events.
    SubAgentEvent {
        /// The turn that started it.
        turn_id: Option<TurnId>,
        /// The sub-agent.
        agent_id: ConversationId,
        /// The event.
        event: Box<AgentEvent>,
    },
    /// The history was replaced by a summary.
    Compacted {
        /// The turn.
        turn_id: Option<TurnId>,
    },
    /// The conversation was forked.
    Forked {
        /// The fork's rollout.
        path: String,
    },
    /// Turns were taken out of the history.
    RolledBack {
        /// How many.
        turns: usize,
    },
    /// Something the user may want to know of.
    Background {
        /// The text.
        message: String,
    },
    /// An error was shown.
    Error {
        /// The turn.
        turn_id: Option<TurnId>,
        /// The text.
        message: String,
    },
    /// The session has ended.
    ShutdownComplete,
    /// Anything else.
    Other {
        /// The turn that the event names as its own.
        turn_id: Option<TurnId>,
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
            | Self::ReasoningDelta { turn_id, .. }
            | Self::Message { turn_id, .. }
            | Self::CallBegin { turn_id, .. }
            | Self::CallOutput { turn_id, .. }
            | Self::CallEnd { turn_id, .. }
            | Self::ApprovalRequest { turn_id, .. }
            | Self::Question { turn_id, .. }
            | Self::UserMessage { turn_id, .. }
            | Self::SubAgentStarted { turn_id, .. }
            | Self::SubAgentEnded { turn_id, .. }
            | Self::SubAgentEvent { turn_id, .. }
            | Self::Compacted { turn_id }
            | Self::Error { turn_id, .. }
            | Self::Other { turn_id, .. } => turn_id.as_deref(),
            Self::Forked { .. }
            | Self::RolledBack { .. }
            | Self::Background { .. }
            | Self::ShutdownComplete => None,
        }
    }
}

/// A line of what a person sees of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum ShownLine {
    /// What the user said.
    User {
        /// The text.
        text: String,
    },
    /// A message of the model, whole or as far as it came.
    Message {
        /// The turn that was active as it was shown.
        turn_id: Option<TurnId>,
        /// The text.
        text: String,
    },
    /// A summary of the model's reasoning, whole or as far as it came.
    Reasoning {
        /// The turn that was active as it was shown.
        turn_id: Option<TurnId>,
        /// The text.
        text: String,
    },
    /// A command that runs, or has ended.
    Command {
        /// The call.
        call_id: CallId,
        /// The line.
        text: String,
    },
    /// Something that waits for the user: an approval or a question.
    Waiting {
        /// The call.
        call_id: CallId,
        /// The line.
        text: String,
    },
    /// An error.
    Error {
        /// The text.
        text: String,
        /// The turn that the view takes for stopped because of it.
        stopped: Option<TurnId>,
    },
    /// How a turn ended, where it did not simply complete.
    Status {
        /// The text.
        text: String,
    },
}

impl ShownLine {
    /// The line as it reads.
    pub fn text(&self) -> &str {
        match self {
            Self::User { text }
            | Self::Message { text, .. }
            | Self::Reasoning { text, .. }
            | Self::Command { text, .. }
            | Self::Waiting { text, .. }
            | Self::Error { text, .. }
            | Self::Status { text } => text,
        }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// The user stopped it.
    Interrupted,
    /// A new turn took its place.
    Replaced,
}
