//! The files that patches change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files, as a patch sees them. All of it is done at once: a patch must not be cut in its middle.
pub trait Files: Send + Sync {
    /// The path of what is there with no link left to follow; nothing if nothing is there.
    fn real(&self, path: &Path) -> Option<PathBuf>;

    /// A file's content; nothing if there is no such file.
    ///
    /// # Errors
    /// If it can't be read.
    fn read(&self, path: &Path) -> io::Result<Option<String>>;

    /// Replaces a file in one step: readers see the old content or the new one.
    ///
    /// # Errors
    /// If it can't be written.
    fn write(&self, path: &Path, content: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// If it can't be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The files of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn real(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }

    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, content: &str) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = folder.join(format!(".{name}.{:08x}", fastrand::u32(..)));
        fs::write(&beside, content)?;
        if let Ok(known) = fs::metadata(path) {
            fs::set_permissions(&beside, known.permissions())?;
        }
        fs::rename(&beside, path).inspect_err(|_| {
            // What can't take its place must not be left beside it.
            let _ = fs::remove_file(&beside);
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
