//! The words of the language that stand for plain values.

use std::fmt;

use crate::ast::{AwaitedReason, Capability, DisconnectKind, ExpectedTurnEnd, LateEvent};

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 22] = [
        Self::Shell,
        Self::CustomTools,
        Self::CodeMode,
        Self::LocalShell,
        Self::Replace,
        Self::Steer,
        Self::Resume,
        Self::Approvals,
        Self::Points,
        Self::ServerHistory,
        Self::ShownOutput,
        Self::Patches,
        Self::Questions,
        Self::SubAgents,
        Self::Review,
        Self::Compact,
        Self::UserShell,
        Self::Fork,
        Self::Rollback,
        Self::JsonRpc,
        Self::Transcript,
        Self::SlowClient,
    ];

    /// The capability as `needs` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::CustomTools => "custom-tools",
            Self::CodeMode => "code-mode",
            Self::LocalShell => "local-shell",
            Self::Replace => "replace",
            Self::Steer => "steer",
            Self::Resume => "resume",
            Self::Approvals => "approvals",
            Self::Points => "points",
            Self::ServerHistory => "server-history",
            Self::ShownOutput => "shown-output",
            Self::Patches => "patches",
            Self::Questions => "questions",
            Self::SubAgents => "sub-agents",
            Self::Review => "review",
            Self::Compact => "compact",
            Self::UserShell => "user-shell",
            Self::Fork => "fork",
            Self::Rollback => "rollback",
            Self::JsonRpc => "json-rpc",
            Self::Transcript => "transcript",
            Self::SlowClient => "slow-client",
        }
    }
}

impl DisconnectKind {
    /// All ways to end a connection.
    pub const ALL: [Self; 3] = [Self::Reset, Self::Close, Self::End];

    /// The way as `drop` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Close => "close",
            Self::End => "end",
        }
    }
}

impl AwaitedReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::Interrupted, Self::Replaced];

    /// The reason as `await turn-aborted` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Replaced => "replaced",
        }
    }
}

impl LateEvent {
    /// All kinds of events.
    pub const ALL: [Self; 5] = [
        Self::Delta,
        Self::Message,
        Self::Command,
        Self::Error,
        Self::End,
    ];

    /// The kind as `deliver-late` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Message => "message",
            Self::Command => "command",
            Self::Error => "error",
            Self::End => "end",
        }
    }
}

impl ExpectedTurnEnd {
    /// All outcomes.
    pub const ALL: [Self; 5] = [
        Self::Complete,
        Self::Aborted,
        Self::Replaced,
        Self::Failed,
        Self::Any,
    ];

    /// The outcome as `turns` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DisconnectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for AwaitedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for LateEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ExpectedTurnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
