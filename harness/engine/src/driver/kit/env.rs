//! The environment of an agent's process, and the processes that work for it.

use std::path::{Path, PathBuf};

use cutpoint_trace::Process;
use tokio::process::Command;

use crate::driver::{AgentError, CaseEnv};
use crate::process::{self, ProcessOwner, RUN_VARIABLE};

/// No program listens on the discard port of loopback, so a request that is proxied there is refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The directory in which the agent works in a case. It is made if it does not exist.
pub(crate) fn work_dir(env: &CaseEnv) -> Result<PathBuf, AgentError> {
    make(env.dir.join("work"))
}

/// The directory for an agent's rollouts of a case. It is made if it does not exist.
pub(crate) fn rollout_dir(env: &CaseEnv) -> Result<PathBuf, AgentError> {
    make(env.dir.join("rollouts"))
}

fn make(directory: PathBuf) -> Result<PathBuf, AgentError> {
    match std::fs::create_dir_all(&directory) {
        Ok(()) => Ok(directory),
        Err(error) => Err(AgentError::Start(format!(
            "{}: {error}",
            directory.display()
        ))),
    }
}

/// Gives a command nothing of the user's environment but `PATH`: its home is `home`, and HTTP to
/// other hosts than loopback fails. `mark` tells the processes of the run from others.
pub(crate) fn isolate(command: &mut Command, home: &Path, mark: &str) {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env(RUN_VARIABLE, mark)
        .envs([
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("HTTP_PROXY", NOWHERE),
            ("HTTPS_PROXY", NOWHERE),
            ("ALL_PROXY", NOWHERE),
            ("NO_PROXY", "127.0.0.1,localhost"),
        ]);
}

/// The processes that work for a case, without the agent's own.
pub(crate) fn tool_processes(env: &CaseEnv, agent: Option<u32>) -> Vec<Process> {
    if let Some(lab) = &env.lab {
        return lab.tools.processes();
    }
    let mut found = process::find(&ProcessOwner::Case(env.dir.clone()));
    found.retain(|process| Some(process.pid) != agent);
    found
}
