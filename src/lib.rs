//! What the command line shares with cutpoint's own tests and benchmarks.

pub mod executor;

pub mod mutation;
