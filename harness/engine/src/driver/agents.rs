//! The table of agents: a driver is a folder beside this file and a line in the table.

use super::agent_kind::AgentKind;
use super::{codex_app_server, in_process, json_rpc, stdio};

/// All agents, in the order in which they are listed. The first is the default.
pub const AGENTS: &[&dyn AgentKind] = &[
    &in_process::ReferenceAgent,
    &stdio::ReferenceProcess,
    &json_rpc::ReferenceFront,
    &stdio::AnyProgram,
    &codex_app_server::Codex,
];
