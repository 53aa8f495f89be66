//! cutpoint's rule book: the rules, checked over the trace of a run.
//!
//! Everything here is a pure function of the trace, so a stored trace can be checked again later.

mod fast_hash;
pub mod file;
pub mod ids;
mod invariant;
pub mod judge;
mod pause_time;
pub mod rules;
pub mod view;

#[cfg(test)]
mod testing;

pub use invariant::{Findings, Invariant};
pub use judge::judge;
pub use rules::{rule, rules};
pub use view::View;
