//! Rollouts in memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cutpoint_agent::{RolloutFile, RolloutStore};

use crate::rollout::RolloutSource;

/// Where the files seem to be.
const DIRECTORY: &str = "/lab/rollouts";

/// A file: what was written, and how much of it would survive a power loss.
#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced_bytes: usize,
}

type Files = Arc<Mutex<HashMap<PathBuf, Content>>>;

fn lock(files: &Files) -> MutexGuard<'_, HashMap<PathBuf, Content>> {
    // Every change is one step, so a panic leaves whole files.
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps rollouts in memory. Writes and syncs are done at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    files: Files,
}

impl MemoryStore {
    /// What a power loss would leave of a file now.
    pub fn synced(&self, path: &Path) -> Option<Vec<u8>> {
        let files = lock(&self.files);
        let content = files.get(path)?;
        Some(content.bytes[..content.synced_bytes].to_vec())
    }

    /// Puts a file in place, as a crash left it.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let synced_bytes = bytes.len();
        let content = Content {
            bytes,
            synced_bytes,
        };
        lock(&self.files).insert(path.to_owned(), content);
    }

    fn opened(&self, path: PathBuf) -> Box<dyn RolloutFile> {
        let files = self.files.clone();
        Box::new(MemoryFile { files, path })
    }
}

#[async_trait]
impl RolloutStore for MemoryStore {
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>> {
        let path = Path::new(DIRECTORY).join(name);
        let mut files = lock(&self.files);
        if files.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(path.clone(), Content::default());
        drop(files);
        Ok(self.opened(path))
    }

    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)> {
        let content = lock(&self.files).get(path).cloned();
        let content = content.ok_or(io::ErrorKind::NotFound)?;
        Ok((self.opened(path.to_owned()), content.bytes))
    }
}

impl RolloutSource for MemoryStore {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let files = lock(&self.files);
        let content = files.get(path).ok_or("there is no such file")?;
        Ok(content.bytes.clone())
    }

    fn tear(&self, path: &Path, bytes: u64) -> Result<u64, String> {
        let mut files = lock(&self.files);
        let content = files.get_mut(path).ok_or("there is no such file")?;
        let taken = content
            .bytes
            .len()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX));
        let left = content.bytes.len() - taken;
        content.bytes.truncate(left);
        content.synced_bytes = content.synced_bytes.min(left);
        Ok(taken as u64)
    }
}

struct MemoryFile {
    files: Files,
    path: PathBuf,
}

impl MemoryFile {
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut files = lock(&self.files);
        let content = files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        Ok(change(content))
    }
}

#[async_trait]
impl RolloutFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.change(|content| content.bytes.extend_from_slice(bytes))?;
        Ok(bytes.len())
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.change(|content| content.synced_bytes = content.bytes.len())
    }

    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        self.change(|content| {
            content.bytes.truncate(length);
            content.synced_bytes = content.synced_bytes.min(content.bytes.len());
        })
    }
}
