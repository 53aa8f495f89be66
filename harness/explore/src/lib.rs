//! cutpoint's explorer: which schedules are run, and what they show together.
//!
//! A schedule is a scenario with steps added to it: each is a message of the client that is sent as
//! the agent passes a named point, some turns of its other tasks later. So a schedule that breaks a
//! rule is a scenario file like any other.
//!
//! The explorer sees agents through [`Executor`] alone; it starts nothing itself.

mod digest;
mod executor;
pub mod external;
mod fuzz;
mod schedule;
mod shrink;
pub mod strategy;
mod sweep;

pub use digest::digest;
pub use executor::{Broken, Executor, Observed, Write};
pub use fuzz::{Budget, Finding, Fuzz, Fuzzed, fuzz};
pub use schedule::{Act, Injection, Schedule, Token, TokenError, fingerprint};
pub use shrink::shrink;
pub use sweep::{Bound, Class, Progress, Sweep, sweep};
