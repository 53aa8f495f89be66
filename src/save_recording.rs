//! What `record` and `import` leave behind: a recording, and the scenario that plays it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cutpoint_recording::Recording;

use crate::Failure;
use crate::files::{self, Draft};

/// Stores both. Whatever may fail for the scenario is done before the recording is in its place, so
/// that one without the other is not left.
pub fn save(
    recording: &Recording,
    folder: &Path,
    text: &str,
    scenario: &Path,
) -> Result<(), Failure> {
    let draft = |scenario: &Path| {
        if let Some(above) = scenario.parent().filter(|above| *above != Path::new("")) {
            fs::create_dir_all(above)?;
        }
        let mut draft = Draft::create(scenario)?;
        draft.write_all(text.as_bytes())?;
        Ok::<_, io::Error>(draft)
    };
    let draft = draft(scenario).map_err(|error| files::failure(scenario, &error))?;
    recording
        .save(folder)
        .map_err(|error| files::failure(folder, &error))?;
    draft
        .keep()
        .map_err(|error| files::failure(scenario, &error))
}

/// How a scenario names its recording: by name where that stands in `recordings`, else by the path that
/// leads from the scenario's folder to it, so that the two can be moved together.
pub fn name_in_scenario(scenario: &Path, folder: &Path, name: &str) -> Result<String, Failure> {
    if folder == Path::new("recordings").join(name) {
        return Ok(name.to_owned());
    }
    let resolve = |path: &Path| resolved(path).map_err(|error| files::failure(path, &error));
    let (scenario, folder) = (resolve(scenario)?, resolve(folder)?);
    let from: Vec<_> = scenario
        .parent()
        .unwrap_or(Path::new("/"))
        .components()
        .collect();
    let to: Vec<_> = folder.components().collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    // Two places that share the root alone are not moved together.
    if shared < 2 {
        return Ok(folder.display().to_string());
    }
    let up = from[shared..].iter().map(|_| Path::new(".."));
    let down = to[shared..].iter().map(AsRef::as_ref);
    Ok(up.chain(down).collect::<PathBuf>().display().to_string())
}

/// The whole path, without links as far as it exists.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    let found = whole.ancestors().find(|above| above.exists());
    let found = found.unwrap_or(Path::new("/"));
    let rest = whole.strip_prefix(found).unwrap_or(Path::new(""));
    Ok(found.canonicalize()?.join(rest))
}
