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

/// A number that tells texts apart, the same on every machine.
pub fn digest_of_text(text: &str) -> u64 {
    let mut hash = Fnv::new();
    // Writing into a number can't fail.
    let _ = hash.write_all(text.as_bytes());
    hash.value()
}

/// A number that is the same for traces in which the same happened in the same order, whenever it
/// did and however the schedule that led to it is written.
pub fn digest(entries: &[Entry]) -> u64 {
    let mut hash = Fnv::new();
    for entry in entries {
        if matches!(entry.what, What::Step { .. }) {
            continue;
        }
        // Writing into a number can't fail, nor can a trace's entry be no JSON.
        let _ = serde_json::to_writer(&mut hash, &entry.what);
    }
    hash.value()
}
