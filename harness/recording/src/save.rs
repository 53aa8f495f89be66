//! Writing a recording so that a crash at any moment leaves the old or the new one readable.
//!
//! The new folder is written and synced beside the old one, then: old folder → aside, new folder →
//! its place, aside removed. The name aside is fixed, so that the loader finds the old recording if
//! the two renames were torn apart.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::file_names::{self, FileKind, MANIFEST};
use crate::load;
use crate::manifest::{self, FORMAT, Manifest, VERSION};
use crate::recording::{Exchange, Recording, Response};

/// What a save has just done; tests look at the disk after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveStep {
    /// A file of the new folder was written.
    FileWritten,
    /// The new folder is whole and synced.
    NewReady,
    /// The old folder was put aside.
    OldAside,
    /// The new folder is in place.
    NewInPlace,
    /// The old folder was removed.
    OldRemoved,
}

/// Where the old recording stands while a new one takes its place; `None` for a path without a name.
pub(crate) fn aside(dir: &Path) -> Option<PathBuf> {
    Some(dir.with_file_name(hidden(dir, ".old")?))
}

fn hidden(dir: &Path, ending: &str) -> Option<OsString> {
    let mut name = OsString::from(".");
    name.push(dir.file_name()?);
    name.push(ending);
    Some(name)
}

/// Stores a recording as a folder.
pub(crate) fn save(recording: &Recording, dir: &Path) -> io::Result<()> {
    save_in_steps(recording, dir, &mut |_| {})
}

pub(crate) fn save_in_steps(
    recording: &Recording,
    dir: &Path,
    after: &mut dyn FnMut(SaveStep),
) -> io::Result<()> {
    let contents = contents(recording)?;
    // The folder is replaced where it is, not the link that leads to it.
    let dir = match fs::symlink_metadata(dir) {
        Ok(found) if found.is_symlink() => fs::canonicalize(dir)?,
        _ => dir.to_owned(),
    };
    let (Some(aside), Some(prefix)) = (aside(&dir), hidden(&dir, ".new-")) else {
        return Err(invalid(format!(
            "{} is no name for a folder",
            dir.display()
        )));
    };
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent)?;
    settle(&dir, &aside)?;
    refuse_to_lose(&dir)?;

    let new = new_folder(&prefix, &parent)?;
    for (name, bytes) in &contents {
        let mut file = create(&new.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        after(SaveStep::FileWritten);
    }
    sync_folder(new.path())?;
    after(SaveStep::NewReady);
    let replaces = dir.exists();
    if replaces {
        fs::rename(&dir, &aside)?;
        after(SaveStep::OldAside);
    }
    if let Err(error) = fs::rename(new.path(), &dir) {
        if replaces {
            fs::rename(&aside, &dir)?;
        }
        return Err(error);
    }
    // The folder has left the place from which the guard would remove it.
    let _ = new.keep();
    sync_folder(&parent)?;
    after(SaveStep::NewInPlace);
    if replaces {
        remove(&aside)?;
        sync_folder(&parent)?;
        after(SaveStep::OldRemoved);
    }
    Ok(())
}

/// Ends what an earlier save left half done.
fn settle(dir: &Path, aside: &Path) -> io::Result<()> {
    if !aside.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        remove(aside)
    } else {
        fs::rename(aside, dir)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A folder that holds anything but a recording must not be swept away by one.
fn refuse_to_lose(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name == MANIFEST || file_names::parse_name(&name).is_some();
        if !ours || !entry.file_type()?.is_file() {
            let message = format!(
                "{} is no part of a recording and would be lost: move it away, or save elsewhere",
                entry.path().display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
    }
    Ok(())
}

fn new_folder(prefix: &OsString, parent: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    // The folder is like any other, unlike temporary ones; its files are their owner's (see `create`).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent)
}

/// Creates a file that only its owner can read: whether what was recorded is for others, the owner
/// says.
#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Other systems have no such mode.
#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems have no way to sync a folder.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The files of a recording with their bytes.
fn contents(recording: &Recording) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut contents = Vec::new();
    for (at, exchange) in recording.exchanges.iter().enumerate() {
        if exchange.number != at + 1 {
            return Err(invalid(format!(
                "exchange {} stands where exchange {} belongs: number them from 1 without gaps",
                exchange.number,
                at + 1
            )));
        }
        exchange_contents(exchange, &mut contents)?;
    }
    if contents.is_empty() {
        return Err(invalid(
            "a recording needs at least one exchange".to_owned(),
        ));
    }
    let hashes: Vec<(String, String)> = contents
        .iter()
        .map(|(name, bytes)| (name.clone(), manifest::file_hash(bytes)))
        .collect();
    let listed = hashes
        .iter()
        .map(|(name, hash)| (name.as_str(), hash.as_str()));
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        name: recording.name.clone(),
        source: recording.source.clone(),
        created: recording.created.clone(),
        agent: recording.agent.clone(),
        hash: Some(manifest::content_hash(listed)),
        files: hashes.into_iter().collect::<BTreeMap<_, _>>(),
    };
    contents.push((MANIFEST.to_owned(), manifest.to_text()?.into_bytes()));
    Ok(contents)
}

