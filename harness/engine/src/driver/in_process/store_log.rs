//! A rollout store that records each write and sync as it returns.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::{RolloutFile, RolloutStore};
use cutpoint_trace::{Observation, StoreOp};

use crate::driver::kit::points::Points;
use crate::tracer::Tracer;

/// The point right after each write.
pub const WRITTEN: &str = "store.written";
/// The point right after each sync.
pub const SYNCED: &str = "store.synced";

/// A store around another one.
pub(super) struct LoggedStore {
    inner: Arc<dyn RolloutStore>,
    tracer: Arc<Tracer>,
    points: Arc<Points>,
}

impl LoggedStore {
    pub(super) fn new(
        inner: Arc<dyn RolloutStore>,
        tracer: Arc<Tracer>,
        points: Arc<Points>,
    ) -> Self {
        Self {
            inner,
            tracer,
            points,
        }
    }

    fn logged(&self, inner: Box<dyn RolloutFile>) -> Box<dyn RolloutFile> {
        Box::new(LoggedFile {
            path: inner.path().display().to_string(),
            inner,
            tracer: self.tracer.clone(),
            points: self.points.clone(),
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
    /// Its path, as the trace shows it.
    path: String,
    tracer: Arc<Tracer>,
    points: Arc<Points>,
}

impl LoggedFile {
    /// Records what was done; the agent can be held or killed before it learns of that.
    async fn record(&mut self, done: StoreOp, point: &'static str) {
        let path = self.path.clone();
        self.tracer.record(Observation::Stored { path, done });
        if let Some(hold) = self.points.pass(point) {
            hold.await;
        }
    }
}

#[async_trait]
impl RolloutFile for LoggedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes).await?;
        let done = StoreOp::Written {
            bytes: written as u64,
        };
        self.record(done, WRITTEN).await;
        Ok(written)
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.inner.sync().await?;
        self.record(StoreOp::Synced, SYNCED).await;
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
    async fn writes_and_syncs_are_recorded_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let tracer = Arc::new(Tracer::default());
        let points = Points::new([], Vec::new(), &tracer, &Arc::default());
        let points = Arc::new(points);
        let files = Arc::new(FileStore::new(dir.path()));
        let store = LoggedStore::new(files, tracer.clone(), points.clone());
        let mut file = store.create("r.jsonl").await.unwrap();
        file.write(b"one\n").await.unwrap();
        file.sync().await.unwrap();
        drop(file);
        let (mut file, content) = store.open(&dir.path().join("r.jsonl")).await.unwrap();
        assert_eq!(content, b"one\n");
        file.write(b"more\n").await.unwrap();
        let done = |entry: &cutpoint_trace::Entry| match &entry.observation {
            Observation::Stored { done, .. } => Some(*done),
            _ => None,
        };
        let seen: Vec<_> = tracer.entries().iter().filter_map(done).collect();
        let written = |bytes| StoreOp::Written { bytes };
        assert_eq!(seen, [written(4), StoreOp::Synced, written(5)]);
        assert_eq!(points.passed(), [WRITTEN, SYNCED, WRITTEN]);
    }
}
