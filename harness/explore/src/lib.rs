//! cutpoint's explorer: which schedules are run, and what they show together.
//!
//! A schedule is a scenario with steps added to it: each is a message of the client that is sent as
//! the agent passes a named point, some turns of its other tasks later. So a schedule that breaks a
//! rule is a scenario file like any other.
//!
//! The explorer sees agents through [`Executor`] alone; it starts nothing itself.

mod class;
mod crash;
mod delay;
mod digest;
mod executor;
mod exhaust;
pub mod external;
mod fuzz;
mod schedule;
mod schedules;
mod shard;
mod shrink;
pub mod stored;
pub mod strategy;
mod sweep;

pub use class::class_of;
pub use crash::{Level, Tally};
pub use delay::WINDOW;
pub use digest::{Digester, behaviour, digest, digest_of_text};
pub use executor::{Broken, Executor, Observed, Write};
pub use exhaust::{Choosing, Decision, Space, exhaust, free};
pub use fuzz::{Budget, Finding, Fuzz, Fuzzed, News, fuzz};
pub use schedule::{Act, Injection, Schedule, Token, TokenError, fingerprint};
pub use shard::{NoShard, NotWhole, Shard, whole};
pub use shrink::shrink;
pub use sweep::{Bound, Class, Progress, Sweep, Trouble, sweep};
