//! What the suites over scenarios share.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each suite uses its own part of this")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutpoint_engine::driver::Driver;
use cutpoint_engine::runner::{Planned, RunConfig, Runner};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_trace::case::CaseResult;
use cutpoint_trace::verdict::Verdict;

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every scenario below `scenarios/`, with its file's path from the workspace's folder.
pub fn scenarios() -> Vec<Planned> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(root().join("scenarios"))
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "kdl"))
        .collect();
    files.sort();
    assert!(
        files.len() >= 20,
        "the glob found {} scenario files",
        files.len()
    );
    files.iter().flat_map(|file| parse_file(file)).collect()
}

fn parse_file(file: &Path) -> Vec<Planned> {
    let name = file.strip_prefix(root()).unwrap().display().to_string();
    let source = std::fs::read_to_string(file).unwrap();
    parse(&name, &source)
}

/// The scenarios of a source text.
pub fn parse(name: &str, source: &str) -> Vec<Planned> {
    let parsed = cutpoint_scenario::parse(name, source).unwrap_or_else(|error| panic!("{error}"));
    let plan = |scenario| Planned {
        scenario,
        file: name.to_owned(),
    };
    parsed.scenarios.into_iter().map(plan).collect()
}

/// Runs scenarios one after the other, each on a driver of its own making.
pub struct Bench {
    runner: Runner,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A bench for that driver.
    pub async fn new(driver: Arc<dyn Driver>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ReplayServer::start(ServerConfig::default()).await.unwrap();
        let config = RunConfig {
            limit: Duration::from_secs(20),
            seed: 0,
            recordings: root().join("recordings"),
            dir: Some(dir.path().to_owned()),
            rules_only: false,
            judge: cutpoint_check::judge,
        };
        Self {
            runner: Runner::new(Arc::new(server), driver, config),
            _dir: dir,
        }
    }

    /// Runs one scenario.
    pub async fn run(&self, planned: &Planned) -> CaseResult {
        self.runner.run(planned).await
    }
}

/// A runtime as the command line has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The ids of the rules that a case breaks, of any level.
pub fn broken(case: &CaseResult) -> Vec<&str> {
    case.breaches(true)
        .map(|verdict| verdict.rule.as_str())
        .collect()
}

/// Everything that speaks against a case, in words.
pub fn complaints(case: &CaseResult) -> String {
    let mut text = format!(
        "{:?}: {}\n",
        case.status,
        case.note.as_deref().unwrap_or("no note")
    );
    for unmet in &case.unmet {
        text.push_str(&format!(
            "line {}: {}: {}\n",
            unmet.line, unmet.text, unmet.found
        ));
    }
    for verdict in case.breaches(true) {
        if let Verdict::Fail { breaches, .. } = &verdict.verdict {
            for breach in breaches {
                text.push_str(&format!(
                    "{}: {} {:?}\n",
                    verdict.rule,
                    breach.text(),
                    breach.evidence
                ));
            }
        }
    }
    for entry in &case.trace.entries {
        text.push_str(&cutpoint_report::describe_entry(entry));
        text.push('\n');
    }
    text
}
