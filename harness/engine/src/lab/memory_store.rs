//! Rollouts in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cutpoint_agent::{RolloutFile, RolloutStore};

use crate::rollout_reader::RolloutSource;

/// Where the files seem to be.
const DIRECTORY: &str = "/lab/rollouts";

/// A file: what was written, and how much of it would survive a power loss.
#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced_bytes: usize,
}

type File = Arc<Mutex<Content>>;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic leaves whole files.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps rollouts in memory. Writes and syncs are done at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    files: Mutex<Vec<(PathBuf, File)>>,
}

impl MemoryStore {
    /// What a power loss would leave of a file now.
    pub fn synced(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.file(path)?;
        let content = lock(&file);
        Some(content.bytes[..content.synced_bytes].to_vec())
    }

    /// Puts a file in place, as a crash left it.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let synced_bytes = bytes.len();
        let content = Content {
            bytes,
            synced_bytes,
        };
        match self.file(path) {
            Some(file) => *lock(&file) = content,
            None => lock(&self.files).push((path.to_owned(), Arc::new(Mutex::new(content)))),
        }
    }

    fn file(&self, path: &Path) -> Option<File> {
        let files = lock(&self.files);
        let found = files.iter().find(|(of, _)| of == path);
        found.map(|(_, file)| file.clone())
    }

    fn existing(&self, path: &Path) -> io::Result<File> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
        self.file(path).ok_or_else(missing)
    }
}

#[async_trait]
impl RolloutStore for MemoryStore {
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>> {
        let path = Path::new(DIRECTORY).join(name);
        if self.file(&path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File::default();
        lock(&self.files).push((path.clone(), file.clone()));
        Ok(Box::new(MemoryFile { path, file }))
    }

    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)> {
        let file = self.file(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = lock(&file).bytes.clone();
        let path = path.to_owned();
        Ok((Box::new(MemoryFile { path, file }), bytes))
    }
}

impl RolloutSource for MemoryStore {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.existing(path)?;
        let content = lock(&file);
        Ok(content.bytes.clone())
    }

    fn update(&self, path: &Path, known: &mut Vec<u8>) -> io::Result<usize> {
        let file = self.existing(path)?;
        let content = lock(&file);
        let from = match content.bytes.strip_prefix(&known[..]) {
            Some(new) => {
                let from = known.len();
                known.extend_from_slice(new);
                from
            }
            None => {
                known.clone_from(&content.bytes);
                0
            }
        };
        Ok(from)
    }

    fn tear(&self, path: &Path, bytes: u64) -> io::Result<u64> {
        let file = self.existing(path)?;
        let mut content = lock(&file);
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
    path: PathBuf,
    file: File,
}

#[async_trait]
impl RolloutFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.file).bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    async fn sync(&mut self) -> io::Result<()> {
        let mut content = lock(&self.file);
        content.synced_bytes = content.bytes.len();
        Ok(())
    }

    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        let mut content = lock(&self.file);
        content.bytes.truncate(length);
        content.synced_bytes = content.synced_bytes.min(content.bytes.len());
        Ok(())
    }
}