fn exchange_contents(exchange: &Exchange, into: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let number = exchange.number;
    if let Some(request) = &exchange.request {
        let bytes = pretty(&serde_json::to_value(request)?)?;
        into.push((FileKind::Request.file_name(number), bytes));
    }
    into.push(match &exchange.response {
        Response::Stream(document) => {
            let bytes = document.to_bytes();
            load::check_stream(&bytes).map_err(|(_, message)| {
                invalid(format!("the stream of exchange {number} {message}"))
            })?;
            (FileKind::Stream.file_name(number), bytes)
        }
        Response::Body {
            status,
            headers,
            body,
        } => {
            let value = json!({"status": status, "headers": headers, "body": body});
            (FileKind::Body.file_name(number), pretty(&value)?)
        }
    });
    Ok(())
}

fn pretty(value: &Value) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};

    fn recording(text: &str, exchanges: usize) -> Recording {
        let mut recording = Recording::new("r", text);
        let bytes = format!("data: {text}\n\n");
        let document = Document::parse(bytes.as_bytes(), EVENT_LIMIT_BYTES).unwrap();
        recording.exchanges = (1..=exchanges)
            .map(|number| Exchange::bare(number, Response::Stream(document.clone())))
            .collect();
        recording
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// Copies of the disk as a crash after each step would leave it.
    fn crashes(recording: &Recording, place: &Path, into: &Path) -> Vec<(SaveStep, PathBuf)> {
        let mut found = Vec::new();
        save_in_steps(recording, &place.join("r"), &mut |step| {
            let to = into.join(found.len().to_string());
            copy(place, &to);
            found.push((step, to));
        })
        .unwrap();
        found
    }

    #[test]
    fn a_crash_at_any_step_leaves_one_whole_recording() {
        let (place, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        recording("old", 3).save(&place.path().join("r")).unwrap();
        let crashes = crashes(&recording("new", 2), place.path(), copies.path());
        let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
        let last = [
            SaveStep::NewReady,
            SaveStep::OldAside,
            SaveStep::NewInPlace,
            SaveStep::OldRemoved,
        ];
        assert_eq!(steps[..3], [SaveStep::FileWritten; 3]);
        assert_eq!(steps[3..], last);
        for (step, disk) in crashes {
            let dir = disk.join("r");
            let loaded = Recording::load(&dir).unwrap();
            let new = matches!(step, SaveStep::NewInPlace | SaveStep::OldRemoved);
            let (source, exchanges) = if new { ("new", 2) } else { ("old", 3) };
            assert_eq!(
                (loaded.source.as_str(), loaded.exchanges.len()),
                (source, exchanges),
                "{step:?}"
            );
            let changed = loaded
                .validate()
                .iter()
                .any(|problem| problem.message.contains("changed"));
            assert!(!changed, "{step:?}");

            // The next save starts from there and leaves nothing aside.
            recording("third", 1).save(&dir).unwrap();
            assert_eq!(Recording::load(&dir).unwrap().source, "third");
            assert!(!aside(&dir).unwrap().exists(), "{step:?}");
        }
    }

    #[test]
    fn a_first_save_that_crashes_leaves_nothing_or_all() {
        let (place, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (step, disk) in crashes(&recording("new", 1), place.path(), copies.path()) {
            let loaded = Recording::load(&disk.join("r"));
            assert_eq!(loaded.is_ok(), step == SaveStep::NewInPlace, "{step:?}");
        }
    }

    #[test]
    fn what_is_no_recording_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("r");
        recording("old", 1).save(&dir).unwrap();
        fs::write(dir.join("diary.txt"), "dear diary").unwrap();
        let error = recording("new", 1).save(&dir).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(
            error
                .to_string()
                .contains("diary.txt is no part of a recording")
        );
        assert!(recording("new", 1).save(Path::new("/")).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_could_not_be_loaded_is_not_saved() {
        let place = tempfile::tempdir().unwrap();
        let save = |recording: &Recording| {
            let error = recording.save(&place.path().join("r")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            error.to_string()
        };
        assert!(save(&recording("x", 0)).contains("at least one exchange"));
        let mut gap = recording("x", 2);
        gap.exchanges[1].number = 3;
        assert!(save(&gap).contains("exchange 3 stands where exchange 2 belongs"));
        let mut empty = recording("x", 1);
        empty.exchanges[0].response = Response::Stream(Document::default());
        assert!(save(&empty).contains("the stream of exchange 1 is empty"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_recording_stays_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (dir, link) = (place.path().join("r"), place.path().join("link"));
        recording("old", 1).save(&dir).unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        recording("new", 1).save(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Recording::load(&dir).unwrap().source, "new");
    }
}
