//! The words of the language that stand for plain values.

use std::fmt;

use crate::ast::{Capability, Drop, Outcome, Reason};

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 10] = [
        Self::Shell,
        Self::CustomTools,
        Self::LocalShell,
        Self::Replace,
        Self::Steer,
        Self::Resume,
        Self::Approvals,
        Self::Points,
        Self::ServerHistory,
        Self::ShownOutput,
    ];

    /// The capability as `needs` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::CustomTools => "custom-tools",
            Self::LocalShell => "local-shell",
            Self::Replace => "replace",
            Self::Steer => "steer",
            Self::Resume => "resume",
            Self::Approvals => "approvals",
            Self::Points => "points",
            Self::ServerHistory => "server-history",
            Self::ShownOutput => "shown-output",
        }
    }
}

impl Drop {
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

impl Reason {
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

impl Outcome {
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

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
