//! Failures as scenario files. Each is stored as soon as it is found, for a search may be ended at any
//! moment: as it was run at first, then as small as it became.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cutpoint_explore::{Broken, Finding, News, class_of, fingerprint};
use cutpoint_scenario::ast::Scenario;

use super::rules;
use crate::{Failure, files};

/// What a search stores while it goes on.
pub(super) struct Found<'a> {
    directory: &'a Path,
    /// Where each run that fails is stored as it was run, if asked for.
    every: Option<PathBuf>,
    written: Mutex<Written>,
}

/// The files that the search itself has written: these may go again.
#[derive(Default)]
struct Written {
    /// What each worker makes smaller just now.
    rough: HashMap<usize, PathBuf>,
    /// What was made smaller.
    small: Vec<PathBuf>,
    /// In what ways rules were broken: what several workers find is stored once.
    classes: Vec<Vec<Broken>>,
    /// Why the first run could not be stored of those that were to be stored as they were run.
    unstored: Option<Failure>,
}

impl<'a> Found<'a> {
    pub(super) fn new(directory: &'a Path, every: bool) -> Self {
        Self {
            directory,
            every: every.then(|| directory.join("every")),
            written: Mutex::default(),
        }
    }

    /// Stores what a search tells of. What can't be stored is told when the search is over and
    /// everything is stored once more.
    pub(super) fn take(&self, news: News<'_>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Ran(..) => {}
            News::Failed(scenario, broken) => {
                if let Some(every) = &self.every
                    && let Err(failure) = store(every, scenario, broken)
                {
                    written.unstored.get_or_insert(failure);
                }
            }
            News::Shrinks(worker, scenario, broken) => {
                if let Ok((_, file, true)) = store(self.directory, scenario, broken) {
                    written.rough.insert(worker, file);
                }
            }
            News::Shrunk(worker, finding) => {
                let rough = written.rough.remove(&worker);
                let small = finding.and_then(|finding| written.store(self.directory, finding));
                if let Some(rough) = rough.filter(|rough| small.as_ref() != Some(rough)) {
                    remove(&rough);
                }
            }
        }
    }

    /// Takes away what was written while the search went on and is not part of its result. Tells if a
    /// run could not be stored that was to be.
    pub(super) fn keep(self, result: &[PathBuf]) -> Result<(), Failure> {
        let written = self.written.into_inner();
        let written = written.unwrap_or_else(PoisonError::into_inner);
        let further = written.small.iter().filter(|file| !result.contains(file));
        further.for_each(|file| remove(file));
        written.unstored.map_or(Ok(()), Err)
    }
}

impl Written {
    /// Stores what a failure has become, unless that was found already. Gives its file.
    fn store(&mut self, directory: &Path, finding: &Finding) -> Option<PathBuf> {
        let class = class_of(finding.broken.clone());
        if self.classes.contains(&class) {
            return None;
        }
        let (_, file, _) = store(directory, &finding.scenario, &finding.broken).ok()?;
        self.classes.push(class);
        self.small.push(file.clone());
        Some(file)
    }
}

/// A file that stays nevertheless does no harm: it is run first the next time.
fn remove(file: &Path) {
    let _ = std::fs::remove_file(file);
}

/// Stores a failing scenario in the first file of its name, or of that name with a number, that is free
/// or says the same already: what somebody has edited stays. Gives what is stored, the file, and whether
/// that is new.
pub(super) fn store(
    directory: &Path,
    failing: &Scenario,
    broken: &[Broken],
) -> Result<(Scenario, PathBuf, bool), Failure> {
    let mut scenario = failing.clone();
    let rules = rules(broken);
    scenario.name = format!("found by fuzzing, breaks {}", rules.join(" and "));
    scenario.about = (broken.first()).map(|broken| without_ids(&broken.message));
    // The name is the same for the same finding, on any machine.
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

/// What happened, in a sentence: an id that an agent has made up says nothing to whoever reads the file.
fn without_ids(message: &str) -> String {
    let is_id = |word: &&str| word.len() >= 36 && word.split('-').count() == 5;
    let words = message.split(' ').filter(|word| !is_id(word));
    words.collect::<Vec<_>>().join(" ")
}
