//! Tests with scripted parts: a model, tools and a store that do what the test says.

mod approvals;
mod calls;
mod defects;
mod fork_rollback;
mod http;
mod interrupts;
mod jsonrpc;
mod jsonrpc_defects;
mod near_misses;
mod process;
mod questions;
mod retries;
mod rollouts;
mod server_history;
mod stdio;
mod sub_agent_defects;
mod sub_agents;
mod support;
mod sweep;
mod transcript;
mod turns;
