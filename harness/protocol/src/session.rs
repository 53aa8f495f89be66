//! The submission queue and the event queue between a client and an agent.
//!
//! As JSON lines: `{"id", "op"}` towards the agent, `{"id", "msg"}` back, where an event's id is
//! the submission that caused it. Ops and events that are not known are kept verbatim.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{CallId, ConversationId, SubmissionId, TurnId};

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Chosen by the client, unique in the session.
    pub id: SubmissionId,
    /// What is asked for.
    pub op: Op,
}

/// A piece of user input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InputItem {
    /// A text.
    Text {
        /// The text.
        text: String,
    },
}

/// What a client can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Op {
    /// Input that joins the running turn, or starts one.
    UserInput {
        /// The input.
        items: Vec<InputItem>,
        /// The id that the caller wants the turn to have, if one is started: a UUID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn_id: Option<TurnId>,
    },
    /// Input that starts a turn and replaces a running one.
    UserTurn {
        /// The input.
        items: Vec<InputItem>,
        /// The id that the caller wants the turn to have: a UUID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn_id: Option<TurnId>,
    },
    /// Abort whatever runs.
    Interrupt,
    /// The user's answer to an approval request for a command.
    ExecApproval {
        /// The call that waits.
        call_id: CallId,
        /// The answer.
        decision: Decision,
    },
    /// The user's answer to an approval request for a patch.
    PatchApproval {
        /// The call that waits.
        call_id: CallId,
        /// The answer.
        decision: Decision,
    },
    /// The user's answers to a question of the model.
    UserInputAnswer {
        /// The call that asked.
        call_id: CallId,
        /// One answer for each question, in their order; none if the user gave none.
        answers: Vec<String>,
    },
    /// A command that the user runs; it replaces a running turn.
    UserShell {
        /// The command line, given to a shell.
        command: String,
    },
    /// A review by a sub-agent; it replaces a running turn.
    Review {
        /// What is to be reviewed.
        prompt: String,
    },
    /// Replaces the history by a summary; it replaces a running turn.
    Compact,
    /// Writes the conversation so far into a rollout of its own.
    Fork,
    /// Takes the last turns out of the history.
    Rollback {
        /// How many, at least one.
        turns: usize,
    },
    /// End the session.
    Shutdown,
    /// An op that this version does not know, verbatim.
    #[serde(untagged)]
    Unknown(Value),
}

/// The user's answer to an approval request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Run it.
    Approved,
    /// Run it, and don't ask again in this session.
    ApprovedForSession,
    /// Don't run it; the model is informed.
    Denied,
    /// Don't run it and stop the turn: an interrupt.
    Abort,
}

/// What an agent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The submission that the event belongs to.
    pub id: SubmissionId,
    /// What happened.
    pub msg: EventMsg,
}

/// How a sub-agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubAgentEnd {
    /// Its turn ran to its end, and it shut down.
    Complete,
    /// It was closed in good order: interrupted, and shut down.
    Closed,
    /// Its turn failed, and it shut down.
    Failed,
    /// It did not shut down in time and was ended hard.
    Killed,
}

