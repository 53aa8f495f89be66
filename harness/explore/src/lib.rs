//! cutpoint's explorer: which schedules are run, and what they show together.
//!
//! A schedule is a scenario with steps added to it: each is an act at a cut point. So a schedule that
//! violates a rule is a scenario file like any other.
//!
//! The explorer sees agents through [`Executor`] alone; it starts nothing itself.

mod digest;
mod executor;
mod exhaustive;
mod failure_group;
mod fuzz;
mod plan;
pub mod results;
mod schedule;
mod shard;
mod shrink;
pub mod strategy;
mod sweep;
mod token;

pub use digest::{Digester, behaviour_digest, digest_of_text, sampled_digest, trace_digest};
pub use executor::{
    Determinism, Executor, GatePassed, RolloutWrite, RunError, RunResult, Violation,
};
pub use exhaustive::{ChoiceExecutor, Decision, Exploration, act_at_any_time, run_every_order};
pub use failure_group::{Clause, FailureGroup, FailureKey, Repeats, first_of_each_clause};
pub use fuzz::{Budget, Finding, Fuzz, FuzzEvent, FuzzOutcome};
pub use plan::{CrashLevel, CrashTally, DELAY_WINDOW, Plan};
pub use schedule::{Act, AppliedSchedule, Place, Schedule, ScheduledAct, fingerprint};
pub use shard::{NotWhole, ParseShardError, Shard, whole};
pub use shrink::shrink;
pub use sweep::{Progress, Sweep, SweepEvent, SweepOutcome, Target};
pub use token::{Token, TokenError};
