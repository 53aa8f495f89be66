//! The commands, one file each.

pub mod agent;
pub mod agents;
pub mod check;
pub mod completions;
pub mod defects;
pub mod diff;
pub mod doctor;
pub mod exhaustive;
pub mod fmt;
pub mod fuzz;
pub mod import;
pub mod mutate;
pub mod record;
pub mod replay;
pub mod report;
pub mod rules;
pub mod run;
pub mod serve;
pub mod sweep;
