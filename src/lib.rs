//! What the command line shares with cutpoint's own tests and benchmarks.

pub mod explorer;

pub mod mutation;
