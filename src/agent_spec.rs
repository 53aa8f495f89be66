//! Agents as the command line names them.

use cutpoint_agent::Defect;
use cutpoint_engine::driver::AgentError;
pub use cutpoint_engine::driver::agent_kind::AgentSpec;
use cutpoint_engine::driver::agents::AGENTS;

use crate::Failure;

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::agent(error.to_string())
    }
}

/// Refuses planted defects for agents that don't take them.
pub fn check_defects<'a>(
    defects: &[Defect],
    agents: impl IntoIterator<Item = &'a AgentSpec>,
) -> Result<(), Failure> {
    let mut agents = agents.into_iter();
    if defects.is_empty() || agents.all(|agent| agent.declaration().takes_defects) {
        return Ok(());
    }
    let takes = AGENTS.iter().map(|kind| kind.declaration());
    let names: Vec<_> = takes
        .filter(|it| it.takes_defects)
        .map(|it| it.name)
        .collect();
    Err(Failure::usage(format!(
        "--defect goes with --agent {}",
        names.join(", ")
    )))
}
