//! A program that is started once per session, in the way `cutpoint agent` is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutpoint_scenario::ast::Capability;
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::env::{rollout_dir, work_dir};
use super::process::AgentProcess;
use crate::driver::agent_kind::LaunchContext;
use crate::driver::{AgentError, CaseEnv};
use crate::process::{MODEL_VARIABLE, RUN_VARIABLE};

/// How a program is started for a session.
#[derive(Debug, Clone)]
pub(crate) struct SessionProgram {
    program: PathBuf,
    /// Words before the options that every such program takes.
    arguments: Vec<String>,
    mark: String,
    /// How long it may take until it is ready.
    pub(crate) start_limit: Duration,
}

impl SessionProgram {
    /// A program of the user's.
    ///
    /// # Errors
    /// If it does not exist.
    pub(crate) fn of_user(path: &Path, context: &LaunchContext) -> Result<Self, AgentError> {
        Ok(Self::new(existing(path)?, Vec::new(), context))
    }

    /// The reference agent as a command of cutpoint, with further options.
    pub(crate) fn reference(options: &[&str], context: &LaunchContext) -> Self {
        let mut arguments = vec!["agent".to_owned()];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        for defect in &context.defects {
            arguments.extend(["--defect".to_owned(), defect.name().to_owned()]);
        }
        Self::new(context.cutpoint.clone(), arguments, context)
    }

    fn new(program: PathBuf, arguments: Vec<String>, context: &LaunchContext) -> Self {
        Self {
            program,
            arguments,
            mark: context.mark.clone(),
            start_limit: context.start_limit,
        }
    }

    /// Starts it for a case, with further options.
    pub(crate) fn spawn(
        &self,
        env: &CaseEnv,
        options: &[&OsStr],
    ) -> Result<(Arc<AgentProcess>, ChildStdin, ChildStdout), AgentError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(["--base-url", &env.base_url, "--seed", &env.seed.to_string()])
            .arg("--rollout-dir")
            .arg(rollout_dir(env)?);
        if env.needs.contains(&Capability::ServerHistory) {
            command.arg("--server-history");
        }
        // Not an option, so that a program that has no use for it need not know it.
        match &env.model {
            Some(model) => command.env(MODEL_VARIABLE, model),
            None => command.env_remove(MODEL_VARIABLE),
        };
        command
            .args(options)
            .env(RUN_VARIABLE, &self.mark)
            .current_dir(work_dir(env)?);
        AgentProcess::spawn(&mut command)
            .map_err(|error| AgentError::Start(format!("{}: {error}", self.program.display())))
    }
}

/// The program at that path, as an absolute path.
///
/// # Errors
/// If there is none.
pub(crate) fn existing(path: &Path) -> Result<PathBuf, AgentError> {
    std::fs::canonicalize(path)
        .map_err(|error| AgentError::NotInstalled(format!("{}: {error}", path.display())))
}
