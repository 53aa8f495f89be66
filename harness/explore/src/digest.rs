//! Which runs are the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cutpoint_trace::{Entry, Observation};
use serde_json::Value;
use twox_hash::XxHash3_64;

/// Room for a short trace.
const USUAL_BYTES: usize = 16 << 10;
/// How many bodies' numbers are kept.
const BODIES_KEPT: usize = 256;

/// The numbers of bodies, by where these are. Each is held, so that no other comes to its place.
type Bodies = HashMap<*const Value, (Arc<Value>, u64)>;

thread_local! {
    static BODIES: RefCell<Bodies> = RefCell::default();
}

/// A number that tells texts apart (FNV-1a, 64 bits), the same on every machine.
pub fn digest_of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Takes a trace entry by entry, and tells the [`digest`] of what it has taken.
#[derive(Debug, Clone, Default)]
pub struct Digester(Bytes);

/// All that is hashed, one behind the other: hashing it in one go is several times faster than piece by
/// piece.
#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

impl Default for Bytes {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }
}

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        XxHash3_64::oneshot(&self.0)
    }
}

impl Digester {
    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        let hasher = &mut self.0;
        match &entry.observation {
            Observation::Step { .. } => {}
            // What an event holds follows from the reply, which the response's head names.
            Observation::Sent {
                exchange, index, ..
            } => (exchange, index).hash(hasher),
            Observation::Request {
                exchange,
                conversation,
                path,
                headers,
                body,
                history,
            } => (exchange, conversation, path, headers, of(body), history).hash(hasher),
            what => what.hash(hasher),
        }
    }

    /// The digest of what it has taken.
    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// A number that is the same for traces in which the agent and its client did the same in the same
/// order, however far the server had come meanwhile with sending what the agent had not read yet.
pub fn behaviour(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    let theirs = entries
        .iter()
        .filter(|entry| !is_servers(&entry.observation));
    theirs.for_each(|entry| digester.take(entry));
    digester.value()
}

const fn is_servers(what: &Observation) -> bool {
    matches!(
        what,
        Observation::ResponseHead { .. }
            | Observation::ResponseBody { .. }
            | Observation::Sent { .. }
            | Observation::SentPart { .. }
            | Observation::StreamEnd { .. }
            | Observation::Disconnected { .. }
    )
}

/// A number that is the same for traces in which the same happened in the same order, whenever it
/// did and however the schedule that led to it is written. The same on every machine of 64 bits and little
/// endian, as results of several are put together.
pub fn digest(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    entries.iter().for_each(|entry| digester.take(entry));
    digester.value()
}

/// A body's number. Thousands of schedules send the same request, and the server reads it once.
fn of(body: &Arc<Value>) -> u64 {
    BODIES.with_borrow_mut(|bodies| {
        if bodies.len() > BODIES_KEPT {
            bodies.clear();
        }
        let known = bodies.entry(Arc::as_ptr(body)).or_insert_with(|| {
            let mut hasher = Bytes::default();
            body.hash(&mut hasher);
            (body.clone(), hasher.finish())
        });
        known.1
    })
}
