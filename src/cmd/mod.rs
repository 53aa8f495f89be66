//! The commands, one file each.

pub mod agent;
pub mod agents;
pub mod completions;
pub mod fmt;
pub mod mutate;
pub mod rules;
pub mod run;
pub mod serve;
