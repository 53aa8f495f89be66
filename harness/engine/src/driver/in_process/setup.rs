//! How the reference agent is set up for a case in this process.

use std::sync::Arc;

use cutpoint_agent::{Config, DefectSet, Endpoint, HistoryMode, Probe, Services};
use cutpoint_scenario::ast::Capability;

use super::store_log::LoggedStore;
use crate::driver::kit::env::{rollout_dir, work_dir};
use crate::driver::{AgentError, CaseEnv};
use crate::lab;

/// The agent's settings.
pub(crate) fn config(env: &CaseEnv, defects: DefectSet) -> Result<Config, AgentError> {
    let (cwd, rollouts) = match env.lab {
        Some(_) => (env.dir.join("work"), env.dir.join("rollouts")),
        None => (work_dir(env)?, rollout_dir(env)?),
    };
    let endpoint = Endpoint::parse(&env.base_url).map_err(not_started)?;
    let mut config = Config::new(endpoint, rollouts, cwd);
    config.epoch = env.lab.as_ref().map(|_| lab::epoch());
    config.seed = env.seed;
    config.defects = defects;
    if env.needs.contains(&Capability::ServerHistory) {
        config.history = HistoryMode::Server;
    }
    if let Some(model) = &env.model {
        config.model.clone_from(model);
    }
    Ok(config)
}

/// What the agent works with. Writes to its rollouts are seen as they return.
pub(crate) fn parts(
    env: &CaseEnv,
    config: &Config,
    probe: Arc<dyn Probe>,
) -> Result<Services, AgentError> {
    let mut parts = match &env.lab {
        Some(lab) => lab.parts(config.endpoint.clone()),
        None => Services::real(config).map_err(not_started)?,
    };
    parts.store = Arc::new(LoggedStore::new(
        parts.store,
        env.tracer.clone(),
        env.points.clone(),
    ));
    parts.probe = Some(probe);
    Ok(parts)
}

pub(super) fn not_started(error: impl std::error::Error) -> AgentError {
    AgentError::Start(error.to_string())
}
