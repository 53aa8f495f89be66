//! Traces as files.

use std::io::{self, BufRead, Write};

use serde_json::Value;

use super::{FORMAT, LINE_LIMIT_BYTES, Trace, VERSION};

/// Why a stored trace could not be read. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the trace: {0}")]
    Io(#[from] io::Error),
    /// There is no header.
    #[error("this is no trace: its first line is not a {FORMAT} header ({0})")]
    NoHeader(String),
    /// Another version of the format.
    #[error("this trace has format version {found}; this build reads version {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A line that is no entry.
    #[error("line {line}: {message}")]
    Line {
        /// Which one.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl Trace {
    /// Reads a stored trace.
    ///
    /// # Errors
    /// If it can't be read, is no trace, has another version, or has a line that is no entry.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReadError> {
        let mut line = String::new();
        read_line(&mut from, &mut line, 1)?;
        let header: Value =
            serde_json::from_str(&line).map_err(|error| ReadError::NoHeader(error.to_string()))?;
        if header["format"] != FORMAT {
            return Err(ReadError::NoHeader(format!(
                "`format` is {}",
                header["format"]
            )));
        }
        let found = header["version"]
            .as_u64()
            .and_then(|found| u32::try_from(found).ok());
        match found {
            Some(VERSION) => {}
            Some(found) => return Err(ReadError::Version { found }),
            None => return Err(ReadError::NoHeader("it has no version".to_owned())),
        }
        let header = serde_json::from_value(header)
            .map_err(|error| ReadError::NoHeader(error.to_string()))?;
        let mut entries = Vec::new();
        for number in 2.. {
            line.clear();
            if read_line(&mut from, &mut line, number)? == 0 {
                break;
            }
            let entry = serde_json::from_str(&line).map_err(|error| ReadError::Line {
                line: number,
                message: error.to_string(),
            })?;
            entries.push(entry);
        }
        Ok(Self { header, entries })
    }

    /// Writes the trace in the form that [`Trace::read`] reads.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.header)?;
        to.write_all(b"\n")?;
        for entry in &self.entries {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

fn read_line(
    from: &mut impl BufRead,
    line: &mut String,
    number: usize,
) -> Result<usize, ReadError> {
    let read = io::Read::take(&mut *from, LINE_LIMIT_BYTES)
        .read_line(line)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ReadError::Line {
                line: number,
                message: "not valid UTF-8".to_owned(),
            },
            _ => ReadError::Io(error),
        })?;
    if read as u64 == LINE_LIMIT_BYTES {
        let message = format!("longer than {LINE_LIMIT_BYTES} bytes");
        return Err(ReadError::Line {
            line: number,
            message,
        });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::trace::*;

    fn trace() -> Trace {
        let agent = AgentInfo {
            name: "reference".into(),
            version: "1".into(),
            driver: "in-process".into(),
            features: BTreeSet::from([Feature::Rollout]),
            defects: vec![],
        };
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            scenario: "s".into(),
            file: None,
            agent,
            seed: 7,
            abort_bound_ms: ABORT_BOUND_MS,
            waived: vec![],
        };
        let event = AgentEvent::TurnEnded {
            turn_id: Some("t".into()),
            end: TurnEnd::Aborted {
                reason: Some(AbortReason::Interrupted),
            },
        };
        let what = What::Event {
            event,
            raw: Raw::default(),
        };
        let trigger = ReadTrigger::TurnEnded { turn_id: None };
        let read = What::Rollout {
            trigger,
            path: "r".into(),
            from: 0,
            text: "{}\n".into(),
        };
        let entries = vec![
            Entry {
                seq: 0,
                at_ns: 5,
                what,
            },
            Entry {
                seq: 1,
                at_ns: 6,
                what: read,
            },
        ];
        Trace { header, entries }
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        assert_eq!(Trace::read(&bytes[..]).unwrap(), trace());
    }

    #[test]
    fn what_is_no_trace_says_why() {
        let message = |text: &str| Trace::read(text.as_bytes()).unwrap_err().to_string();
        assert!(message("").contains("no trace"));
        assert!(message("{\"format\":\"x\"}\n").contains("`format` is \"x\""));
        assert!(message("{\"format\":\"cutpoint-trace\",\"version\":9}\n").contains("version 9"));
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        let torn = &bytes[..bytes.len() - 5];
        assert!(
            Trace::read(torn)
                .unwrap_err()
                .to_string()
                .starts_with("line 3: ")
        );
    }
}
