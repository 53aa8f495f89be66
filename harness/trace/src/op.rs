//! What a client asks of an agent.

use cutpoint_protocol::ids::{CallId, ConversationId, TurnId};
use serde::{Deserialize, Serialize};

/// What a client can ask of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientOp {
    /// User input.
    Input {
        /// The text.
        text: String,
        /// What it is meant to do.
        mode: InputMode,
        /// The id that the caller wants the turn to have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn_id: Option<TurnId>,
    },
    /// Work other than a turn with the model; it replaces a running turn.
    Task {
        /// What kind of work.
        task: TaskKind,
        /// The command line, or what is to be reviewed.
        text: String,
    },
    /// Open one more conversation under an id of the caller's.
    Open {
        /// The id.
        thread_id: ConversationId,
    },
    /// Copy the conversation so far into a session of its own, which the client goes on with.
    Fork,
    /// Take the last turns out of the history.
    Rollback {
        /// How many.
        turns: usize,
    },
    /// The user's Esc or Ctrl-C.
    Interrupt {
        /// The turn that is named as the one to interrupt, where the protocol names one.
        turn_id: Option<TurnId>,
    },
    /// The user's answer to an approval request.
    Approval {
        /// The call.
        call_id: CallId,
        /// The answer.
        decision: Decision,
    },
    /// The user's answer to a question.
    Answer {
        /// The call that asked.
        call_id: CallId,
        /// The answer.
        text: String,
    },
    /// End the session.
    Shutdown,
}

/// What user input is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputMode {
    /// Start a turn.
    Start,
    /// Join the running turn.
    Steer,
    /// Replace the running turn.
    Replace,
}

/// Work other than a turn with the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A command that the user runs.
    Shell,
    /// A review by a sub-agent.
    Review,
    /// The history is replaced by a summary.
    Compact,
}

/// The user's answer to an approval request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Run it.
    Approve,
    /// Don't.
    Deny,
    /// Don't, and stop the turn.
    Abort,
}
