//! Server-sent events: an incremental decoder, and documents that are written again byte for byte.
//!
//! The decoder follows the event-stream format of the HTML standard (section 9.2.6): lines end in
//! CR, LF or CRLF, a leading byte order mark is ignored, `data` lines are joined by LF, an event is
//! dispatched by a blank line, and what stands after the last blank line is not an event.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Bound of one event's bytes unless told otherwise: 16 MiB, well above any item the API sends.
pub const EVENT_LIMIT_BYTES: usize = 16 << 20;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The `event` field; empty where the stream gives none.
    pub event: String,
    /// The `data` lines, joined by LF.
    pub data: String,
    /// The `id` field of this event, if it has one.
    pub id: Option<String>,
}

/// Why decoding stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event grew past the bound.
    #[error("one server-sent event is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: usize,
    },
}

/// Why a document can't be read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct DocumentError {
    /// The line on which the frame starts, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: SseError,
}

/// Turns a stream of bytes, in chunks of any size, into events.
#[derive(Debug)]
pub struct Decoder {
    limit_bytes: usize,
    /// Bytes of the line that has not ended yet.
    line: Vec<u8>,
    /// Bytes of the current event's finished lines, for the bound.
    block_bytes: usize,
    current: SseEvent,
    has_data: bool,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(EVENT_LIMIT_BYTES)
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            line: Vec::new(),
            block_bytes: 0,
            current: SseEvent::default(),
            has_data: false,
            after_cr: false,
            first_line: true,
        }
    }

    /// Takes the next chunk and appends the events that it completes to `events`.
    ///
    /// # Errors
    /// If an event grows past the bound. The decoder is of no more use then.
    pub fn push(&mut self, mut chunk: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            if chunk[0] == b'\n' {
                chunk = &chunk[1..];
            }
        }
        while let Some(at) = memchr::memchr2(b'\n', b'\r', chunk) {
            self.grow(at)?;
            if self.line.is_empty() {
                self.end_line(&chunk[..at], events);
            } else {
                self.line.extend_from_slice(&chunk[..at]);
                let line = std::mem::take(&mut self.line);
                self.end_line(&line, events);
                self.line = line;
                self.line.clear();
            }
            let cr = chunk[at] == b'\r';
            chunk = &chunk[at + 1..];
            if cr {
                match chunk.first() {
                    Some(b'\n') => chunk = &chunk[1..],
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.grow(chunk.len())?;
        self.line.extend_from_slice(chunk);
        Ok(())
    }

    fn grow(&self, more: usize) -> Result<(), SseError> {
        if self.block_bytes + self.line.len() + more > self.limit_bytes {
            return Err(SseError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        Ok(())
    }

    fn end_line(&mut self, mut line: &[u8], events: &mut Vec<SseEvent>) {
        if self.first_line {
            self.first_line = false;
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            self.block_bytes = 0;
            let event = std::mem::take(&mut self.current);
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return;
        }
        self.block_bytes += line.len() + 1;
        let (name, value) = split_field(line);
        match name {
            b"event" => self.current.event = decode(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.current.data.push('\n');
                }
                self.has_data = true;
                self.current.data.push_str(&decode(value));
            }
            b"id" if !value.contains(&0) => self.current.id = Some(decode(value).into_owned()),
            // Comments, `retry` and unknown fields carry nothing that an event needs.
            _ => {}
        }
    }
}

fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        Some(at) => {
            let value = &line[at + 1..];
            (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, b""),
    }
}

fn decode(bytes: &[u8]) -> Cow<'_, str> {
    // The usual case first, and several times faster than looking for what is broken.
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// What a comment line of a recording tells the replay server. Any other SSE parser ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// `: cutpoint status=200`: settings of the whole answer.
    Settings(Vec<(String, String)>),
    /// `: +35ms`: how long after the frame before this one came.
    Delay(Duration),
}

impl Directive {
    /// Reads a line without its ending; `None` if it is not a directive.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.strip_prefix(b":")?).ok()?.trim();
        if let Some(settings) = text.strip_prefix("cutpoint ") {
            let pairs = settings
                .split_ascii_whitespace()
                .map(|pair| pair.split_once('='));
            return pairs
                .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
                .collect::<Option<Vec<_>>>()
                .map(Self::Settings);
        }
        let millis = text.strip_prefix('+')?.strip_suffix("ms")?;
        let millis: f64 = millis.parse().ok()?;
        Duration::try_from_secs_f64(millis / 1000.0)
            .ok()
            .map(Self::Delay)
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(pairs) => {
                f.write_str(": cutpoint")?;
                pairs
                    .iter()
                    .try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Self::Delay(delay) => write!(f, ": +{}ms", delay.as_micros() as f64 / 1000.0),
        }
    }
}

