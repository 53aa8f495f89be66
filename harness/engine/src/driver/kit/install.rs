//! Agents that were installed by version, side by side in one folder.

use std::fs;
use std::path::PathBuf;

/// The folder into which agents are installed, and the variable that names another one.
const FOLDER: &str = ".agents";
const FOLDER_VARIABLE: &str = "CUTPOINT_AGENTS";

/// An installed version of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The version, as the folder names it.
    pub version: String,
    /// The program.
    pub program: PathBuf,
}

/// The installed versions of an agent, newest first: those at `NAME-VERSION/NAME` in the folder.
pub(crate) fn installed(name: &str) -> Vec<Installation> {
    let entries = folder().and_then(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<Installation> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let file_name = entry.file_name();
            let version = file_name.to_str()?.strip_prefix(name)?.strip_prefix('-')?;
            Some(Installation {
                version: version.to_owned(),
                program: fs::canonicalize(entry.path().join(name)).ok()?,
            })
        })
        .collect();
    found.sort_by_cached_key(|found| std::cmp::Reverse(order(&found.version)));
    found
}

/// The folder of installed agents: the one the variable names, or `.agents` in this directory or one
/// above it.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Some(PathBuf::from(folder));
    }
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|above| above.join(FOLDER))
        .find(|folder| folder.is_dir())
}

/// What versions are ordered by: their numbers, a pre-release before its release.
fn order(version: &str) -> (Vec<u64>, bool, Vec<u64>) {
    let numbers = |text: &str| {
        text.split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    match version.split_once('-') {
        Some((release, pre)) => (numbers(release), false, numbers(pre)),
        None => (numbers(version), true, Vec::new()),
    }
}

/// The first two numbers of a version, by which features are chosen.
pub(crate) fn major_minor(version: &str) -> (u64, u64) {
    let (numbers, ..) = order(version);
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    (number(0), number(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let mut versions = [
            "0.169.0",
            "0.8.0",
            "0.170.0-alpha.2",
            "0.170.0",
            "0.170.0-alpha.10",
        ];
        versions.sort_by_cached_key(|version| order(version));
        assert_eq!(
            versions,
            [
                "0.8.0",
                "0.169.0",
                "0.170.0-alpha.2",
                "0.170.0-alpha.10",
                "0.170.0"
            ]
        );
        assert_eq!(major_minor("0.104.0-alpha.1"), (0, 104));
        assert_eq!(major_minor("odd"), (0, 0));
    }
}
