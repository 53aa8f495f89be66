//! A rollout store that tells what it has done, as each write and sync returns.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::{RolloutFile, RolloutStore};
use cutpoint_check::trace::{Stored, What};

use crate::tracer::Tracer;

/// A store around another one.
pub(super) struct LoggedStore {
    inner: Arc<dyn RolloutStore>,
    tracer: Arc<Tracer>,
}

impl LoggedStore {
    pub(super) fn new(inner: Arc<dyn RolloutStore>, tracer: Arc<Tracer>) -> Self {
        Self { inner, tracer }
    }

    fn logged(&self, inner: Box<dyn RolloutFile>) -> Box<dyn RolloutFile> {
        Box::new(LoggedFile {
            inner,
            tracer: self.tracer.clone(),
        })
    }
}

#[async_trait]
impl RolloutStore for LoggedStore {
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>> {
        Ok(self.logged(self.inner.create(name).await?))
    }

    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)> {
        let (file, content) = self.inner.open(path).await?;
        Ok((self.logged(file), content))
    }
}

struct LoggedFile {
    inner: Box<dyn RolloutFile>,
    tracer: Arc<Tracer>,
}

impl LoggedFile {
    fn record(&self, done: Stored) {
        let path = self.inner.path().display().to_string();
        self.tracer.record(What::Stored { path, done });
    }
}

#[async_trait]
impl RolloutFile for LoggedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes).await?;
        self.record(Stored::Written {
            bytes: written as u64,
        });
        Ok(written)
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.inner.sync().await?;
        self.record(Stored::Synced);
        Ok(())
    }

    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        self.inner.truncate(length_bytes).await
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_agent::FileStore;

    use super::*;

    #[tokio::test]
    async fn writes_and_syncs_are_told_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let tracer = Arc::new(Tracer::default());
        let store = LoggedStore::new(Arc::new(FileStore::new(dir.path())), tracer.clone());
        let mut file = store.create("r.jsonl").await.unwrap();
        file.write(b"one\n").await.unwrap();
        file.sync().await.unwrap();
        drop(file);
        let (mut file, content) = store.open(&dir.path().join("r.jsonl")).await.unwrap();
        assert_eq!(content, b"one\n");
        file.write(b"more\n").await.unwrap();
        let done = |entry: &cutpoint_check::trace::Entry| match &entry.what {
            What::Stored { done, .. } => Some(*done),
            _ => None,
        };
        let seen: Vec<_> = tracer.entries().iter().filter_map(done).collect();
        let written = |bytes| Stored::Written { bytes };
        assert_eq!(seen, [written(4), Stored::Synced, written(5)]);
    }
}
