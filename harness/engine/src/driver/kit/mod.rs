//! What drivers share: starting an agent, speaking with it, recording what it does, and ending it.

pub(crate) mod env;
pub(crate) mod install;
pub(crate) mod json_lines;
pub mod points;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod queue_protocol;
pub(crate) mod record;
pub(crate) mod rpc;
pub(crate) mod supervise;
