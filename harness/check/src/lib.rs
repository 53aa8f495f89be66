//! cutpoint's rule book: the rules, checked over the trace of a run.
//!
//! Everything here is a pure function of the trace, so a stored trace can be checked again later.

pub mod file;
mod held;
pub mod ids;
mod invariant;
pub mod judge;
mod map;
pub mod rules;
pub mod view;

#[cfg(test)]
mod testing;

pub use invariant::{Findings, Invariant};
pub use judge::judge;
pub use rules::{rule, rules};
pub use view::View;
