//! Files in memory, for patches and for the commands that look at them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutpoint_agent::Files;

/// Files that no disk holds. Every folder seems to be there, and nothing is a link.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<BTreeMap<PathBuf, String>>>);

impl MemoryFiles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        // Every change is one step, so a panic leaves whole files.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file's content, if there is such a file.
    pub(super) fn content(&self, path: &Path) -> Option<String> {
        self.lock().get(path).cloned()
    }
}

impl Files for MemoryFiles {
    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.content(path))
    }

    fn write(&self, path: &Path, content: &str) -> io::Result<()> {
        self.lock().insert(path.to_owned(), content.to_owned());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.lock().remove(path);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
}
