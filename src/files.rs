//! Finding, reading and writing the files that the user names.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cutpoint_scenario::SOURCE_LIMIT_BYTES;
use walkdir::WalkDir;

use crate::Failure;

/// The scenario files among and below the paths, in a fixed order, each once.
pub fn scenario_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_file() {
            files.push(path.clone());
            continue;
        }
        if !path.is_dir() {
            return Err(Failure::usage(missing(path)));
        }
        for entry in WalkDir::new(path).sort_by_file_name() {
            let entry = entry.map_err(|error| Failure::usage(error.to_string()))?;
            if entry.file_type().is_file() && entry.path().extension() == Some(OsStr::new("kdl")) {
                files.push(entry.into_path());
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    if files.is_empty() {
        let names: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Failure::usage(format!(
            "there is no .kdl file in {}",
            names.join(", ")
        )));
    }
    Ok(files)
}

fn missing(path: &Path) -> String {
    let path = path.display();
    format!("there is no {path}; name scenario files or directories of them")
}

/// Reads a scenario file's bytes, no more of them than a scenario can have.
pub fn read_bounded(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to tell that it is too large.
    let limit = SOURCE_LIMIT_BYTES as u64 + 1;
    fs::File::open(file)
        .map_err(failed)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Reads a scenario file as text.
pub fn read_source(file: &Path) -> Result<String, Failure> {
    let name = file.display().to_string();
    let bytes = read_bounded(file)?;
    // What is no text, or too large, is told as the parser tells it.
    if let Err(diagnostics) = cutpoint_scenario::parse_bytes(&name, &bytes)
        && (bytes.len() > SOURCE_LIMIT_BYTES || std::str::from_utf8(&bytes).is_err())
    {
        return Err(Failure::usage(diagnostics.to_string()));
    }
    String::from_utf8(bytes).map_err(|error| Failure::usage(format!("{name}: {error}")))
}

/// Replaces a file as a whole: whatever happens, it holds the old content or the new.
pub fn write_atomic(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    if let Ok(metadata) = fs::metadata(file) {
        temporary
            .as_file()
            .set_permissions(metadata.permissions())?;
    }
    temporary.persist(file).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}
