//! `recording.json`: what a recording says of itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// The name that stands in every recording's `recording.json`.
pub const FORMAT: &str = "cutpoint-recording";
/// The version of the format that this build writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// The content of `recording.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    /// `sha256:` and the hash of the list of `files` as `sha256sum` prints it, in order. Absent where
    /// a person wrote or changed the recording and does not care.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
    /// Each exchange file's own hash, so that a changed file can be named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads `recording.json`; `file` is its path for messages.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self, Problem> {
        let at = |error: &serde_json::Error| {
            Problem::error(
                file,
                error.line(),
                format!("{error}; see the recordings that come with cutpoint for the form"),
            )
        };
        let value: Value = serde_json::from_str(text).map_err(|error| at(&error))?;
        let line_of = |key: &str| {
            let found = text
                .lines()
                .position(|line| line.contains(&format!("\"{key}\"")));
            found.map_or(1, |line| line + 1)
        };
        if value["format"] != FORMAT {
            let message = format!(
                "`format` is {}, not \"{FORMAT}\": this file is no description of a recording",
                value["format"]
            );
            return Err(Problem::error(file, line_of("format"), message));
        }
        if value["version"] != VERSION {
            let message = format!(
                "found format version {}, expected {VERSION}: use the build of cutpoint that wrote it, or record again",
                value["version"]
            );
            return Err(Problem::error(file, line_of("version"), message));
        }
        serde_json::from_str(text).map_err(|error| at(&error))
    }

    /// The file as text.
    pub(crate) fn to_text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// The hash of a file's bytes, in hexadecimal.
pub(crate) fn file_hash(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes).iter() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The hash over all exchange files in order, from their names and hashes.
pub(crate) fn content_hash<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let listing: String = files
        .into_iter()
        .map(|(name, hash)| format!("{hash}  {name}\n"))
        .collect();
    format!("sha256:{}", file_hash(listing.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let hash = file_hash(b"abc");
        assert_eq!(
            hash,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let listing = format!("{hash}  a\n");
        assert_eq!(
            content_hash([("a", hash.as_str())]),
            format!("sha256:{}", file_hash(listing.as_bytes()))
        );
    }

    #[test]
    fn what_is_no_manifest_says_why_and_where() {
        let message = |text: &str| Manifest::parse(text, "r.json").unwrap_err().to_string();
        assert!(message("{\n  nope").starts_with("r.json:2: error: "));
        assert!(message("{}").contains("`format` is null, not \"cutpoint-recording\""));
        let other = "{\"format\": \"cutpoint-recording\",\n\"version\": 7}";
        assert!(message(other).starts_with("r.json:2: error: found format version 7, expected 1"));
        let odd = "{\"format\": \"cutpoint-recording\", \"version\": 1, \"name\": \"n\", \"source\": \"s\", \"sauce\": 1}";
        assert!(message(odd).contains("unknown field `sauce`"));
    }
}
