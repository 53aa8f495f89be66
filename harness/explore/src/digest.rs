//! Digests: which runs have the same trace.
//!
//! An exact executor's traces are compared as they are, or without the server's part; those of an
//! agent in another process without what differs from run to run.

mod sampled;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cutpoint_trace::{Entry, Observation};
use serde_json::Value;
use twox_hash::XxHash3_64;

pub use sampled::sampled_digest;

/// Room for a short trace.
const USUAL_BYTES: usize = 16 << 10;
/// How many bodies' digests are kept.
const BODIES_KEPT: usize = 256;

/// The digests of bodies by their addresses. Each body is held, so that no other one takes its address.
type BodyDigests = HashMap<*const Value, (Arc<Value>, u64)>;

thread_local! {
    static BODIES: RefCell<BodyDigests> = RefCell::default();
}

/// A digest of a text (FNV-1a, 64 bits), the same on every machine.
pub fn digest_of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Takes a trace entry by entry; its value is the [`trace_digest`] of what it has taken.
#[derive(Debug, Clone, Default)]
pub struct Digester(BufferedHasher);

/// Collects everything that is hashed: hashing it in one go is several times faster than piece by piece.
#[derive(Debug, Clone)]
struct BufferedHasher(Vec<u8>);

impl Default for BufferedHasher {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }
}

impl Hasher for BufferedHasher {
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
            // The content of an event follows from the reply, which the response's head names.
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
            } => (
                exchange,
                conversation,
                path,
                headers,
                body_digest(body),
                history,
            )
                .hash(hasher),
            what => what.hash(hasher),
        }
    }

    /// The digest of what it has taken.
    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// A digest that is the same for traces in which the agent and its client did the same in the same
/// order, however far ahead of the agent's reading the server had sent.
pub fn behaviour_digest(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    let others = entries
        .iter()
        .filter(|entry| !is_by_server(&entry.observation));
    others.for_each(|entry| digester.take(entry));
    digester.value()
}

const fn is_by_server(what: &Observation) -> bool {
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

/// A digest that is the same for traces in which the same happened in the same order, at whatever time
/// and however the schedule that led to it is written. It is the same on every little-endian machine of
/// 64 bits, since results of several machines are merged.
pub fn trace_digest(entries: &[Entry]) -> u64 {
    let mut digester = Digester::default();
    entries.iter().for_each(|entry| digester.take(entry));
    digester.value()
}

/// The digest of a body. Thousands of schedules send the same request, and the server reads it once.
fn body_digest(body: &Arc<Value>) -> u64 {
    BODIES.with_borrow_mut(|bodies| {
        if bodies.len() > BODIES_KEPT {
            bodies.clear();
        }
        let known = bodies.entry(Arc::as_ptr(body)).or_insert_with(|| {
            let mut hasher = BufferedHasher::default();
            body.hash(&mut hasher);
            (body.clone(), hasher.finish())
        });
        known.1
    })
}
