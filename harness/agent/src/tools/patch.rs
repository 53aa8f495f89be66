//! Patches in the envelope `*** Begin Patch` … `*** End Patch`.
//!
//! A patch is checked as a whole before the first file is touched, and each file is replaced in one
//! step, so that a patch that does not fit changes nothing.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::files::Files;
use super::{CallError, ToolCommand};

/// Changes to files below one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patch {
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: String,
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Add(String),
    Delete,
    Update(Vec<Hunk>),
}

/// Lines that are found and the lines that take their place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Hunk {
    old: Vec<String>,
    new: Vec<String>,
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// What is wrong with it, for the model to read.
    pub(crate) fn parse(text: &str) -> Result<Self, CallError> {
        let mut lines = text.trim().lines().peekable();
        if lines.next().map(str::trim_end) != Some("*** Begin Patch") {
            return Err("a patch begins with `*** Begin Patch`".into());
        }
        let mut changes = Vec::new();
        loop {
            let line = lines
                .next()
                .ok_or("a patch ends with `*** End Patch`")?
                .trim_end();
            if line == "*** End Patch" {
                break;
            }
            let mut body = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("*** ")) {
                body.push(line);
            }
            changes.push(change(line, &body)?);
        }
        if lines.next().is_some() {
            return Err("nothing may follow `*** End Patch`".into());
        }
        if changes.is_empty() {
            return Err("the patch changes no file".into());
        }
        Ok(Self { changes })
    }

    /// The files that it changes.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.changes
            .iter()
            .map(|change| change.path.clone())
            .collect()
    }

    /// The patch as a command, for those who ask whether it may be applied: patches of the same
    /// files are one to them.
    pub(crate) fn command(&self, cwd: &Path) -> ToolCommand {
        command(&self.paths(), cwd)
    }

    /// Changes the files, and returns their paths.
    ///
    /// # Errors
    /// Why it can't be applied, for the model to read. Unless the disk failed, nothing is changed.
    pub(crate) fn apply(&self, cwd: &Path, files: &dyn Files) -> Result<Vec<String>, CallError> {
        let mut planned: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
        for change in &self.changes {
            let path = below(cwd, &change.path, files)?;
            let before = match planned.get(&path) {
                Some(known) => known.clone(),
                None => files
                    .read(&path)
                    .map_err(|error| format!("{}: {error}", change.path))?,
            };
            planned.insert(path, change.outcome(before)?);
        }
        for (path, content) in &planned {
            let done = match content {
                Some(content) => files.write(path, content),
                None => files.remove(path),
            };
            done.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(self.paths())
    }
}

/// Changing files as a command.
pub(crate) fn command(paths: &[String], cwd: &Path) -> ToolCommand {
    let words = std::iter::once("apply_patch".to_owned()).chain(paths.iter().cloned());
    ToolCommand {
        argv: words.collect(),
        cwd: cwd.to_owned(),
        env: Vec::new(),
        timeout: None,
    }
}

fn change(head: &str, body: &[&str]) -> Result<Change, CallError> {
    let named = |start: &str| head.strip_prefix(start).map(|path| path.trim().to_owned());
    if let Some(path) = named("*** Add File: ") {
        let added = |line: &&str| line.strip_prefix('+').map(|line| format!("{line}\n"));
        let lines: Option<Vec<String>> = body.iter().map(added).collect();
        let lines =
            lines.ok_or_else(|| format!("{path}: each line of a new file begins with +"))?;
        let action = Action::Add(lines.concat());
        return Ok(Change { path, action });
    }
    if let Some(path) = named("*** Delete File: ") {
        if !body.is_empty() {
            return Err(format!("{path}: a deleted file has no lines").into());
        }
        let action = Action::Delete;
        return Ok(Change { path, action });
    }
    let path = named("*** Update File: ").ok_or_else(|| format!("`{head}` begins no change"))?;
    let hunks = hunks(body).map_err(|line| format!("{path}: `{line}` is no line of a hunk"))?;
    if hunks.is_empty() {
        return Err(format!("{path}: the update has no hunk").into());
    }
    let action = Action::Update(hunks);
    Ok(Change { path, action })
}

/// The hunks of an update; a line that belongs to none is the error.
fn hunks<'a>(body: &[&'a str]) -> Result<Vec<Hunk>, &'a str> {
    let mut hunks: Vec<Hunk> = Vec::new();
    for line in body {
        if line.starts_with("@@") {
            hunks.push(Hunk::default());
            continue;
        }
        if hunks.is_empty() {
            hunks.push(Hunk::default());
        }
        let Some(hunk) = hunks.last_mut() else {
            return Err(line);
        };
        let (sign, text) = match line.chars().next() {
            // Models leave out the space before an empty line.
            None => (' ', String::new()),
            Some(sign) => (sign, line[sign.len_utf8()..].to_owned()),
        };
        match sign {
            ' ' => {
                hunk.old.push(text.clone());
                hunk.new.push(text);
            }
            '-' => hunk.old.push(text),
            '+' => hunk.new.push(text),
            _ => return Err(line),
        }
    }
    Ok(hunks)
}

