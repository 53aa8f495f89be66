//! Reads a session's rollout file, as any other process could, at the moments that matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_check::trace::{ReadTrigger, What};

use crate::tracer::Tracer;

/// Largest rollout that is read, in bytes.
const ROLLOUT_LIMIT_BYTES: u64 = 256 << 20;

/// Reads one rollout file again and again and records what is new in it.
#[derive(Debug)]
pub struct RolloutReader {
    tracer: Arc<Tracer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    known: Vec<u8>,
}

impl RolloutReader {
    /// A reader that does not know its file yet.
    pub fn new(tracer: Arc<Tracer>) -> Arc<Self> {
        Arc::new(Self {
            tracer,
            state: Mutex::default(),
        })
    }

    /// Tells where the file is. What is known of another file is forgotten.
    pub fn set_path(&self, path: &Path) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.path.as_deref() != Some(path) {
            *state = State {
                path: Some(path.to_owned()),
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
    pub fn record_with(&self, event: What, trigger: ReadTrigger) {
        let read = self.observe(trigger);
        self.tracer.record_many([event].into_iter().chain(read));
    }

    fn observe(&self, trigger: ReadTrigger) -> Option<What> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = state.path.clone()?;
        let name = path.display().to_string();
        let unreadable = |error: String| What::RolloutUnreadable {
            trigger: trigger.clone(),
            path: name.clone(),
            error,
        };
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Some(unreadable(error)),
        };
        let from = if bytes.starts_with(&state.known) {
            state.known.len()
        } else {
            0
        };
        let text = String::from_utf8_lossy(&bytes[from..]).into_owned();
        state.known = bytes;
        Some(What::Rollout {
            trigger,
            path: name,
            from: from as u64,
            text,
        })
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > ROLLOUT_LIMIT_BYTES {
        return Err(format!(
            "{size} bytes; cutpoint reads up to {ROLLOUT_LIMIT_BYTES}"
        ));
    }
    fs::read(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(tracer: &Tracer) -> Vec<(u64, String)> {
        let read = |entry: &cutpoint_check::trace::Entry| match &entry.what {
            What::Rollout { from, text, .. } => Some((*from, text.clone())),
            _ => None,
        };
        tracer.entries().iter().filter_map(read).collect()
    }

    #[test]
    fn growth_is_told_from_a_rewrite() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        let tracer = Arc::new(Tracer::default());
        let reader = RolloutReader::new(tracer.clone());
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
            tracer.entries().last().unwrap().what,
            What::RolloutUnreadable { .. }
        ));
    }
}
