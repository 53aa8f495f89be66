//! Reads a session's rollout file, as any other process could, at the moments that matter.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_trace::{Observation, ReadTrigger};

use crate::tracer::Tracer;

/// Largest rollout that is read, in bytes.
const ROLLOUT_LIMIT_BYTES: u64 = 64 << 20;
/// Opening a pipe without a writer must not block.
const NONBLOCK: i32 = nix::fcntl::OFlag::O_NONBLOCK.bits();

/// Where rollouts are kept, seen from outside the agent.
pub trait RolloutSource: Send + Sync {
    /// The file's whole content.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Takes bytes off the file's end, all of them if it has no more. Gives how many were taken.
    ///
    /// # Errors
    /// If the file cannot be changed.
    fn tear(&self, path: &Path, bytes: u64) -> io::Result<u64>;

    /// Brings `known`, the content as it was, up to date. Gives the byte from which it is new: its
    /// length where the file only grew, 0 where earlier bytes changed.
    ///
    /// # Errors
    /// If it cannot be read; `known` is left as it is.
    fn update(&self, path: &Path, known: &mut Vec<u8>) -> io::Result<usize> {
        let bytes = self.read(path)?;
        let from = if bytes.starts_with(known) {
            known.len()
        } else {
            0
        };
        *known = bytes;
        Ok(from)
    }
}

/// Rollouts on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskRollouts;

impl RolloutSource for DiskRollouts {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_bounded(path)
    }

    fn tear(&self, path: &Path, bytes: u64) -> io::Result<u64> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len();
        let bytes = length.min(bytes);
        file.set_len(length - bytes)?;
        Ok(bytes)
    }
}

/// Why a rollout could not be torn.
#[derive(Debug, thiserror::Error)]
pub enum TearError {
    /// The agent has not named its rollout yet.
    #[error("it is not known")]
    NoRollout,
    /// The file cannot be changed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one rollout file again and again and records what is new in it.
pub struct RolloutReader {
    tracer: Arc<Tracer>,
    source: Arc<dyn RolloutSource>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    /// The path, as the trace shows it.
    name: String,
    known: Vec<u8>,
}

impl RolloutReader {
    /// A reader that does not know its file yet.
    pub fn new(tracer: Arc<Tracer>, source: Arc<dyn RolloutSource>) -> Arc<Self> {
        Arc::new(Self {
            tracer,
            source,
            state: Mutex::default(),
        })
    }

    /// Tells where the file is. What is known of another file is forgotten.
    pub fn set_path(&self, path: &Path) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.path.as_deref() != Some(path) {
            *state = State {
                path: Some(path.to_owned()),
                name: path.display().to_string(),
                known: Vec::new(),
            };
        }
    }

    /// Reads the file now, on this thread: what comes next in the trace was seen later.
    pub fn read(&self, trigger: ReadTrigger) {
        let observed = self.observe(trigger);
        self.tracer.record_many(observed);
    }

    /// Records an event and the file's content at that very moment, with nothing between them.
    pub fn record_with(&self, event: Observation, trigger: ReadTrigger) {
        let read = self.observe(trigger);
        self.tracer.record_many([event].into_iter().chain(read));
    }

    /// Takes bytes off the file's end, all of them if it has no more, and records that.
    ///
    /// # Errors
    /// If the file is not known, or cannot be cut.
    pub fn tear(&self, bytes: usize) -> Result<(), TearError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = state.path.clone().ok_or(TearError::NoRollout)?;
        let bytes = self.source.tear(&path, bytes as u64)?;
        let taken = usize::try_from(bytes).unwrap_or(usize::MAX);
        let left = state.known.len().saturating_sub(taken);
        state.known.truncate(left);
        self.tracer.record(Observation::Torn {
            path: state.name.clone(),
            bytes,
        });
        Ok(())
    }

    fn observe(&self, trigger: ReadTrigger) -> Option<Observation> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { path, name, known } = &mut *state;
        let path = path.as_deref()?;
        Some(match self.source.update(path, known) {
            Ok(from) => Observation::Rollout {
                trigger,
                path: name.clone(),
                from: from as u64,
                text: text_of(&known[from..]),
            },
            Err(error) => Observation::RolloutUnreadable {
                trigger,
                path: name.clone(),
                error: error.to_string(),
            },
        })
    }
}

fn text_of(bytes: &[u8]) -> String {
    // The usual case first, and several times faster than looking for what is broken.
    str::from_utf8(bytes).map_or_else(
        |_| String::from_utf8_lossy(bytes).into_owned(),
        str::to_owned,
    )
}

/// Reads the file that an agent named. It may have named anything: a pipe would block this thread
/// for ever, a device would never end.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that it is too large.
    file.take(ROLLOUT_LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ROLLOUT_LIMIT_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than the {ROLLOUT_LIMIT_BYTES} bytes that cutpoint reads"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(tracer: &Tracer) -> Vec<(u64, String)> {
        let read = |entry: &cutpoint_trace::Entry| match &entry.observation {
            Observation::Rollout { from, text, .. } => Some((*from, text.clone())),
            _ => None,
        };
        tracer.entries().iter().filter_map(read).collect()
    }

    #[test]
    fn growth_is_told_from_a_rewrite() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        let tracer = Arc::new(Tracer::default());
        let reader = RolloutReader::new(tracer.clone(), Arc::new(DiskRollouts));
        reader.set_path(&path);
        for content in ["a\n", "a\nb\n", "a\nb\n", "x\nb\n"] {
            fs::write(&path, content).unwrap();
            reader.read(ReadTrigger::End);
        }
        let expected = [(0, "a\n"), (2, "b\n"), (4, ""), (0, "x\nb\n")];
        assert_eq!(
            reads(&tracer),
            expected.map(|(from, text)| (from, text.to_owned()))
        );
        fs::remove_file(&path).unwrap();
        reader.read(ReadTrigger::End);
        assert!(matches!(
            tracer.entries().last().unwrap().observation,
            Observation::RolloutUnreadable { .. }
        ));
    }

    #[test]
    fn what_is_no_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            let error = read_bounded(path).unwrap_err();
            assert_eq!(error.to_string(), "no regular file", "{}", path.display());
        }
    }
}