/// One frame of a document: everything up to and with the blank line that ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The bytes as they stand in the document, directives included.
    pub raw: Vec<u8>,
    /// The bytes as they go over the wire: `raw` without directives.
    pub wire: Vec<u8>,
    /// The directives before or between the frame's lines.
    pub directives: Vec<Directive>,
    /// The event, if the frame dispatches one.
    pub event: Option<SseEvent>,
    /// The document's line on which the frame's `data` (else the frame itself) starts, from 1.
    pub line: usize,
    /// Whether the frame is ended by a blank line; only the last one may not be.
    pub complete: bool,
}

/// A whole event stream that is written again with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// The frames; their `raw` bytes, joined, are the document.
    pub frames: Vec<Frame>,
}

impl Document {
    /// Reads a whole stream.
    ///
    /// # Errors
    /// If one event is larger than `limit_bytes`.
    pub fn parse(bytes: &[u8], limit_bytes: usize) -> Result<Self, DocumentError> {
        let mut frames = Vec::new();
        let mut reader = FrameReader {
            line_number: 1,
            ..FrameReader::default()
        };
        let mut decoder = Decoder::new(limit_bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (line, ending) = take_line(rest);
            rest = &rest[line.len() + ending.len()..];
            let bom = frames.is_empty() && reader.raw.is_empty();
            let content = if bom {
                line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
            } else {
                line
            };
            reader.add(line, content, ending);
            let line = reader.start_line.unwrap_or(reader.line_number);
            let refused = |error| DocumentError { line, error };
            if reader.raw.len() > limit_bytes {
                return Err(refused(SseError::TooLarge { limit_bytes }));
            }
            let ends = content.is_empty() && !ending.is_empty();
            if ends || rest.is_empty() {
                let frame = reader.finish(&mut decoder, ends);
                frames.push(frame.map_err(refused)?);
            }
        }
        Ok(Self { frames })
    }

    /// The document's bytes, exactly as they were read.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.frames
            .iter()
            .flat_map(|frame| frame.raw.iter().copied())
            .collect()
    }

    /// The value of a setting (`: cutpoint name=value`), the last one given.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.frames
            .iter()
            .flat_map(|frame| &frame.directives)
            .filter_map(|directive| match directive {
                Directive::Settings(pairs) => Some(pairs),
                Directive::Delay(_) => None,
            })
            .flatten()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .next_back()
    }
}

#[derive(Default)]
struct FrameReader {
    raw: Vec<u8>,
    wire: Vec<u8>,
    directives: Vec<Directive>,
    line_number: usize,
    data_line: Option<usize>,
    start_line: Option<usize>,
}

impl FrameReader {
    fn add(&mut self, line: &[u8], content: &[u8], ending: &[u8]) {
        self.start_line.get_or_insert(self.line_number);
        if content.starts_with(b"data") {
            self.data_line.get_or_insert(self.line_number);
        }
        for part in [line, ending] {
            self.raw.extend_from_slice(part);
        }
        match Directive::parse(content) {
            Some(directive) => self.directives.push(directive),
            None => [line, ending]
                .iter()
                .for_each(|part| self.wire.extend_from_slice(part)),
        }
        if !ending.is_empty() {
            self.line_number += 1;
        }
    }

    fn finish(&mut self, decoder: &mut Decoder, complete: bool) -> Result<Frame, SseError> {
        let mut events = Vec::new();
        decoder.push(&self.wire, &mut events)?;
        let started = self.start_line.take();
        let line = self
            .data_line
            .take()
            .or(started)
            .unwrap_or(self.line_number);
        Ok(Frame {
            raw: std::mem::take(&mut self.raw),
            wire: std::mem::take(&mut self.wire),
            directives: std::mem::take(&mut self.directives),
            event: events.pop(),
            line,
            complete,
        })
    }
}

/// The first line and its ending (empty at the end of the text).
fn take_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        None => (bytes, b""),
        Some(at) if bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n') => {
            (&bytes[..at], &bytes[at..at + 2])
        }
        Some(at) => (&bytes[..at], &bytes[at..=at]),
    }
}

