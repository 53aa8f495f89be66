//! Finding, reading and writing the files that the user names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cutpoint_scenario::SOURCE_LIMIT_BYTES;
use tempfile::NamedTempFile;
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
            // A link to a file counts as the file; one that leads nowhere is told when it is read.
            let is_file = !entry.path().is_dir();
            if is_file && entry.path().extension() == Some(OsStr::new("kdl")) {
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
    let problem = match fs::metadata(path) {
        Ok(_) => "is neither a file nor a directory".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => error.to_string(),
    };
    format!(
        "{}: {problem}; name scenario files or directories of them",
        path.display()
    )
}

/// Reads a scenario file's bytes, no more of them than a scenario can have.
pub fn read_bounded(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut bytes = Vec::new();
    if !fs::metadata(file).map_err(failed)?.is_file() {
        return Err(Failure::usage(format!(
            "{}: no regular file",
            file.display()
        )));
    }
    // One byte more than allowed is enough to tell that it is too large.
    let limit = SOURCE_LIMIT_BYTES as u64 + 1;
    File::open(file)
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

/// Reads stdin as a scenario's text.
pub fn read_stdin() -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("stdin: {error}"));
    let mut text = String::new();
    let limit = SOURCE_LIMIT_BYTES as u64 + 1;
    io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// What a failure to open or write a file means: a place that can't hold one was not for the user
/// to name; a full disk and its like are trouble.
pub fn failure(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        NotFound | NotADirectory | IsADirectory | InvalidFilename | PermissionDenied => {
            Failure::usage(message)
        }
        _ => Failure::trouble(message),
    }
}

/// Replaces a file as a whole: whatever happens, it holds the old content or the new.
pub fn write_atomic(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = Draft::create(file)?;
    draft.write_all(bytes)?;
    draft.keep()
}

/// A file in the making: it is written beside its place and moved there when it is whole.
pub struct Draft {
    file: File,
    /// Absent where the place is a device or a pipe: it can only be written to, and replacing it
    /// would take it away from everybody else.
    beside: Option<(NamedTempFile, PathBuf)>,
}

impl Draft {
    /// Starts a file that will stand at `path`, or where that leads to.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (place, permissions) = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self {
                    file: File::options().write(true).open(path)?,
                    beside: None,
                });
            }
            Ok(metadata) => (fs::canonicalize(path)?, Some(metadata.permissions())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
            Err(error) => return Err(error),
        };
        // Reports are read by other users than the one that runs the tests; the umask still holds.
        let temporary = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(directory(&place))?;
        if let Some(permissions) = permissions {
            temporary.as_file().set_permissions(permissions)?;
        }
        Ok(Self {
            file: temporary.reopen()?,
            beside: Some((temporary, place)),
        })
    }

    /// A second handle to write through.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts the file into its place, on stable storage.
    pub fn keep(self) -> io::Result<()> {
        let Some((temporary, place)) = self.beside else {
            return Ok(());
        };
        temporary.as_file().sync_all()?;
        temporary.persist(&place).map_err(|error| error.error)?;
        File::open(directory(&place))?.sync_all()
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn directory(path: &Path) -> &Path {
    let above = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    above.unwrap_or(Path::new("."))
}
