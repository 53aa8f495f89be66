//! The recording proxy between a client that sees every byte and servers of many kinds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    dead_code,
    reason = "the server's tests use the rest of rig and client"
)]

#[path = "../server/client.rs"]
mod client;
#[path = "../server/rig.rs"]
mod rig;

mod answers;
mod cuts;
mod properties;
mod secrets;
mod support;
mod tls;
