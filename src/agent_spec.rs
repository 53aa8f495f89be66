//! Which agent the user means.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use cutpoint_agent::Defect;
use cutpoint_engine::driver::Driver;
use cutpoint_engine::driver::codex::{CodexConfig, CodexDriver};
use cutpoint_engine::driver::front::FrontDriver;
use cutpoint_engine::driver::reference::ReferenceDriver;
use cutpoint_engine::driver::stdio::{StdioCommand, StdioDriver};

use crate::Failure;

/// The folder into which agents are installed, and the variable that names another one.
const FOLDER: &str = ".agents";
const FOLDER_VARIABLE: &str = "CUTPOINT_AGENTS";

/// An agent as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSpec {
    /// `reference`
    Reference,
    /// `reference-stdio`
    ReferenceStdio,
    /// `reference-jsonrpc`
    ReferenceJsonRpc,
    /// `stdio:PROGRAM`
    Stdio(PathBuf),
    /// `codex`, `codex@VERSION`
    Codex(Option<String>),
    /// `codex:PATH`
    CodexBinary(PathBuf),
}

impl FromStr for AgentSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spec = match text.split_once([':', '@']) {
            None => match text {
                "reference" => Self::Reference,
                "reference-stdio" => Self::ReferenceStdio,
                "reference-jsonrpc" => Self::ReferenceJsonRpc,
                "codex" => Self::Codex(None),
                _ => return Err(unknown(text)),
            },
            Some((_, "")) => return Err(format!("something is missing behind `{text}`")),
            Some(("codex", rest)) if text.starts_with("codex@") => {
                Self::Codex(Some(rest.to_owned()))
            }
            Some(("codex", rest)) => Self::CodexBinary(PathBuf::from(rest)),
            Some(("stdio", rest)) if text.starts_with("stdio:") => Self::Stdio(PathBuf::from(rest)),
            Some(_) => return Err(unknown(text)),
        };
        Ok(spec)
    }
}

fn unknown(text: &str) -> String {
    format!(
        "no agent `{text}`; there are reference, reference-stdio, reference-jsonrpc, stdio:PROGRAM, codex, codex@VERSION, codex:PATH"
    )
}

impl std::fmt::Display for AgentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reference => f.write_str("reference"),
            Self::ReferenceStdio => f.write_str("reference-stdio"),
            Self::ReferenceJsonRpc => f.write_str("reference-jsonrpc"),
            Self::Stdio(path) => write!(f, "stdio:{}", path.display()),
            Self::Codex(None) => f.write_str("codex"),
            Self::Codex(Some(version)) => write!(f, "codex@{version}"),
            Self::CodexBinary(path) => write!(f, "codex:{}", path.display()),
        }
    }
}

impl AgentSpec {
    /// Whether planted defects can be switched on in it.
    pub fn takes_defects(&self) -> bool {
        matches!(
            self,
            Self::Reference | Self::ReferenceStdio | Self::ReferenceJsonRpc
        )
    }

    /// Makes the driver.
    pub async fn driver(
        &self,
        defects: &[Defect],
        config: &CodexConfig,
    ) -> Result<Arc<dyn Driver>, Failure> {
        let names: Vec<String> = defects
            .iter()
            .map(|defect| defect.name().to_owned())
            .collect();
        let front = |program| {
            let driver = FrontDriver::new(
                agent_of(program, &["--jsonrpc"]),
                names.clone(),
                &config.mark,
            );
            driver.start_limit(config.start_limit)
        };
        let stdio = |command, name| {
            let driver = StdioDriver::new(command, name, names.clone(), &config.mark);
            driver.start_limit(config.start_limit)
        };
        Ok(match self {
            Self::Reference => Arc::new(ReferenceDriver::new(defects.to_vec())),
            Self::ReferenceStdio => {
                let program = this_program()?;
                let driver = stdio(agent_of(program.clone(), &[]), "reference");
                Arc::new(driver.front(front(program)))
            }
            Self::ReferenceJsonRpc => Arc::new(front(this_program()?)),
            Self::Stdio(path) => {
                let command = StdioCommand {
                    program: existing(path)?,
                    arguments: Vec::new(),
                };
                Arc::new(stdio(command, "stdio"))
            }
            Self::Codex(version) => codex(&find_codex(version.as_deref())?, config).await?,
            Self::CodexBinary(path) => codex(&existing(path)?, config).await?,
        })
    }
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::trouble(format!("where is this program? {error}")))
}

/// `cutpoint agent`, with options.
fn agent_of(program: PathBuf, options: &[&str]) -> StdioCommand {
    let words = std::iter::once("agent").chain(options.iter().copied());
    StdioCommand {
        program,
        arguments: words.map(str::to_owned).collect(),
    }
}

async fn codex(binary: &Path, config: &CodexConfig) -> Result<Arc<dyn Driver>, Failure> {
    let driver = CodexDriver::new(binary, config.clone()).await;
    driver
        .map(|driver| Arc::new(driver) as Arc<dyn Driver>)
        .map_err(|error| Failure::agent(error.to_string()))
}

fn existing(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path)
        .map_err(|error| Failure::agent(format!("{}: {error}", path.display())))
}

fn find_codex(version: Option<&str>) -> Result<PathBuf, Failure> {
    let mut installed = installed_codex();
    let found = match version {
        Some(version) => installed.into_iter().find(|(found, _)| found == version),
        None => installed.pop(),
    };
    found.map(|(_, path)| path).ok_or_else(|| {
        let name = version.map_or_else(|| "codex".to_owned(), |version| format!("codex {version}"));
        let wanted = version.unwrap_or("0.169.0");
        Failure::agent(format!(
            "{name} is not installed; run `scripts/install-codex {wanted}`"
        ))
    })
}

/// The Codex versions that `scripts/install-codex` has installed, oldest first.
pub fn installed_codex() -> Vec<(String, PathBuf)> {
    let Some(folder) = agents_folder() else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry
                .file_name()
                .to_str()?
                .strip_prefix("codex-")?
                .to_owned();
            let binary = std::fs::canonicalize(entry.path().join("codex")).ok()?;
            Some((version, binary))
        })
        .collect();
    found.sort_by_key(|(version, _)| numbers(version));
    found
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

/// The folder of installed agents: where the variable says, or in this directory or one above it.
fn agents_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Some(PathBuf::from(folder));
    }
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|above| above.join(FOLDER))
        .find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
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
        for text in ["", "codx", "codex@", "codex:", "stdio@x", "reference:x"] {
            assert!(text.parse::<AgentSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(numbers("0.99.1") < numbers("0.169.0"));
    }
}
