//! Sub-agents: sessions of their own whose events are forwarded to the client of the session that
//! started them, and whose ops come from its calls.
//!
//! A sub-agent belongs to a turn. It sees the turn's cancellation itself (`run`), and no turn ends
//! before its sub-agents have (`agents`).

mod agents;
mod approvals;
mod calls;
mod review;
mod runner;

pub(crate) use agents::SubAgents;
pub(crate) use calls::SubAgentCall;
pub(crate) use review::Review;
