//! Codex CLI, driven through its app-server (protocol v2).
//!
//! One process serves many cases, each a thread of its own; a scenario that ends the process gets
//! one for itself. Codex's home is a fresh temporary directory, and whatever speaks HTTP to another
//! host than loopback is sent to a closed port.

mod events;
mod router;
mod server;
mod session;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Mutex as AsyncMutex;

use self::server::Server;
use self::session::{CodexSession, Origin};
use super::{AgentError, CaseEnv, Driver, Session};
use crate::process::RUN_VARIABLE;

/// How many cases a process serves before another one takes its place: the app-server keeps about 2 MiB
/// of each thread that it has served, and gets slower with them.
const CASES_PER_PROCESS: usize = 300;
/// How much of what `--version` prints is read.
const VERSION_LIMIT_BYTES: u64 = 4096;
/// The first version whose commands outlive their turn on purpose (the `exec_command` tool); its marker
/// tells the model so.
const EXEC_COMMAND: (u64, u64) = (0, 98);
/// The first version whose threads can be compacted; forks came before.
const THREAD_COMPACT: (u64, u64) = (0, 98);
/// The first version with `review/start`.
const REVIEW: (u64, u64) = (0, 75);
/// The version that is known to offer models that it knows by name the tool `exec`.
const CODE_MODE: (u64, u64) = (0, 169);
/// The version from which on requests were seen to carry the server's `x-codex-turn-state`.
const TURN_STATE: (u64, u64) = (0, 169);

/// How Codex is started.
#[derive(Debug, Clone)]
pub struct CodexConfig {
    /// What is put into the environment of all that is started.
    pub mark: String,
    /// How long it may take to get ready.
    pub start_limit: Duration,
    /// Where its temporary homes are made.
    pub homes: PathBuf,
}

/// The driver.
pub struct CodexDriver {
    binary: PathBuf,
    version: String,
    config: CodexConfig,
    shared: AsyncMutex<Shared>,
}

/// The process that serves all cases that don't need one of their own.
#[derive(Default)]
enum Shared {
    #[default]
    None,
    Running(Arc<Server>),
    /// It could not be started, so it is not tried again: each try may take the whole limit.
    Failed(AgentError),
}

impl CodexDriver {
    /// A driver for that binary.
    ///
    /// # Errors
    /// If the binary does not tell its version.
    pub async fn new(binary: &Path, config: CodexConfig) -> Result<Self, AgentError> {
        let version = version_of(binary, &config).await?;
        Ok(Self {
            binary: binary.to_owned(),
            version,
            config,
            shared: AsyncMutex::default(),
        })
    }

    async fn server(&self, private: bool) -> Result<Arc<Server>, AgentError> {
        if private {
            return self.new_server().await;
        }
        let mut shared = self.shared.lock().await;
        match &*shared {
            Shared::Running(server) if server.router.is_closed() => {}
            Shared::Running(server) if server.enter(CASES_PER_PROCESS) => {
                return Ok(server.clone());
            }
            Shared::Running(server) => server.retire().await,
            Shared::Failed(error) => return Err(error.clone()),
            Shared::None => {}
        }
        let started = self.new_server().await;
        *shared = match &started {
            Ok(server) => {
                server.enter(CASES_PER_PROCESS);
                Shared::Running(server.clone())
            }
            Err(error) => Shared::Failed(error.clone()),
        };
        started
    }

    async fn new_server(&self) -> Result<Arc<Server>, AgentError> {
        let home = tempfile::Builder::new()
            .prefix("cutpoint-codex-")
            .tempdir_in(&self.config.homes);
        let home =
            home.map_err(|error| AgentError::Start(format!("no temporary directory: {error}")))?;
        Server::start(&self.binary, &self.config, Arc::new(home)).await
    }
}

fn at_least(version: &str, wanted: (u64, u64)) -> bool {
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

async fn version_of(binary: &Path, config: &CodexConfig) -> Result<String, AgentError> {
    let failed = |why: String| AgentError::Start(format!("{}: {why}", binary.display()));
    let mut command = Command::new(binary);
    command
        .arg("--version")
        .env(RUN_VARIABLE, &config.mark)
        .stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let asked = async {
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(VERSION_LIMIT_BYTES)
                .read_to_end(&mut printed)
                .await?;
        }
        std::io::Result::Ok((child.wait().await?, printed))
    };
    let (status, printed) = tokio::time::timeout(config.start_limit, asked)
        .await
        .map_err(|_| {
            let seconds = config.start_limit.as_secs_f64();
            failed(format!("`--version` did not end within {seconds} s"))
        })?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("`--version` failed ({status})")));
    }
    let text = String::from_utf8_lossy(&printed);
    let word = text
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last());
    match word {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => Ok(word.to_owned()),
        _ => Err(failed(
            "`--version` told no version; is this Codex?".to_owned(),
        )),
    }
}

#[async_trait]
impl Driver for CodexDriver {
    fn info(&self, _needs: &BTreeSet<Capability>) -> AgentInfo {
        let mut features = BTreeSet::from([
            Feature::Rollout,
            Feature::RolloutTurns,
            Feature::Marker,
            Feature::TurnIds,
            Feature::OpReplies,
            Feature::CallEvents,
        ]);
        if at_least(&self.version, EXEC_COMMAND) {
            features.insert(Feature::BackgroundTools);
        }
        if at_least(&self.version, TURN_STATE) {
            features.insert(Feature::TurnHeaders);
        }
        AgentInfo {
            name: "codex".to_owned(),
            version: self.version.clone(),
            driver: "app-server-v2".to_owned(),
            features,
            defects: Vec::new(),
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let mut capabilities = BTreeSet::from([
            Capability::Shell,
            Capability::CustomTools,
            Capability::Steer,
            Capability::Resume,
            Capability::Approvals,
        ]);
        if at_least(&self.version, THREAD_COMPACT) {
            capabilities.extend([Capability::Compact, Capability::Fork]);
        }
        if at_least(&self.version, REVIEW) {
            capabilities.insert(Capability::Review);
        }
        if at_least(&self.version, CODE_MODE) {
            capabilities.insert(Capability::CodeMode);
        }
        capabilities
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        let server = self.server(env.private).await?;
        let mut session = CodexSession {
            binary: self.binary.clone(),
            config: self.config.clone(),
            server,
            thread: None,
            env,
        };
        let opened = session.open_thread(Origin::New).await;
        match opened {
            Err(_) if session.env.private => session.server.end().await,
            Err(_) => session.server.leave().await,
            Ok(()) => {}
        }
        opened.map(|()| Box::new(session) as Box<dyn Session>)
    }

    async fn close(&self) {
        if let Shared::Running(server) = std::mem::take(&mut *self.shared.lock().await) {
            server.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let seen = |version| {
            (
                at_least(version, EXEC_COMMAND),
                at_least(version, TURN_STATE),
            )
        };
        assert_eq!(seen("0.23.0"), (false, false));
        assert_eq!(seen("0.104.0-alpha.1"), (true, false));
        assert_eq!(seen("0.169.0"), (true, true));
        assert_eq!(seen("1.0.0"), (true, true));
    }
}
