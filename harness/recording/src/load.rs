//! Reading a recording from its files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use cutpoint_protocol::sse::{self, Document};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::file_names::{self, FileKind, MANIFEST};
use crate::manifest::{self, Manifest, VERSION};
use crate::problem::{LoadErrors, Problem};
use crate::recording::{Exchange, Origin, RecordedRequest, Recording, Response};
use crate::{save, validate};

/// Bounds of what is read; whatever is larger is refused before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Of one file, in bytes.
    pub file_bytes: u64,
    /// Of one event of a stream, in bytes.
    pub event_bytes: usize,
    /// Of all files of a recording together, in bytes.
    pub recording_bytes: u64,
    /// Of the number of files in a recording's folder.
    pub files: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            event_bytes: sse::EVENT_LIMIT_BYTES,
            recording_bytes: 1 << 30,
            files: 20_000,
        }
    }
}

/// `NN.response.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyFile {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Value,
}

/// Loads whatever stands at `path`.
pub(crate) fn load(path: &Path, limits: &LoadLimits) -> Result<Recording, LoadErrors> {
    let shown = path.display().to_string();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Loader::new(path, &shown, limits).folder(path),
        Ok(_) => Loader::new(path, &shown, limits).lone_stream(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A save that was cut off between its two renames leaves the old recording aside.
            match save::aside(path).filter(|aside| aside.is_dir()) {
                Some(aside) => {
                    let shown = aside.display().to_string();
                    Loader::new(&aside, &shown, limits).folder(path)
                }
                None => Err(Problem::error(shown, 0, "there is no such recording").into()),
            }
        }
        Err(error) => Err(Problem::error(shown, 0, format!("cannot be read: {error}")).into()),
    }
}

struct Loader<'a> {
    place: &'a Path,
    shown: &'a str,
    limits: &'a LoadLimits,
    bytes_left: u64,
    problems: Vec<Problem>,
    origin: Origin,
}

impl<'a> Loader<'a> {
    fn new(place: &'a Path, shown: &'a str, limits: &'a LoadLimits) -> Self {
        let origin = Origin {
            place: shown.to_owned(),
            ..Origin::default()
        };
        Self {
            place,
            shown,
            limits,
            bytes_left: limits.recording_bytes,
            problems: Vec::new(),
            origin,
        }
    }

