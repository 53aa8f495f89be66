//! Rollouts in memory, on a disk that can run full.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cutpoint_protocol::rollout::RolloutLine;

use super::{Entry, Log};
use crate::lock;
use crate::rollout::{RolloutFile, RolloutStore};

type Files = Arc<Mutex<HashMap<PathBuf, Vec<u8>>>>;

pub(crate) struct MemoryStore {
    files: Files,
    /// How many more bytes the disk takes.
    pub(crate) room_bytes: Arc<Mutex<Option<usize>>>,
    log: Log,
}

impl MemoryStore {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            files: Files::default(),
            room_bytes: Arc::default(),
            log,
        }
    }

    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        lock(&self.files)[path].clone()
    }

    pub(crate) fn put(&self, path: &Path, content: &[u8]) {
        lock(&self.files).insert(path.to_owned(), content.to_vec());
    }

    /// The lines, all of which must be whole.
    pub(crate) fn lines(&self, path: &Path) -> Vec<RolloutLine> {
        let text = String::from_utf8(self.content(path)).unwrap();
        assert!(text.ends_with('\n'), "the last line is torn");
        text.lines()
            .map(|line| RolloutLine::parse(line).unwrap())
            .collect()
    }

    /// What each line is: its type, for events the event's, for items their outline.
    pub(crate) fn outline(&self, path: &Path) -> Vec<String> {
        let lines = self.lines(path);
        let ordinals: Vec<_> = lines.iter().map(|line| line.ordinal.unwrap()).collect();
        assert_eq!(ordinals, (0..lines.len() as u64).collect::<Vec<_>>());
        lines.iter().map(Self::describe).collect()
    }

    fn describe(line: &RolloutLine) -> String {
        match line.content() {
            cutpoint_protocol::rollout::LineContent::Item(item) => super::outline(&item),
            _ if line.kind == "event_msg" => line.payload["type"].as_str().unwrap().to_owned(),
            _ => line.kind.clone(),
        }
    }

    fn file(&self, path: &Path) -> Box<dyn RolloutFile> {
        Box::new(MemoryFile {
            path: path.to_owned(),
            files: Arc::clone(&self.files),
            room_bytes: Arc::clone(&self.room_bytes),
            log: Arc::clone(&self.log),
        })
    }
}

#[async_trait]
impl RolloutStore for MemoryStore {
    async fn create(&self, name: &str) -> io::Result<Box<dyn RolloutFile>> {
        let path = Path::new("/rollouts").join(name);
        if lock(&self.files).insert(path.clone(), Vec::new()).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(self.file(&path))
    }

    async fn open(&self, path: &Path) -> io::Result<(Box<dyn RolloutFile>, Vec<u8>)> {
        let content = lock(&self.files)
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok((self.file(path), content))
    }
}

struct MemoryFile {
    path: PathBuf,
    files: Files,
    room_bytes: Arc<Mutex<Option<usize>>>,
    log: Log,
}

#[async_trait]
impl RolloutFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = {
            let mut room = lock(&self.room_bytes);
            match &mut *room {
                Some(0) => return Err(io::ErrorKind::StorageFull.into()),
                Some(room) => {
                    let count = bytes.len().min(*room);
                    *room -= count;
                    count
                }
                None => bytes.len(),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        lock(&self.log).push(Entry::Write(text));
        lock(&self.files)
            .get_mut(&self.path)
            .unwrap()
            .extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    async fn sync(&mut self) -> io::Result<()> {
        lock(&self.log).push(Entry::Sync);
        Ok(())
    }

    async fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        lock(&self.files)
            .get_mut(&self.path)
            .unwrap()
            .truncate(length_bytes as usize);
        Ok(())
    }
}
