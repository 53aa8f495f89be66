//! What a driver declares about its agent, and how `--agent` names one.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_agent::Defect;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::Feature;

use super::agents::AGENTS;
use super::{AgentError, Driver};

/// The first version of an agent that offers something, by its first two numbers.
pub type Since = (u64, u64);

/// Every version.
pub const ANY: Since = (0, 0);

/// What an agent offers, each with the first version that does.
pub type Offer<T> = Vec<(T, Since)>;

/// An agent that cutpoint can drive: a line in the table of agents.
#[async_trait]
pub trait AgentKind: Send + Sync {
    /// What is known of it without starting it.
    fn declaration(&self) -> &'static Declaration;

    /// What scenarios may need of it.
    fn capabilities(&self) -> Offer<Capability>;

    /// What can be observed of it.
    fn features(&self) -> Offer<Feature>;

    /// How it can be named here: its installed versions, newest first, or the plain name if it is part
    /// of cutpoint.
    fn found(&self) -> Vec<Choice> {
        vec![Choice::Plain]
    }

    /// The arguments with which a program of that file name sends its requests to `base_url`, if it is
    /// this agent. `has_key` says that it finds a key in its environment.
    fn recording_arguments(
        &self,
        _program: &str,
        _base_url: &str,
        _has_key: bool,
    ) -> Option<Vec<String>> {
        None
    }

    /// Makes a driver for the agent.
    async fn driver(
        &self,
        choice: &Choice,
        context: &LaunchContext,
    ) -> Result<Arc<dyn Driver>, AgentError>;
}

/// What is known of an agent without starting it.
#[derive(Debug)]
pub struct Declaration {
    /// How `--agent` names it.
    pub name: &'static str,
    /// What may stand after the name.
    pub forms: &'static [Form],
    /// The driver's name, as traces show it.
    pub driver: &'static str,
    /// Planted defects can be switched on in it.
    pub takes_defects: bool,
    /// The tools with which its model runs commands.
    pub shell_tools: &'static [&'static str],
    /// What it writes where a turn was aborted.
    pub marker: MarkerForm,
    /// How it writes its rollouts.
    pub rollout: &'static str,
    /// What to do if it is not found.
    pub how_to_get: &'static str,
}

/// One way to name an agent on the command line.
#[derive(Debug)]
pub struct Form {
    /// What stands after the name: nothing, `@VERSION` or `:PROGRAM`.
    pub suffix: &'static str,
    /// What this means, as a clause.
    pub help: &'static str,
}

/// How an agent's marker of an aborted turn stands in the history.
#[derive(Debug)]
pub struct MarkerForm {
    /// The roles of the message that holds it.
    pub roles: &'static [&'static str],
}

impl fmt::Display for MarkerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = cutpoint_protocol::marker::OPEN;
        write!(f, "`{tag}` ({})", self.roles.join(" or "))
    }
}

/// What stands after an agent's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    Plain,
    /// `@VERSION`
    Version(String),
    /// `:PROGRAM`
    Program(PathBuf),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Version(version) => write!(f, "@{version}"),
            Self::Program(program) => write!(f, ":{}", program.display()),
        }
    }
}

/// What an agent is started with, whichever it is.
#[derive(Debug, Clone)]
pub struct LaunchContext {
    /// What is put into the environment of all that is started.
    pub mark: String,
    /// The upper bound of each step of the agent's start.
    pub start_limit: Duration,
    /// A directory for what the agent needs besides its cases' directories.
    pub dir: PathBuf,
    /// The program `cutpoint`, which has the reference agent as a command.
    pub cutpoint: PathBuf,
    /// Planted defects to switch on.
    pub defects: Vec<Defect>,
}

/// An agent as the user names it: `reference`, `codex@0.169.0`.
#[derive(Clone)]
pub struct AgentSpec {
    kind: &'static dyn AgentKind,
    choice: Choice,
}

impl AgentSpec {
    /// An agent of that kind.
    pub fn new(kind: &'static dyn AgentKind, choice: Choice) -> Self {
        Self { kind, choice }
    }

