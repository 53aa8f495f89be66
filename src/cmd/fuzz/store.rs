//! Stores failures as scenario files. Each is stored as soon as it is found, since a search may be ended
//! at any moment: first as it was run, then as small as it became.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cutpoint_explore::{FailureKey, Finding, FuzzEvent, Violation, fingerprint};
use cutpoint_scenario::ast::Scenario;

use super::rules;
use crate::{Failure, files};

/// The directory into which a search stores its failures.
pub(super) struct FailureStore<'a> {
    directory: &'a Path,
    /// Where each run that fails is stored as it was run, if the user asked for it.
    every: Option<PathBuf>,
    files: Mutex<SearchFiles>,
}

/// The files that this search has written, which it may remove again.
#[derive(Default)]
struct SearchFiles {
    /// The failure that each worker is shrinking.
    unshrunk: HashMap<usize, PathBuf>,
    /// The failures that were shrunk.
    shrunk: Vec<PathBuf>,
    /// Their keys: a failure that several workers find is stored once.
    keys: Vec<FailureKey>,
    /// Why the first of the runs that were to be stored as they were run could not be.
    error: Option<Failure>,
}

impl<'a> FailureStore<'a> {
    pub(super) fn new(directory: &'a Path, every: bool) -> Self {
        Self {
            directory,
            every: every.then(|| directory.join("every")),
            files: Mutex::default(),
        }
    }

    /// Stores the failure of an event. One that can't be stored is reported at the end of the search, when
    /// every finding is stored once more.
    pub(super) fn take(&self, event: FuzzEvent<'_>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FuzzEvent::Ran { .. } => {}
            FuzzEvent::Failed {
                scenario,
                violations,
            } => {
                if let Some(every) = &self.every
                    && let Err(error) = store(every, scenario, violations)
                {
                    files.error.get_or_insert(error);
                }
            }
            FuzzEvent::Shrinking {
                worker,
                scenario,
                violations,
            } => {
                if let Ok((_, file, true)) = store(self.directory, scenario, violations) {
                    files.unshrunk.insert(worker, file);
                }
            }
            FuzzEvent::Shrunk { worker, finding } => {
                let unshrunk = files.unshrunk.remove(&worker);
                let shrunk = finding.and_then(|finding| files.store(self.directory, finding));
                if let Some(unshrunk) = unshrunk.filter(|file| shrunk.as_ref() != Some(file)) {
                    remove(&unshrunk);
                }
            }
        }
    }

    /// Removes the files that were written during the search and are not among its results. Fails if a run
    /// that was to be stored could not be.
    pub(super) fn keep(self, result: &[PathBuf]) -> Result<(), Failure> {
        let files = self.files.into_inner();
        let files = files.unwrap_or_else(PoisonError::into_inner);
        let further = files.shrunk.iter().filter(|file| !result.contains(file));
        further.for_each(|file| remove(file));
        files.error.map_or(Ok(()), Err)
    }
}

impl SearchFiles {
    /// Stores a shrunk failure, unless that was found already. Returns its file.
    fn store(&mut self, directory: &Path, finding: &Finding) -> Option<PathBuf> {
        let key = FailureKey::of(&finding.violations);
        if self.keys.contains(&key) {
            return None;
        }
        let (_, file, _) = store(directory, &finding.scenario, &finding.violations).ok()?;
        self.keys.push(key);
        self.shrunk.push(file.clone());
        Some(file)
    }
}

/// A file that cannot be removed does no harm: it is run first the next time.
fn remove(file: &Path) {
    let _ = std::fs::remove_file(file);
}

/// Stores a failing scenario in the first file of its name, or of that name with a number, that is free
/// or has the same content: a file that the user has edited stays. Returns the stored scenario, the file,
/// and whether the file is new.
pub(super) fn store(
    directory: &Path,
    failing: &Scenario,
    violations: &[Violation],
) -> Result<(Scenario, PathBuf, bool), Failure> {
    let mut scenario = failing.clone();
    let rules = rules(violations);
    scenario.name = format!("found by fuzzing, breaks {}", rules.join(" and "));
    scenario.about = (violations.first()).map(|first| without_ids(&first.message));
    // The same finding has the same name on any machine.
    let rules = rules.join("-").to_lowercase();
    let name = format!("{rules}-{:08x}", fingerprint(failing) as u32);
    let text = format!("{scenario}\n");
    let numbered = (2..).map(|number| format!("{name}-{number}.kdl"));
    let names = std::iter::once(format!("{name}.kdl")).chain(numbered);
    let free = |file: &PathBuf| match std::fs::read(file) {
        Ok(held) => held == text.as_bytes(),
        Err(_) => !file.exists(),
    };
    let file = names.map(|name| directory.join(name)).find(free);
    let file = file.unwrap_or_else(|| directory.join(name));
    let new = !file.exists();
    std::fs::create_dir_all(directory)
        .and_then(|()| files::write_atomic(&file, text.as_bytes()))
        .map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    Ok((scenario, file, new))
}

/// The message without the ids that the agent made up, which mean nothing to a reader of the file.
fn without_ids(message: &str) -> String {
    let is_id = |word: &&str| word.len() >= 36 && word.split('-').count() == 5;
    let words = message.split(' ').filter(|word| !is_id(word));
    words.collect::<Vec<_>>().join(" ")
}
