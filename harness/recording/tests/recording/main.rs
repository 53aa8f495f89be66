//! Tests of recordings from outside, as one program.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
mod examples;
mod files;
mod matching;
mod sessions;
mod validate;
