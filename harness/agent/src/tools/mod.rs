//! Tools: what runs them, what the model asks for, what it gets back.

pub(crate) mod call_text;
pub(crate) mod capture;
mod descendants;
pub(crate) mod files;
pub(crate) mod patch;
mod process;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use files::{Disk, Files};
pub use process::ProcessTools;

/// A command to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCommand {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// Variables besides those of the agent's own environment.
    pub env: Vec<(String, String)>,
    /// When it is ended at the latest.
    pub timeout: Option<Duration>,
}

/// Why a call can't be carried out. The text is for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CallError(String);

impl From<String> for CallError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for CallError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What a running tool does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// It printed something.
    Output(Bytes),
    /// It is gone; the code is absent if a signal ended it. Nothing follows.
    Exited(Option<i32>),
}

/// Runs tools.
#[async_trait]
pub trait ToolRunner: Send + Sync {
    /// The files that its tools work on.
    fn files(&self) -> &dyn Files;

    /// Starts a command in a process group of its own.
    async fn spawn(&self, command: ToolCommand) -> io::Result<Box<dyn RunningTool>>;
}

/// A tool that runs. Dropping it kills it.
#[async_trait]
pub trait RunningTool: Send {
    /// The process id, which is also the id of the process group.
    fn pid(&self) -> Option<u32>;

    /// What happens next. Nothing is lost if the future is dropped.
    async fn next(&mut self) -> ToolEvent;

    /// Kills the tool with all its children, waits until they are gone, and returns what it had
    /// printed besides.
    async fn kill(&mut self) -> Bytes;

    /// For planted defects: lets go of the tool without ending all of it.
    fn abandon(self: Box<Self>, how: AbandonMode);
}

/// For planted defects: what is done to a tool that is let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonMode {
    /// Nothing: it runs on.
    Running,
    /// The process that was started is killed, whatever it has started itself.
    ChildKilled,
    /// The whole group is asked to end, without a check whether it does.
    AskedToEnd,
}
