//! Codex CLI, driven through its app-server (protocol v2).
//!
//! One process serves many cases, each a thread of its own; a scenario that ends the process gets
//! one for itself. Codex's home is a fresh temporary directory, and its HTTP requests to other hosts
//! than loopback are sent to a closed port.

mod events;
mod pool;
mod probe;
mod recording;
mod router;
mod server;
mod session;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};

use self::pool::ServerPool;
use self::server::ServerLauncher;
use self::session::{CodexSession, ThreadOrigin};
use super::agent_kind::{
    ANY, AgentKind, Choice, Declaration, Form, LaunchContext, MarkerForm, Offer, Since,
};
use super::kit::install::{self, Installation, major_minor};
use super::kit::program::existing;
use super::{AgentError, AgentSession, CaseEnv, Driver};

/// `--agent codex`
pub struct Codex;

const DECLARATION: Declaration = Declaration {
    name: "codex",
    forms: &[
        Form {
            suffix: "",
            help: "Codex as installed by `scripts/install-codex`: the newest version that can be driven",
        },
        Form {
            suffix: "@VERSION",
            help: "that version of it",
        },
        Form {
            suffix: ":PROGRAM",
            help: "a Codex binary of your own",
        },
    ],
    driver: "app-server-v2",
    takes_defects: false,
    shell_tools: &["exec_command", "shell_command", "shell", "exec"],
    marker: MarkerForm {
        roles: &["user", "developer"],
    },
    rollout: "response items, one per line",
    how_to_get: "run `scripts/install-codex 0.169.0`",
};

/// The first version whose commands outlive their turn on purpose (the `exec_command` tool); its marker
/// tells the model so.
const EXEC_COMMAND: Since = (0, 98);
/// The first version whose threads can be compacted; forks came before.
const THREAD_COMPACT: Since = (0, 98);
/// The first version with `review/start`.
const REVIEW: Since = (0, 75);
/// The version that is known to offer the tool `exec` to models that it knows by name.
const CODE_MODE: Since = (0, 169);
/// The first version whose requests were seen to carry the server's turn state.
const TURN_STATE: Since = (0, 169);

const CAPABILITIES: &[(Capability, Since)] = &[
    (Capability::Shell, ANY),
    (Capability::CustomTools, ANY),
    (Capability::Steer, ANY),
    (Capability::Resume, ANY),
    (Capability::Approvals, ANY),
    (Capability::Compact, THREAD_COMPACT),
    (Capability::Fork, THREAD_COMPACT),
    (Capability::Review, REVIEW),
    (Capability::CodeMode, CODE_MODE),
];

const FEATURES: &[(Feature, Since)] = &[
    (Feature::Rollout, ANY),
    (Feature::RolloutTurns, ANY),
    (Feature::Marker, ANY),
    (Feature::TurnIds, ANY),
    (Feature::OpReplies, ANY),
    (Feature::CallEvents, ANY),
    (Feature::BackgroundTools, EXEC_COMMAND),
    (Feature::TurnHeaders, TURN_STATE),
];

#[async_trait]
impl AgentKind for Codex {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn capabilities(&self) -> Offer<Capability> {
        CAPABILITIES.to_vec()
    }

    fn features(&self) -> Offer<Feature> {
        FEATURES.to_vec()
    }

    fn found(&self) -> Vec<Choice> {
        let installed = installed().into_iter();
        installed
            .map(|found| Choice::Version(found.version))
            .collect()
    }

    fn recording_arguments(
        &self,
        program: &str,
        base_url: &str,
        has_key: bool,
    ) -> Option<Vec<String>> {
        (program == DECLARATION.name).then(|| recording::settings(base_url, has_key))
    }

    async fn driver(
        &self,
        choice: &Choice,
        context: &LaunchContext,
    ) -> Result<Arc<dyn Driver>, AgentError> {
        let binary = match choice {
            Choice::Plain => newest(context).await?,
            Choice::Version(version) => program_of(version).ok_or_else(|| {
                AgentError::NotInstalled(format!(
                    "codex {version} is not installed; run `scripts/install-codex {version}`"
                ))
            })?,
            Choice::Program(path) => existing(path)?,
        };
        let version = probe::version_of(&binary, context).await?;
        let launcher = ServerLauncher::new(binary, context);
        Ok(Arc::new(CodexDriver {
            version,
            pool: ServerPool::new(launcher),
        }))
    }
}

/// The installed versions of Codex, newest first.
pub fn installed() -> Vec<Installation> {
    install::installed(DECLARATION.name)
}

/// The program of an installed version.
pub fn program_of(version: &str) -> Option<PathBuf> {
    let found = installed().into_iter().find(|it| it.version == version)?;
    Some(found.program)
}

/// The newest installed version that has an app-server.
///
/// # Errors
/// If there is none.
pub async fn newest(context: &LaunchContext) -> Result<PathBuf, AgentError> {
    let mut without = Vec::new();
    for found in installed() {
        if probe::has_app_server(&found.program, context).await {
            return Ok(found.program);
        }
        without.push(found.version);
    }
    let what = if without.is_empty() {
        "codex is not installed".to_owned()
    } else {
        let versions = without.join(", ");
        format!("no installed version of codex ({versions}) has an app-server to drive it by")
    };
    let how = DECLARATION.how_to_get;
    Err(AgentError::NotInstalled(format!("{what}; {how}")))
}

struct CodexDriver {
    version: String,
    pool: ServerPool,
}

/// What a version offers.
fn offered<T: Copy + Ord>(offer: &[(T, Since)], version: &str) -> BTreeSet<T> {
    let version = major_minor(version);
    let offered = offer.iter().filter(|(_, since)| *since <= version);
    offered.map(|(it, _)| *it).collect()
}

#[async_trait]
impl Driver for CodexDriver {
    fn info(&self, _needs: &BTreeSet<Capability>) -> AgentInfo {
        AgentInfo {
            name: DECLARATION.name.to_owned(),
            version: self.version.clone(),
            driver: DECLARATION.driver.to_owned(),
            features: offered(FEATURES, &self.version),
            defects: Vec::new(),
        }
    }

    fn capabilities(&self, _needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        offered(CAPABILITIES, &self.version)
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        let server = self.pool.server(env.private).await?;
        let mut session = CodexSession::new(self.pool.launcher.clone(), server, env);
        match session.open_thread(ThreadOrigin::New).await {
            Ok(()) => Ok(Box::new(session)),
            Err(error) => {
                session.leave_server().await;
                Err(error)
            }
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_offer_more() {
        let features = |version| {
            let offered = offered(FEATURES, version);
            (
                offered.contains(&Feature::BackgroundTools),
                offered.contains(&Feature::TurnHeaders),
            )
        };
        assert_eq!(features("0.23.0"), (false, false));
        assert_eq!(features("0.104.0-alpha.1"), (true, false));
        assert_eq!(features("0.169.0"), (true, true));
        assert_eq!(features("1.0.0"), (true, true));
    }
}
