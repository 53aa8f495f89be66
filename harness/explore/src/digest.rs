//! Which runs are the same.

use std::io::{self, Write};

use cutpoint_check::trace::{Entry, What};

/// FNV-1a, 64 bits: fast, and the same on every machine, as results of several are put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

impl Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes a trace entry by entry, and tells the [`digest`] of what it has taken.
#[derive(Debug, Clone, Copy)]
pub struct Digester(Fnv);

impl Default for Digester {
    fn default() -> Self {
        Self(Fnv::new())
    }
}

impl Digester {
    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        if !matches!(entry.what, What::Step { .. }) {
            // Writing into a number can't fail, nor can a trace's entry be no JSON.
            let _ = serde_json::to_writer(&mut self.0, &entry.what);
        }
    }

    /// The digest of what it has taken.
    pub const fn value(self) -> u64 {
        self.0.value()
    }
}

/// A number that is the same for traces in which the agent and its client did the same in the same
/// order, however far the server had come meanwhile with sending what the agent had not read yet.
pub fn behaviour(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    let theirs = entries.iter().filter(|entry| !is_servers(&entry.what));
    theirs.for_each(|entry| digester.take(entry));
    digester.value()
}

const fn is_servers(what: &What) -> bool {
    matches!(
        what,
        What::ResponseHead { .. }
            | What::ResponseBody { .. }
            | What::Sent { .. }
            | What::SentPart { .. }
            | What::StreamEnd { .. }
            | What::Disconnected { .. }
    )
}

/// A number that is the same for traces in which the same happened in the same order, whenever it
/// did and however the schedule that led to it is written.
pub fn digest(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    entries.iter().for_each(|entry| digester.take(entry));
    digester.value()
}