impl SubAgentEnd {
    /// The end's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }
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

impl AbortReason {
    /// The reason's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Replaced => "replaced",
        }
    }
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventMsg {
    /// The session is ready.
    SessionConfigured {
        /// The session's id.
        session_id: ConversationId,
        /// Where its rollout is written.
        rollout_path: String,
    },
    /// A turn has started.
    TurnStarted {
        /// The turn's id.
        turn_id: TurnId,
    },
    /// A turn ran to its end.
    TurnComplete {
        /// The turn's id.
        turn_id: TurnId,
        /// The last message the model wrote in it.
        last_agent_message: Option<String>,
    },
    /// A turn was aborted.
    TurnAborted {
        /// The turn's id.
        turn_id: TurnId,
        /// Why.
        reason: AbortReason,
    },
    /// A turn ended with an error.
    TurnFailed {
        /// The turn's id.
        turn_id: TurnId,
        /// What went wrong.
        message: String,
    },
    /// A piece of the model's message.
    AgentMessageDelta {
        /// The turn's id.
        turn_id: TurnId,
        /// The piece.
        delta: String,
    },
    /// A whole message of the model.
    AgentMessage {
        /// The turn's id.
        turn_id: TurnId,
        /// The message.
        message: String,
    },
    /// A piece of the model's reasoning summary.
    AgentReasoningDelta {
        /// The turn's id.
        turn_id: TurnId,
        /// The piece.
        delta: String,
    },
    /// A tool has been started.
    ExecCommandBegin {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// The command's words.
        command: Vec<String>,
        /// The process id, which is also the id of its process group.
        pid: Option<u32>,
    },
    /// A piece of a tool's output.
    ExecCommandOutputDelta {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// The piece.
        chunk: String,
    },
    /// A tool has ended.
    ExecCommandEnd {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// Its exit code; absent if it was killed.
        exit_code: Option<i32>,
        /// What it printed.
        output: String,
    },
    /// A command waits for the user's approval.
    ExecApprovalRequest {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// The command's words.
        command: Vec<String>,
    },
    /// A patch waits for the user's approval.
    ApplyPatchApprovalRequest {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// The files that it changes.
        paths: Vec<String>,
    },
    /// The model asks the user; the call waits for the answers.
    UserInputRequest {
        /// The turn's id.
        turn_id: TurnId,
        /// The call.
        call_id: CallId,
        /// The questions.
        questions: Vec<String>,
    },
    /// What the user said was taken into the history.
    UserMessage {
        /// The turn's id.
        turn_id: TurnId,
        /// The text.
        message: String,
    },
    /// A sub-agent has been started.
    SubAgentStarted {
        /// The turn that started it.
        turn_id: TurnId,
        /// The sub-agent's id, which is its session's.
        agent_id: ConversationId,
        /// What it is to do: the text that its conversation opens with.
        task: String,
        /// Whether it shuts down by itself at the end of its first turn.
        one_shot: bool,
    },
    /// A sub-agent has ended; nothing of it follows.
    SubAgentEnded {
        /// The turn that started it.
        turn_id: TurnId,
        /// The sub-agent's id.
        agent_id: ConversationId,
        /// How it ended.
        end: SubAgentEnd,
    },
    /// An event of a sub-agent.
    SubAgentEvent {
        /// The turn that started it.
        turn_id: TurnId,
        /// The sub-agent's id.
        agent_id: ConversationId,
        /// The event, with the sub-agent's own turn id.
        msg: Box<EventMsg>,
    },
    /// The history was replaced by a summary.
    ContextCompacted {
        /// The turn's id.
        turn_id: TurnId,
    },
    /// The conversation was forked.
    Forked {
        /// The fork's id.
        session_id: ConversationId,
        /// The fork's rollout, with which it can be resumed.
        rollout_path: String,
    },
    /// Turns were taken out of the history.
    RolledBack {
        /// How many.
        turns: usize,
    },
    /// Something that the user may want to know of.
    BackgroundEvent {
        /// The text.
        message: String,
    },
    /// The stream to the model broke and is tried again.
    StreamError {
        /// The turn's id.
        turn_id: TurnId,
        /// The text.
        message: String,
    },
    /// Tokens used by a turn so far.
    TokenCount {
        /// The turn's id.
        turn_id: TurnId,
        /// Tokens read by the model.
        input_tokens: u64,
        /// Tokens written by the model.
        output_tokens: u64,
    },
    /// An op could not be carried out, or something broke outside a turn.
    Error {
        /// The text.
        message: String,
    },
    /// The session has ended; nothing follows.
    ShutdownComplete,
    /// An event that this version does not know, verbatim.
    #[serde(untagged)]
    Unknown(Value),
}

impl EventMsg {
    /// The turn that the event belongs to.
    pub fn turn_id(&self) -> Option<&TurnId> {
        match self {
            Self::TurnStarted { turn_id }
            | Self::TurnComplete { turn_id, .. }
            | Self::TurnAborted { turn_id, .. }
            | Self::TurnFailed { turn_id, .. }
            | Self::AgentMessageDelta { turn_id, .. }
            | Self::AgentMessage { turn_id, .. }
            | Self::AgentReasoningDelta { turn_id, .. }
            | Self::ExecCommandBegin { turn_id, .. }
            | Self::ExecCommandOutputDelta { turn_id, .. }
            | Self::ExecCommandEnd { turn_id, .. }
            | Self::ExecApprovalRequest { turn_id, .. }
            | Self::ApplyPatchApprovalRequest { turn_id, .. }
            | Self::UserInputRequest { turn_id, .. }
            | Self::UserMessage { turn_id, .. }
            | Self::SubAgentStarted { turn_id, .. }
            | Self::SubAgentEnded { turn_id, .. }
            | Self::SubAgentEvent { turn_id, .. }
            | Self::ContextCompacted { turn_id }
            | Self::StreamError { turn_id, .. }
            | Self::TokenCount { turn_id, .. } => Some(turn_id),
            Self::SessionConfigured { .. }
            | Self::Forked { .. }
            | Self::RolledBack { .. }
            | Self::BackgroundEvent { .. }
            | Self::Error { .. }
            | Self::ShutdownComplete
            | Self::Unknown(_) => None,
        }
    }

    /// Whether a turn ends with this event.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::TurnComplete { .. } | Self::TurnAborted { .. } | Self::TurnFailed { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_and_events_go_both_ways() {
        let text = r#"{"id":"1","op":{"type":"user_input","items":[{"type":"text","text":"hi"}]}}"#;
        let submission: Submission = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&submission).unwrap(), text);
        let text =
            r#"{"id":"1","msg":{"type":"turn_aborted","turn_id":"t","reason":"interrupted"}}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert!(event.msg.is_terminal());
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
    }

    #[test]
    fn unknown_ops_and_events_are_kept() {
        let text = r#"{"id":"1","op":{"type":"levitate","height_m":2}}"#;
        let submission: Submission = serde_json::from_str(text).unwrap();
        assert!(matches!(submission.op, Op::Unknown(_)));
        assert_eq!(serde_json::to_string(&submission).unwrap(), text);
        let text = r#"{"id":"1","msg":{"type":"sparkle","n":[1]}}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event.msg.turn_id(), None);
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
    }
}
