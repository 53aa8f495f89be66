//! Tests with scripted parts: a model, tools and a store that do what the test says.

mod approvals;
mod calls;
mod defects;
mod http;
mod interrupts;
mod process;
mod retries;
mod rollouts;
mod server_history;
mod stdio;
mod support;
mod sweep;
mod turns;
