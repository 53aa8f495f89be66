//! Tests with scripted parts: a model, tools and a store that do what the test says.

mod approvals;
mod calls;
mod defects;
mod delegate_defects;
mod delegates;
mod front;
mod front_defects;
mod http;
mod interrupts;
mod near_misses;
mod past;
mod process;
mod questions;
mod retries;
mod rollouts;
mod server_history;
mod stdio;
mod support;
mod sweep;
mod transcript;
mod turns;
