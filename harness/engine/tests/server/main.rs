//! The replay server, seen from a bare socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod abuse;
mod client;
mod disconnects;
mod drops;
mod gates;
mod http;
mod matching;
mod properties;
mod recorded_calls;
mod refusals;
mod rig;
mod whole;
