//! Rollouts as files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{RolloutFile, RolloutStore};

/// Keeps rollouts as files in one directory.
#[derive(Debug, Clone)]
pub struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// A store that creates its files in `directory`, which is created when it is needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }
}

#[async_trait]
impl RolloutStore for FileStore {
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(name);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)?;
        // Without this the file itself may be gone after a power loss, however well it was synced.
        // A disk may take its time for this, and other sessions of the runtime must go on.
        let directory = File::open(&self.directory)?;
        tokio::task::spawn_blocking(move || directory.sync_all())
            .await
            .map_err(io::Error::other)??;
        Ok(Box::new(OpenFile {
            file: Arc::new(file),
            path,
        }))
    }

    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)> {
        let content = fs::read(path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        let open = OpenFile {
            file: Arc::new(file),
            path: path.to_owned(),
        };
        Ok((Box::new(open), content))
    }
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<File>,
    path: PathBuf,
}

#[async_trait]
impl RolloutFile for OpenFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A write into the page cache takes microseconds. Done in place it is over before the
        // session can be killed, whereas one on another thread would come to light afterwards.
        loop {
            match (&*self.file).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    async fn sync(&mut self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.sync_data())
            .await
            .map_err(io::Error::other)?
    }

    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }
}
