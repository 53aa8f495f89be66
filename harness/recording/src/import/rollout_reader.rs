//! The lines of a rollout, with the place of each that cannot be read.

use cutpoint_protocol::rollout::{LineContent, RolloutLine};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::redact::Redactor;

/// A line that was read.
#[derive(Debug, Clone)]
pub(super) struct ParsedLine {
    /// The file and the line's number in it, counted from 1.
    pub(super) place: (String, usize),
    pub(super) content: LineContent,
    pub(super) line: RolloutLine,
}

/// What a response has cost.
#[derive(Debug, Clone)]
pub(super) struct TokenUsage {
    /// As the API says it.
    pub(super) cost: Value,
    /// What the session had cost by then, in the lines that are written for people: of them, several
    /// may report one response. Absent in the lines that are its records.
    pub(super) total: Option<Value>,
}

/// Reads all lines, without their secrets; the second part reports those that cannot be read.
pub(super) fn read(
    file: &str,
    bytes: &[u8],
    until: usize,
    redactor: &mut Redactor,
) -> (Vec<ParsedLine>, Vec<Problem>) {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let mut start = 0;
    for (at, raw) in bytes.split(|byte| *byte == b'\n').take(until).enumerate() {
        let from = start;
        start += raw.len() + 1;
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let text = std::str::from_utf8(raw).map_err(|error| {
            let at = from + error.valid_up_to();
            format!("at byte {at}: no text in UTF-8")
        });
        let line = text.and_then(|text| {
            // The problem is reported for the line as it stands in the file.
            let line = RolloutLine::parse_any(text);
            let line = line.and_then(|line| match redactor.json(text) {
                Some(redacted) => RolloutLine::parse_any(&redacted),
                None => Ok(line),
            });
            line.map_err(|error| {
                let message = format!("from byte {from} on: {error}");
                redactor.text(&message).unwrap_or(message)
            })
        });
        match line {
            Ok(line) => lines.push(ParsedLine {
                place: (file.to_owned(), at + 1),
                content: line.content(),
                line,
            }),
            Err(message) => {
                let message = format!("{message}; the line is left out");
                problems.push(Problem::warning(file, at + 1, message));
            }
        }
    }
    (lines, problems)
}

impl ParsedLine {
    /// What a response has cost, if the line tells that.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        let payload = &self.line.payload;
        let (told, total) = match self.line.kind.as_str() {
            "token_usage_record" => (payload.get("usage")?, None),
            "event_msg" if payload.get("type")? == "token_count" => {
                let info = payload.get("info")?;
                (info.get("last_token_usage")?, info.get("total_token_usage"))
            }
            _ => return None,
        };
        let number = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or(0);
        let cost = json!({
            "input_tokens": number("input_tokens"),
            "input_tokens_details": {
                "cached_tokens": number("cached_input_tokens"),
                "cache_write_tokens": number("cache_write_input_tokens"),
            },
            "output_tokens": number("output_tokens"),
            "output_tokens_details": {"reasoning_tokens": number("reasoning_output_tokens")},
            "total_tokens": number("total_tokens"),
        });
        Some(TokenUsage {
            cost,
            total: total.cloned(),
        })
    }

    /// A text of the line's payload.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.line.payload.get(name).and_then(Value::as_str)
    }
}