/// The frame of an event as the API sends it: an `event` line, a `data` line, a blank line.
pub fn frame(event: &str, data: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(event.len() + data.len() + 16);
    for part in ["event: ", event, "\ndata: ", data, "\n\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_whole(bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        Decoder::default().push(bytes, &mut events).unwrap();
        events
    }

    fn event(event: &str, data: &str) -> SseEvent {
        SseEvent {
            event: event.to_owned(),
            data: data.to_owned(),
            id: None,
        }
    }

    #[test]
    fn the_standards_rules() {
        let cases: [(&[u8], Vec<SseEvent>); 10] = [
            (b"data: a\n\n", vec![event("", "a")]),
            (
                b"data:a\r\rdata: b\r\n\r\n",
                vec![event("", "a"), event("", "b")],
            ),
            (b"\xEF\xBB\xBFdata: a\n\n", vec![event("", "a")]),
            (b"data: a\ndata: b\ndata\n\n", vec![event("", "a\nb\n")]),
            (
                b": comment\nevent: x\ndata:  two\n\n",
                vec![event("x", " two")],
            ),
            (b"event: no data\n\ndata: a\n\n", vec![event("", "a")]),
            (b"data: unfinished\n", vec![]),
            (b"data\n\n", vec![event("", "")]),
            (
                "data: \u{1F600}\n\n".as_bytes(),
                vec![event("", "\u{1F600}")],
            ),
            (b"data: \xFFx\n\n", vec![event("", "\u{FFFD}x")]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                decode_whole(bytes),
                expected,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        let with_id = SseEvent {
            id: Some("7".to_owned()),
            ..event("", "a")
        };
        assert_eq!(
            decode_whole(b"id: 7\nretry: 5\ndata: a\n\nid: \x00\ndata: b\n\n"),
            [with_id, event("", "b")]
        );
    }

    #[test]
    fn the_bound_holds_for_lines_and_for_many_lines() {
        let mut decoder = Decoder::new(64);
        let mut events = Vec::new();
        let error = SseError::TooLarge { limit_bytes: 64 };
        assert_eq!(decoder.push(&[b'x'; 65], &mut events), Err(error));
        let mut decoder = Decoder::new(64);
        let many = b"data: 1234567890\n".repeat(4);
        assert_eq!(decoder.push(&many, &mut events), Err(error));
        let mut decoder = Decoder::new(64);
        let small = b"data: 1234567890\n\n".repeat(100);
        assert_eq!(decoder.push(&small, &mut events), Ok(()));
        assert_eq!(events.len(), 100);
    }

    #[test]
    fn directives_are_read_and_stripped() {
        let text = b": cutpoint status=429 split=3\n: +35ms\n: kept\ndata: a\n\n";
        let document = Document::parse(text, EVENT_LIMIT_BYTES).unwrap();
        let frame = &document.frames[0];
        assert_eq!(frame.wire, b": kept\ndata: a\n\n");
        assert_eq!(frame.line, 4);
        assert_eq!(
            frame.directives[1],
            Directive::Delay(Duration::from_millis(35))
        );
        assert_eq!(document.setting("status"), Some("429"));
        for directive in &frame.directives {
            assert_eq!(
                Directive::parse(directive.to_string().as_bytes()).as_ref(),
                Some(directive)
            );
        }
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"data: ".to_vec()),
            Just(b"event:".to_vec()),
            Just(b": c".to_vec()),
            Just(b": +1ms".to_vec()),
            Just(b"\xEF\xBB\xBF".to_vec()),
            Just("é\u{1F600}".as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(bytes in stream(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            let whole = decode_whole(&bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            let mut from = 0;
            for cut in cuts {
                decoder.push(&bytes[from..cut], &mut events).unwrap();
                from = cut;
            }
            prop_assert_eq!(events, whole);
        }

        #[test]
        fn a_document_is_written_as_it_was_read(bytes in stream()) {
            let document = Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap();
            prop_assert_eq!(document.to_bytes(), bytes);
        }

        #[test]
        fn a_documents_frames_carry_what_a_client_decodes(bytes in stream()) {
            let document = Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap();
            let wire: Vec<u8> = document.frames.iter().flat_map(|frame| frame.wire.clone()).collect();
            let events: Vec<_> = document.frames.iter().filter_map(|frame| frame.event.clone()).collect();
            prop_assert_eq!(decode_whole(&wire), events);
        }
    }
}
