//! Traces as files.

use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
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
}

/// A line of a stored trace that is no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which line, from 1.
    pub line: u64,
    /// The byte within the line at which reading it ended, from 1.
    pub column: u64,
    /// The same byte within the file, from 0.
    pub byte: u64,
    /// What is wrong with it.
    pub message: String,
}

impl Trace {
    /// Reads a stored trace: the entries that can be read, and the lines that are none.
    ///
    /// # Errors
    /// If it can't be read, is no trace or has another version.
    pub fn read(from: impl BufRead) -> Result<(Self, Vec<Unreadable>), ReadError> {
        let mut lines = Lines {
            from,
            bytes: Vec::new(),
            number: 0,
            start: 0,
            next: 0,
        };
        lines.advance()?;
        let header = lines.value::<Value>();
        let header = header.map_err(|unreadable| ReadError::NoHeader(unreadable.message))?;
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
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        while lines.advance()? {
            match lines.value() {
                Ok(entry) => entries.push(entry),
                Err(line) => unreadable.push(line),
            }
        }
        Ok((Self { header, entries }, unreadable))
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

/// The lines of a trace, one at a time. Of a line that is too long no more is kept than the limit.
struct Lines<R> {
    from: R,
    bytes: Vec<u8>,
    number: u64,
    /// The byte at which the line starts, and the one behind it.
    start: u64,
    next: u64,
}

impl<R: BufRead> Lines<R> {
    /// Whether there is another line.
    fn advance(&mut self) -> io::Result<bool> {
        self.bytes.clear();
        self.number += 1;
        self.start = self.next;
        let mut limited = io::Read::take(&mut self.from, LINE_LIMIT_BYTES);
        self.next += limited.read_until(b'\n', &mut self.bytes)? as u64;
        if self.too_long() {
            self.next += self.from.skip_until(b'\n')? as u64;
        }
        Ok(self.next > self.start)
    }

    fn too_long(&self) -> bool {
        self.bytes.len() as u64 == LINE_LIMIT_BYTES && !self.bytes.ends_with(b"\n")
    }

    fn value<T: DeserializeOwned>(&self) -> Result<T, Unreadable> {
        let unreadable = |column: usize, message: String| Unreadable {
            line: self.number,
            column: column as u64,
            byte: self.start + column as u64 - 1,
            message,
        };
        if self.too_long() {
            let message = format!("longer than {LINE_LIMIT_BYTES} bytes");
            return Err(unreadable(1, message));
        }
        let text = std::str::from_utf8(&self.bytes)
            .map_err(|error| unreadable(error.valid_up_to() + 1, "not valid UTF-8".to_owned()))?;
        serde_json::from_str(text).map_err(|error| {
            // The end of a line may count as the start of the next one.
            let column = match error.line() {
                0 | 1 => error.column().max(1),
                _ => text.len().max(1),
            };
            // The place is told by itself; here the line would always be the first.
            let text = error.to_string();
            let said = text.rfind(" at line ").map_or(&text[..], |at| &text[..at]);
            unreadable(column, said.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::*;

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
        let what = Observation::Event {
            event,
            raw: RawMessage::default(),
        };
        let trigger = ReadTrigger::TurnEnded { turn_id: None };
        let read = Observation::Rollout {
            trigger,
            path: "r".into(),
            from: 0,
            text: "{}\n".into(),
        };
        let entries = vec![
            Entry {
                seq: 0,
                at_ns: 5,
                observation: what,
            },
            Entry {
                seq: 1,
                at_ns: 6,
                observation: read,
            },
        ];
        Trace { header, entries }
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        assert_eq!(Trace::read(&bytes[..]).unwrap(), (trace(), Vec::new()));
    }

    #[test]
    fn what_is_no_trace_says_why() {
        let message = |text: &str| Trace::read(text.as_bytes()).unwrap_err().to_string();
        assert!(message("").contains("no trace"));
        assert!(message("{\"format\":\"x\"}\n").contains("`format` is \"x\""));
        assert!(message("{\"format\":\"cutpoint-trace\",\"version\":9}\n").contains("version 9"));
    }

    #[test]
    fn lines_that_are_no_entries_are_told_and_the_others_read() {
        let mut bytes = Vec::new();
        trace().write(&mut bytes).unwrap();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let torn = &lines[1][..lines[1].len() - 5];
        let foreign = b"\n\xff\n{\"seq\":1}\n".as_slice();
        let damaged = [lines[0], torn, foreign, lines[2], lines[1], b"{"].concat();
        let (read, unreadable) = Trace::read(&damaged[..]).unwrap();
        let seqs: Vec<u64> = read.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 0]);
        let at = |line: u64| unreadable.iter().find(|it| it.line == line).unwrap();
        let told: Vec<u64> = unreadable.iter().map(|it| it.line).collect();
        assert_eq!(told, [2, 3, 4, 7]);
        assert_eq!(
            (at(3).column, at(3).message.as_str()),
            (1, "not valid UTF-8")
        );
        assert_eq!(damaged[at(3).byte as usize], 0xff);
        assert!(at(4).message.contains("missing field"), "{}", at(4).message);
        // A torn line is told where the rest of it should be.
        assert_eq!(at(2).byte as usize, lines[0].len() + torn.len());
        assert_eq!(at(7).byte as usize, damaged.len() - 1);
    }
}