    /// A lone capture: one exchange without a request.
    fn lone_stream(mut self, path: &Path) -> Result<Recording, LoadErrors> {
        if path.extension().is_none_or(|extension| extension != "sse") {
            let message = "is neither a folder nor an .sse file: name the recording's folder, or what `curl -N` printed";
            return Err(Problem::error(self.shown, 0, message).into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.trim_end_matches(".sse").trim_end_matches(".response");
        let bytes = self.read(path, self.shown);
        let document = bytes.and_then(|bytes| self.stream(&bytes, self.shown));
        let Some(document) = document else {
            return Err(self.failed());
        };
        let place = (self.shown.to_owned(), 1);
        self.origin.parts.insert((1, FileKind::Stream), place);
        let exchange = Exchange::bare(1, Response::Stream(document));
        Ok(self.recording(bare_manifest(stem), vec![exchange]))
    }

    /// A folder; `named` is the path that the recording is known by.
    fn folder(mut self, named: &Path) -> Result<Recording, LoadErrors> {
        let Listing { parts, manifest } = self.list()?;
        let name = folder_name(named);
        if parts.is_empty() && self.problems.is_empty() {
            let message = "holds no exchange: put `01.response.sse` there, for instance what `curl -N` printed";
            return Err(Problem::error(self.shown, 0, message).into());
        }
        let manifest = if manifest {
            self.manifest()
        } else {
            Some(bare_manifest(&name))
        };
        let mut contents = BTreeMap::new();
        for (key, file) in &parts {
            let path = self.place.join(file);
            let shown = path.display().to_string();
            let bytes = self.read(&path, &shown);
            self.origin.parts.insert(*key, (shown, 1));
            contents.extend(bytes.map(|bytes| (*key, bytes)));
        }
        if let Some(manifest) = &manifest {
            self.compare(manifest, &name, &parts, &contents);
        }
        let exchanges = self.exchanges(&parts, &contents);
        match manifest {
            Some(manifest) if self.problems.is_empty() => Ok(self.recording(manifest, exchanges)),
            manifest => {
                // One file that can't be read must not hide the problems of the others.
                let mut problems = std::mem::take(&mut self.problems);
                let manifest = manifest.unwrap_or_else(|| bare_manifest(&name));
                let rest = self.recording(manifest, exchanges);
                problems.extend(validate::readable(&rest));
                validate::sort(&mut problems);
                Err(LoadErrors { problems })
            }
        }
    }

    fn failed(self) -> LoadErrors {
        LoadErrors {
            problems: self.problems,
        }
    }

    fn recording(self, manifest: Manifest, exchanges: Vec<Exchange>) -> Recording {
        Recording {
            name: manifest.name,
            source: manifest.source,
            version: manifest.version,
            created: manifest.created,
            agent: manifest.agent,
            exchanges,
            origin: self.origin,
        }
    }

    /// The folder's files, told apart by name.
    fn list(&mut self) -> Result<Listing, Problem> {
        let unreadable =
            |error: io::Error| Problem::error(self.shown, 0, format!("cannot be read: {error}"));
        let mut names = Vec::new();
        for entry in fs::read_dir(self.place).map_err(unreadable)? {
            names.push(entry.map_err(unreadable)?.file_name());
            if names.len() > self.limits.files {
                let message = format!("holds more than {} files", self.limits.files);
                return Err(Problem::error(self.shown, 0, message));
            }
        }
        names.sort();
        let mut listing = Listing::default();
        for name in names {
            let name = name.to_string_lossy().into_owned();
            if name == MANIFEST {
                listing.manifest = true;
            } else if let Some(key) = file_names::parse_name(&name) {
                self.take_part(&mut listing.parts, key, name);
            } else if !name.starts_with('.') {
                let path = self.place.join(&name).display().to_string();
                let message = "is no part of a recording (those are recording.json, NN.request.json, NN.response.sse and NN.response.json): rename or remove it";
                self.origin
                    .findings
                    .push(Problem::warning(path, 0, message));
            }
        }
        self.check_numbers(&listing.parts);
        Ok(listing)
    }

    fn take_part(&mut self, parts: &mut FileNames, key: (usize, FileKind), name: String) {
        let path = self.place.join(&name).display().to_string();
        if key.0 == 0 {
            let message = "exchanges are numbered from 1: rename it";
            self.problems.push(Problem::error(path, 0, message));
        } else if let Some(other) = parts.get(&key) {
            let message = format!("stands for the same part as `{other}`: remove one of them");
            self.problems.push(Problem::error(path, 0, message));
        } else {
            parts.insert(key, name);
        }
    }

    /// Each exchange has exactly one response.
    fn check_numbers(&mut self, parts: &FileNames) {
        for (&(number, part), name) in parts {
            let has = |part| parts.contains_key(&(number, part));
            let message = match part {
                FileKind::Request if !has(FileKind::Stream) && !has(FileKind::Body) => format!(
                    "has no response beside it: add `{}` or `{}`",
                    FileKind::Stream.file_name(number),
                    FileKind::Body.file_name(number)
                ),
                FileKind::Body if has(FileKind::Stream) => {
                    "stands beside a stream for the same exchange: remove one of them".to_owned()
                }
                _ => continue,
            };
            let path = self.place.join(name).display().to_string();
            self.problems.push(Problem::error(path, 0, message));
        }
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let path = self.place.join(MANIFEST);
        let shown = path.display().to_string();
        let bytes = self.read(&path, &shown)?;
        let parsed = utf8(&bytes, &shown).and_then(|text| Manifest::parse(text, &shown));
        self.keep(parsed)
    }

    fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Reads a file that is not larger than allowed.
    fn read(&mut self, path: &Path, shown: &str) -> Option<Vec<u8>> {
        let limit = self.limits.file_bytes.min(self.bytes_left);
        let result = read_bounded(path, limit).map_err(|trouble| {
            let message = match trouble {
                ReadError::Io(error) => format!("cannot be read: {error}"),
                ReadError::NoFile => "is not a regular file".to_owned(),
                ReadError::TooLarge if limit < self.limits.file_bytes => format!(
                    "the recording is larger than the {} bytes that one may have: split it",
                    self.limits.recording_bytes
                ),
                ReadError::TooLarge => format!(
                    "is larger than the {limit} bytes that a file of a recording may have: record a shorter session"
                ),
            };
            Problem::error(shown, 0, message)
        });
        let bytes = self.keep(result)?;
        self.bytes_left -= bytes.len() as u64;
        Some(bytes)
    }

    fn stream(&mut self, bytes: &[u8], shown: &str) -> Option<Document> {
        let checked = check_stream(bytes)
            .map_err(|(line, message)| Problem::error(shown, line, message))
            .and_then(|()| {
                Document::parse(bytes, self.limits.event_bytes).map_err(|error| {
                    let message =
                        format!("{error}: the limit guards against files that are no event stream");
                    Problem::error(shown, error.line, message)
                })
            });
        self.keep(checked)
    }

    /// Compares what was read with the hashes that were written down.
    fn compare(
        &mut self,
        manifest: &Manifest,
        folder: &str,
        parts: &FileNames,
        contents: &FileContents,
    ) {
        let shown = self.place.join(MANIFEST).display().to_string();
        let findings = &mut self.origin.findings;
        if manifest.name != folder {
            let message = format!(
                "`name` is \"{}\", the folder is \"{folder}\": scenarios use the folder's name, so make them agree",
                manifest.name
            );
            findings.push(Problem::warning(&shown, 0, message));
        }
        let hashes: Vec<(&str, String)> = parts
            .iter()
            .filter_map(|(key, name)| {
                Some((name.as_str(), manifest::file_hash(contents.get(key)?)))
            })
            .collect();
        let before = findings.len();
        let path = |name: &str| self.place.join(name).display().to_string();
        if !manifest.files.is_empty() {
            for (name, hash) in &hashes {
                let message = match manifest.files.get(*name) {
                    Some(known) if known == hash => continue,
                    Some(_) => {
                        "was changed since it was recorded: restore it, or delete `hash` and `files` from recording.json to accept the change"
                    }
                    None => {
                        "was added since recording.json was written: remove it, or delete `hash` and `files` from recording.json to accept it"
                    }
                };
                findings.push(Problem::error(path(name), 0, message));
            }
            let known = |name: &str| parts.values().any(|part| part == name);
            for name in manifest.files.keys().filter(|name| !known(name)) {
                let message = "is missing: restore it, or delete `hash` and `files` from recording.json to do without";
                findings.push(Problem::error(path(name), 0, message));
            }
        }
        let content =
            manifest::content_hash(hashes.iter().map(|(name, hash)| (*name, hash.as_str())));
        if findings.len() == before && manifest.hash.as_ref().is_some_and(|hash| *hash != content) {
            let message = format!(
                "`hash` is not that of the exchange files ({content}): restore them, or delete `hash` to accept them"
            );
            findings.push(Problem::error(&shown, 0, message));
        }
    }

    fn exchanges(&mut self, parts: &FileNames, contents: &FileContents) -> Vec<Exchange> {
        let mut numbers: Vec<usize> = parts.keys().map(|(number, _)| *number).collect();
        numbers.dedup();
        numbers
            .into_iter()
            .filter_map(|number| self.exchange(number, contents))
            .collect()
    }

    fn exchange(&mut self, number: usize, contents: &FileContents) -> Option<Exchange> {
        let shown = |part| {
            let place = self.origin.parts.get(&(number, part));
            place.map(|(shown, _)| shown.clone()).unwrap_or_default()
        };
        let (request_file, stream_file, body_file) = (
            shown(FileKind::Request),
            shown(FileKind::Stream),
            shown(FileKind::Body),
        );
        let content = |part| contents.get(&(number, part));
        let request = content(FileKind::Request).and_then(|bytes| {
            let line = line_of_body(bytes);
            let place = (request_file.clone(), line);
            self.origin.parts.insert((number, FileKind::Request), place);
            let read = json::<RecordedRequest>(
                bytes,
                &request_file,
                "{\"method\", \"path\", \"headers\", \"body\"}",
            );
            self.keep(read)
        });
        let response = if let Some(bytes) = content(FileKind::Stream) {
            let document = self.stream(bytes, &stream_file);
            document.map(Response::Stream)
        } else {
            let form = "{\"status\", \"headers\", \"body\"}";
            let read =
                content(FileKind::Body).map(|bytes| json::<BodyFile>(bytes, &body_file, form));
            let body = read.and_then(|read| self.keep(read));
            body.map(|body| Response::Body {
                status: body.status,
                headers: body.headers,
                body: body.body,
            })
        };
        if let (Some(request), None) = (&request, &response) {
            // The exchange is lost; what can be said of its request is said here.
            let line = self.origin.parts[&(number, FileKind::Request)].1;
            validate::check_request(request, &request_file, line, &mut self.problems);
        }
        Some(Exchange {
            number,
            request,
            response: response?,
        })
    }
}

type FileNames = BTreeMap<(usize, FileKind), String>;
type FileContents = BTreeMap<(usize, FileKind), Vec<u8>>;

#[derive(Default)]
struct Listing {
    parts: FileNames,
    manifest: bool,
}

fn bare_manifest(name: &str) -> Manifest {
    Manifest {
        format: manifest::FORMAT.to_owned(),
        version: VERSION,
        name: name.to_owned(),
        source: "bare capture".to_owned(),
        created: None,
        agent: None,
        hash: None,
        files: BTreeMap::new(),
    }
}

/// The folder's own name, also where the path ends in `.` or `..`.
fn folder_name(path: &Path) -> String {
    let name = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    name(path)
        .or_else(|| name(&path.canonicalize().ok()?))
        .unwrap_or_default()
}

enum ReadError {
    Io(io::Error),
    NoFile,
    TooLarge,
}

fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
    let metadata = fs::metadata(path).map_err(ReadError::Io)?;
    // Opening a pipe would wait for a writer.
    if !metadata.is_file() {
        return Err(ReadError::NoFile);
    }
    if metadata.len() > limit_bytes {
        return Err(ReadError::TooLarge);
    }
    let file = File::open(path).map_err(ReadError::Io)?;
    let mut bytes = Vec::new();
    // The file may have grown since its length was asked for.
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(ReadError::Io)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}

fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes[..offset]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

fn utf8<'b>(bytes: &'b [u8], shown: &str) -> Result<&'b str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        Problem::error(shown, line, "is not text in UTF-8")
    })
}

