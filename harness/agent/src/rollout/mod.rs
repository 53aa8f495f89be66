//! The rollout: where it is kept, how it is written, how a session is read back from it.

mod file;
mod line_draft;
mod recorder;
pub(crate) mod resume;

use std::io;
use std::path::Path;

use async_trait::async_trait;

pub use file::FileStore;

pub(crate) use line_draft::LineDraft;
pub(crate) use recorder::{
    AppendDefects, Recorder, RolloutWriteError, Writer, WriterStart, write_whole,
};

/// Where rollouts are kept.
#[async_trait]
pub trait RolloutStore: Send + Sync {
    /// Creates a rollout of that file name; one that exists already is an error.
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>>;

    /// Opens a rollout to continue, and reads what it holds.
    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)>;
}

/// One open rollout. What is written goes to its end.
#[async_trait]
pub trait RolloutFile: Send {
    /// Where it is.
    fn path(&self) -> &Path;

    /// Writes some of the bytes, at least one, and returns how many, like write(2).
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when everything written is on stable storage.
    async fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to that length.
    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()>;
}