    /// What is known of it without starting it.
    pub fn declaration(&self) -> &'static Declaration {
        self.kind.declaration()
    }

    /// Makes its driver.
    ///
    /// # Errors
    /// If it is not there, or is not such an agent.
    pub async fn driver(&self, context: &LaunchContext) -> Result<Arc<dyn Driver>, AgentError> {
        self.kind.driver(&self.choice, context).await
    }
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self::new(AGENTS[0], Choice::Plain)
    }
}

impl PartialEq for AgentSpec {
    fn eq(&self, other: &Self) -> bool {
        self.declaration().name == other.declaration().name && self.choice == other.choice
    }
}

impl Eq for AgentSpec {}

impl fmt::Display for AgentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.declaration().name, self.choice)
    }
}

impl fmt::Debug for AgentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentSpec({self})")
    }
}

/// Why a text names no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentSpecError {
    /// There is no such agent, or it takes nothing like that after its name.
    #[error("no agent `{text}`; there are {}", known().join(", "))]
    Unknown {
        /// The text.
        text: String,
    },
    /// Nothing stands after `@` or `:`.
    #[error("`{text}` is cut short; there are {}", known().join(", "))]
    CutShort {
        /// The text.
        text: String,
    },
}

/// The ways to name agents: `reference`, `stdio:PROGRAM` and so on.
pub fn known() -> Vec<String> {
    let forms = |kind: &&dyn AgentKind| {
        let declaration = kind.declaration();
        let name = |form: &Form| format!("{}{}", declaration.name, form.suffix);
        declaration.forms.iter().map(name).collect::<Vec<_>>()
    };
    AGENTS.iter().flat_map(forms).collect()
}

impl FromStr for AgentSpec {
    type Err = AgentSpecError;

    fn from_str(text: &str) -> Result<Self, AgentSpecError> {
        let (name, suffix) = text.split_at(text.find([':', '@']).unwrap_or(text.len()));
        let kind = AGENTS
            .iter()
            .find(|kind| kind.declaration().name == name)
            .filter(|kind| {
                // The same first character, or both are empty.
                let mut forms = kind.declaration().forms.iter();
                forms.any(|form| form.suffix.chars().next() == suffix.chars().next())
            });
        let text = text.to_owned();
        let Some(kind) = kind else {
            return Err(AgentSpecError::Unknown { text });
        };
        let choice = match suffix.split_at_checked(1) {
            None => Choice::Plain,
            Some((_, "")) => return Err(AgentSpecError::CutShort { text }),
            Some(("@", version)) => Choice::Version(version.to_owned()),
            Some((_, program)) => Choice::Program(PathBuf::from(program)),
        };
        Ok(Self::new(*kind, choice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_printed_as_they_are_written() {
        for text in [
            "reference",
            "reference-stdio",
            "reference-jsonrpc",
            "stdio:a b",
            "codex",
            "codex@0.169.0",
            "codex:/x/y@2:3",
        ] {
            assert_eq!(text.parse::<AgentSpec>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "codx",
            "codex@",
            "codex:",
            "stdio",
            "stdio@x",
            "reference:x",
        ] {
            assert!(text.parse::<AgentSpec>().is_err(), "{text}");
        }
        assert_eq!(AgentSpec::default().to_string(), "reference");
    }

    #[test]
    fn every_agent_can_be_named_in_each_of_its_forms() {
        for kind in AGENTS {
            let declaration = kind.declaration();
            assert!(!declaration.forms.is_empty(), "{}", declaration.name);
            for form in declaration.forms {
                let text = format!("{}{}", declaration.name, form.suffix);
                assert_eq!(text.parse::<AgentSpec>().unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn an_unknown_agent_is_answered_with_those_there_are() {
        let error = "codx".parse::<AgentSpec>().unwrap_err().to_string();
        assert!(
            error.starts_with("no agent `codx`; there are reference, "),
            "{error}"
        );
        assert!(error.contains("codex@VERSION"), "{error}");
    }
}
