//! The kinds of events that an agent sends its client, as cut points name them.

use std::fmt;

/// A kind of event of the agent, whatever its protocol calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentEventKind {
    /// A turn started.
    TurnStarted,
    /// A turn ended, however it did.
    TurnEnded,
    /// What the user said was taken into the history.
    UserMessage,
    /// A piece of the model's message.
    TextDelta,
    /// A piece of the model's reasoning.
    ReasoningDelta,
    /// A whole message of the model.
    Message,
    /// A tool began to run.
    CallBegin,
    /// A tool ended.
    CallEnd,
    /// A call waits for the user's approval.
    ApprovalRequest,
    /// A call waits for the user's answers.
    Question,
    /// The history was replaced by a summary.
    Compacted,
    /// An error.
    Error,
}

impl AgentEventKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::TurnStarted,
        Self::TurnEnded,
        Self::UserMessage,
        Self::TextDelta,
        Self::ReasoningDelta,
        Self::Message,
        Self::CallBegin,
        Self::CallEnd,
        Self::ApprovalRequest,
        Self::Question,
        Self::Compacted,
        Self::Error,
    ];

    /// The name in cut points: `event call-begin 2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TurnStarted => "turn-started",
            Self::TurnEnded => "turn-ended",
            Self::UserMessage => "user-message",
            Self::TextDelta => "text-delta",
            Self::ReasoningDelta => "reasoning-delta",
            Self::Message => "message",
            Self::CallBegin => "call-begin",
            Self::CallEnd => "call-end",
            Self::ApprovalRequest => "approval-request",
            Self::Question => "question",
            Self::Compacted => "compacted",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for AgentEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
