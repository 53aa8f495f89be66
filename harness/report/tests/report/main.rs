//! Tests of reports from outside, as one program.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod console;
mod describe;
mod machines;
mod samples;
