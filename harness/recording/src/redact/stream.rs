//! Redaction of an event stream, whose deltas may tear a secret to pieces.
//!
//! The text that deltas add up to is put together, searched as a whole, and the deltas are rewritten:
//! the first one that a secret touches gets the placeholder, the others lose their piece. What holds
//! no secret keeps its bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use cutpoint_protocol::sse::{Decoder, Document, EVENT_LIMIT_BYTES, Frame};

use super::Redactor;
use super::json::{self, JsonStrings};

/// What deltas have in common whose texts belong together: type, item and part.
type DeltaKey = (String, String, String);

/// What a frame's data is.
enum FrameContent {
    /// JSON; of a frame that was cut off, with what was missing at its end.
    Json {
        text: String,
        parts: JsonStrings,
        added: usize,
    },
    Text(String),
}

/// Where a piece of a text stands.
struct DeltaPiece {
    frame: usize,
    literal: usize,
}

impl Redactor {
    /// Redacts a stream. Frames without secrets keep their bytes.
    pub(crate) fn stream(&mut self, document: &mut Document) {
        if !self.is_on {
            return;
        }
        let contents: Vec<Option<FrameContent>> = document.frames.iter().map(content).collect();
        let (of_deltas, torn) = self.deltas(&contents);
        let mut changed = torn;
        let mut edits: Vec<Vec<(Range<usize>, String)>> = Vec::with_capacity(contents.len());
        for (at, content) in contents.iter().enumerate() {
            let mut own = Vec::new();
            if let Some(FrameContent::Json { parts, .. }) = content {
                for (number, literal) in parts.strings.iter().enumerate() {
                    let new = match of_deltas.get(&(at, number)) {
                        Some(new) => new.clone(),
                        None => self.literal(literal),
                    };
                    own.extend(new.map(|new| (literal.range.clone(), json::quoted(&new))));
                }
            }
            changed |= !own.is_empty();
            edits.push(own);
        }
        for (at, frame) in document.frames.iter_mut().enumerate() {
            let mut own = std::mem::take(&mut edits[at]);
            let data = match &contents[at] {
                Some(FrameContent::Json { text, parts, added }) => {
                    // The tokens of a text with a secret spell it out.
                    let logprobs = parts
                        .logprobs
                        .iter()
                        .filter(|range| changed && range.len() > 2);
                    own.extend(logprobs.map(|range| (range.clone(), "[]".to_owned())));
                    (!own.is_empty()).then(|| {
                        // The outer array first: what stands in it goes with it.
                        let mut new = json::replaced(text, own);
                        new.truncate(new.len() - added);
                        new
                    })
                }
                Some(FrameContent::Text(text)) => self.text(text),
                None => None,
            };
            self.rewrite(frame, data.as_deref());
        }
    }

    /// What becomes of the deltas' texts, by frame and literal, and whether any changes.
    fn deltas(
        &mut self,
        contents: &[Option<FrameContent>],
    ) -> (BTreeMap<(usize, usize), Option<String>>, bool) {
        let mut texts: BTreeMap<DeltaKey, Vec<DeltaPiece>> = BTreeMap::new();
        for (frame, content) in contents.iter().enumerate() {
            let Some(FrameContent::Json { text, parts, .. }) = content else {
                continue;
            };
            if let Some((key, literal)) = delta(text, parts) {
                texts
                    .entry(key)
                    .or_default()
                    .push(DeltaPiece { frame, literal });
            }
        }
        let text_of = |piece: &DeltaPiece| match &contents[piece.frame] {
            Some(FrameContent::Json { parts, .. }) => parts.strings[piece.literal].text.as_str(),
            _ => "",
        };
        let mut new = BTreeMap::new();
        let mut any = false;
        for pieces in texts.values() {
            let whole: String = pieces.iter().map(text_of).collect();
            let found = self.placed(&whole);
            any |= !found.is_empty();
            let mut start = 0;
            for piece in pieces {
                let text = text_of(piece);
                let own = rewritten(text, start, &found);
                start += text.len();
                new.insert((piece.frame, piece.literal), own);
            }
        }
        (new, any)
    }

