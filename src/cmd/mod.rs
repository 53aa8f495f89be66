//! The commands, one file each.

pub mod agent;
pub mod agents;
pub mod completions;
pub mod fmt;
pub mod rules;
pub mod run;
pub mod serve;