fn json<T: DeserializeOwned>(bytes: &[u8], shown: &str, form: &str) -> Result<T, Problem> {
    let text = utf8(bytes, shown)?;
    if text.trim().is_empty() {
        return Err(Problem::error(
            shown,
            0,
            format!("is empty: it should be a JSON object {form}"),
        ));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = format!("{error}; the file should be a JSON object {form}");
        Problem::error(shown, error.line(), message)
    })
}

/// The line of a request's `body`, the nearest thing to where a fault in it stands.
fn line_of_body(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let found = text.lines().position(|line| line.contains("\"body\""));
    found.map_or(1, |line| line + 1)
}

/// Refuses what cannot be an event stream, with the line and what to do instead.
pub(crate) fn check_stream(bytes: &[u8]) -> Result<(), (usize, String)> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let start = text.trim_ascii_start();
    let message = if bytes.is_empty() {
        "is empty: capture the stream again, with `curl -N`"
    } else if bytes.starts_with(b"\x1F\x8B") {
        "is compressed with gzip: capture with `curl -N --compressed`, or unpack it"
    } else if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        let message = "is binary (it has a NUL byte here), not an event stream: capture the stream again, with `curl -N`";
        return Err((line_at(bytes, offset), message.to_owned()));
    } else if start.starts_with(b"HTTP/") {
        "starts with HTTP headers: remove them, or capture without `-i`"
    } else if start.starts_with(b"{") || start.starts_with(b"[") || start.starts_with(b"<") {
        "is one whole document, not an event stream: store it as NN.response.json, {\"status\", \"headers\", \"body\"}"
    } else {
        return Ok(());
    };
    Err((1, message.to_owned()))
}