    /// Puts new data into a frame, and redacts its other lines.
    fn rewrite(&mut self, frame: &mut Frame, data: Option<&str>) {
        let text = String::from_utf8_lossy(&frame.raw).into_owned();
        let mut lines = String::with_capacity(text.len());
        let mut changed = data.is_some();
        let mut new = data;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (content, ending) = first_line(rest);
            rest = &rest[content.len() + ending.len()..];
            let field = content.trim_start_matches('\u{FEFF}');
            if field == "data" || field.starts_with("data:") {
                if data.is_none() {
                    lines.extend([content, ending]);
                } else if let Some(new) = new.take() {
                    let parts: Vec<String> = new
                        .split('\n')
                        .map(|part| format!("data: {part}"))
                        .collect();
                    lines.extend([&parts.join("\n"), ending]);
                }
                continue;
            }
            match self.text(content) {
                Some(redacted) => {
                    changed = true;
                    lines.extend([&redacted, ending]);
                }
                None => lines.extend([content, ending]),
            }
        }
        if changed {
            frame.raw = lines.into_bytes();
        }
    }
}

/// The first line, and how it ends.
fn first_line(text: &str) -> (&str, &str) {
    let (content, rest) = text.split_at(text.find(['\n', '\r']).unwrap_or(text.len()));
    let ending = if rest.starts_with("\r\n") {
        2
    } else {
        rest.len().min(1)
    };
    (content, &rest[..ending])
}

/// What a frame carries, if it carries anything.
fn content(frame: &Frame) -> Option<FrameContent> {
    let data = match &frame.event {
        Some(event) => event.data.clone(),
        None if frame.complete => return None,
        None => {
            let mut events = Vec::new();
            let closed = [&frame.wire[..], b"\n\n"].concat();
            Decoder::new(EVENT_LIMIT_BYTES + 2)
                .push(&closed, &mut events)
                .ok()?;
            events.pop()?.data
        }
    };
    if let Some(parts) = json::parts(&data) {
        return Some(FrameContent::Json {
            text: data,
            parts,
            added: 0,
        });
    }
    if let Some((kept, end)) = json::close(&data) {
        let text = format!("{kept}{end}");
        if let Some(parts) = json::parts(&text) {
            let added = end.len();
            return Some(FrameContent::Json { text, parts, added });
        }
    }
    Some(FrameContent::Text(data))
}

/// What a delta belongs to, and which of its strings it adds.
fn delta(text: &str, parts: &JsonStrings) -> Option<(DeltaKey, usize)> {
    let top = |wanted: &str| {
        parts.strings.iter().position(|literal| {
            literal.depth == 1 && !literal.is_name && literal.name.as_deref() == Some(wanted)
        })
    };
    let literal = top("delta")?;
    let kind = top("type").map_or("", |at| &parts.strings[at].text);
    let item = top("item_id").map_or("", |at| &parts.strings[at].text);
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let place = ["output_index", "content_index", "summary_index"]
        .map(|name| value[name].to_string())
        .join(" ");
    Some(((kind.to_owned(), item.to_owned(), place), literal))
}

/// A piece of a text, which starts at `start` of it, without the secrets; `None` if it has none.
fn rewritten(piece: &str, start: usize, found: &[(Range<usize>, String)]) -> Option<String> {
    let end = start + piece.len();
    let mut edits = Vec::new();
    for (range, placeholder) in found {
        if range.end <= start || range.start >= end {
            continue;
        }
        let own = range.start.max(start) - start..range.end.min(end) - start;
        let first = range.start >= start;
        edits.push((
            own,
            if first {
                placeholder.clone()
            } else {
                String::new()
            },
        ));
    }
    (!edits.is_empty()).then(|| json::replaced(piece, edits))
}