impl Change {
    /// What the file holds afterwards; nothing if it is gone.
    fn outcome(&self, before: Option<String>) -> Result<Option<String>, CallError> {
        let path = &self.path;
        match (&self.action, before) {
            (Action::Add(_), Some(_)) => Err(format!("{path}: it exists already").into()),
            (Action::Add(content), None) => Ok(Some(content.clone())),
            (_, None) => Err(format!("{path}: there is no such file").into()),
            (Action::Delete, Some(_)) => Ok(None),
            (Action::Update(hunks), Some(before)) => {
                let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
                let mut from = 0;
                for hunk in hunks {
                    from = hunk
                        .replace(&mut lines, from)
                        .ok_or_else(|| format!("{path}: the lines of a hunk are not in it"))?;
                }
                Ok(Some(lines.into_iter().map(|line| line + "\n").collect()))
            }
        }
    }
}

impl Hunk {
    /// Replaces the first place after `from` that has the old lines. Returns the line after it.
    fn replace(&self, lines: &mut Vec<String>, from: usize) -> Option<usize> {
        let last = lines.len().checked_sub(self.old.len())?;
        // Lines that replace none go to the end.
        let at = match self.old.is_empty() {
            true => lines.len(),
            false => (from..=last).find(|at| lines[*at..*at + self.old.len()] == self.old)?,
        };
        lines.splice(at..at + self.old.len(), self.new.iter().cloned());
        Some(at + self.new.len())
    }
}

/// The path of a file below a directory. A link that leads out of the directory is refused.
fn below(cwd: &Path, path: &str, files: &dyn Files) -> Result<PathBuf, CallError> {
    let relative = Path::new(path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let outside = || CallError::from(format!("{path}: it is not below the working directory"));
    if path.is_empty() || !relative.components().all(plain) {
        return Err(outside());
    }
    let whole = cwd.join(relative);
    let home = files.real(cwd).ok_or_else(outside)?;
    let nearest = whole.ancestors().find_map(|path| files.real(path));
    match nearest {
        Some(nearest) if nearest.starts_with(&home) => Ok(whole),
        _ => Err(outside()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tools::files::Disk;

    fn patch(body: &str) -> Result<Patch, CallError> {
        Patch::parse(&format!("*** Begin Patch\n{body}\n*** End Patch\n"))
    }

    #[test]
    fn files_are_added_updated_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "one\ntwo\nthree\n").unwrap();
        fs::write(dir.path().join("b"), "gone\n").unwrap();
        let patch = patch(
            "*** Update File: a\n@@\n one\n-two\n+zwei\n@@\n three\n+four\n*** Delete File: b\n\
             *** Add File: c/d\n+new\n+",
        );
        let changed = patch.unwrap().apply(dir.path(), &Disk).unwrap();
        assert_eq!(changed, ["a", "b", "c/d"]);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("a"), "one\nzwei\nthree\nfour\n");
        assert_eq!(read("c/d"), "new\n\n");
        assert!(!dir.path().join("b").exists());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "nothing but the files is left");
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "one\n").unwrap();
        for (body, why) in [
            (
                "*** Update File: a\n-one\n+two\n*** Update File: a\n-one\n+three",
                "not in it",
            ),
            ("*** Add File: x\n+1\n*** Add File: a\n+1", "exists already"),
            ("*** Add File: x\n+1\n*** Delete File: y", "no such file"),
            ("*** Add File: ../x\n+1", "not below"),
            ("*** Add File: /x\n+1", "not below"),
        ] {
            let error = patch(body).unwrap().apply(dir.path(), &Disk).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "one\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), dir.path().join("out")).unwrap();
        let error = patch("*** Add File: out/x\n+1")
            .unwrap()
            .apply(dir.path(), &Disk);
        assert!(error.unwrap_err().to_string().contains("not below"));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        for text in [
            "",
            "*** Begin Patch\n*** Add File: a\n+1",
            "*** Begin Patch\n*** End Patch",
            "*** Begin Patch\n*** Add File: a\n1\n*** End Patch",
            "*** Begin Patch\n*** Update File: a\n*** End Patch",
            "*** Begin Patch\n*** Update File: a\n?x\n*** End Patch",
            "*** Begin Patch\n*** Move File: a\n*** End Patch",
            "*** Begin Patch\n*** Delete File: a\n*** End Patch\nmore",
        ] {
            assert!(Patch::parse(text).is_err(), "{text}");
        }
    }
}
