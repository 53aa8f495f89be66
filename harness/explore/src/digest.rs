//! Which runs are the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cutpoint_check::trace::{Entry, What};
use serde_json::Value;
use siphasher::sip::SipHasher13;

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

/// A number that is the same for traces in which the same happened in the same order, whenever it
/// did and however the schedule that led to it is written. The same on every machine, as results of
/// several are put together.
pub fn digest(entries: &[Entry]) -> u64 {
    let mut hasher = SipHasher13::new();
    for entry in entries {
        match &entry.what {
            What::Step { .. } => {}
            // What an event holds follows from the reply, which the response's head names.
            What::Sent {
                exchange, index, ..
            } => (exchange, index).hash(&mut hasher),
            What::Request {
                exchange,
                conversation,
                path,
                headers,
                body,
                history,
            } => {
                (exchange, conversation, path, headers, of(body), history).hash(&mut hasher);
            }
            what => what.hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// A body's number. Thousands of schedules send the same request, and the server reads it once.
fn of(body: &Arc<Value>) -> u64 {
    BODIES.with_borrow_mut(|bodies| {
        if bodies.len() > BODIES_KEPT {
            bodies.clear();
        }
        let known = bodies.entry(Arc::as_ptr(body)).or_insert_with(|| {
            let mut hasher = SipHasher13::new();
            body.hash(&mut hasher);
            (body.clone(), hasher.finish())
        });
        known.1
    })
}
