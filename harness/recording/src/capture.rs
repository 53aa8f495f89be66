//! From what came over the wire to an exchange of a recording: pure, and nothing is written.

use std::time::Duration;

use cutpoint_protocol::StreamEvent;
use cutpoint_protocol::sse::{Directive, Document, EVENT_LIMIT_BYTES, Frame};
use serde_json::Value;

use crate::load;
use crate::recording::{RecordedRequest, Response};
use crate::redact::Redactor;

/// How an answer ended that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseCut {
    /// The server reset the connection.
    Reset,
    /// The server closed the connection in the middle of the body.
    Close,
    /// The client left while the stream was open: played back, it stays open.
    Stall,
}

/// A request as it came, its body decoded.
#[derive(Debug, Clone, Copy)]
pub struct CapturedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// An answer as it came, its body decoded.
#[derive(Debug, Clone, Copy)]
pub struct CapturedResponse<'a> {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a [(String, String)],
    /// The body's pieces, each with when it came, counted from the end of the request.
    pub chunks: &'a [(Duration, Vec<u8>)],
    /// How it ended, if it was cut off.
    pub cut: Option<ResponseCut>,
}

impl CapturedRequest<'_> {
    /// The request as a recording holds it.
    pub fn redacted(&self, redactor: &mut Redactor) -> RecordedRequest {
        // The headers first: a credential in them may be repeated in what follows.
        let headers = redactor.headers(pairs(self.headers));
        let path = redactor.text(self.path);
        RecordedRequest {
            method: self.method.to_owned(),
            path: path.unwrap_or_else(|| self.path.to_owned()),
            headers,
            body: value(self.body, redactor, false),
        }
    }
}

impl CapturedResponse<'_> {
    /// The answer as a recording holds it.
    pub fn redacted(&self, redactor: &mut Redactor) -> Response {
        let headers = redactor.headers(pairs(self.headers));
        let whole: Vec<u8> = self
            .chunks
            .iter()
            .flat_map(|(_, bytes)| bytes)
            .copied()
            .collect();
        if self.is_stream() {
            let stream = self.stream(&whole, redactor);
            if let Some(document) = stream {
                return Response::Stream(document);
            }
        }
        Response::Body {
            status: self.status,
            headers,
            body: value(&whole, redactor, true),
        }
    }

    fn is_stream(&self) -> bool {
        let is_type = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-type");
        let stated = self.headers.iter().find(is_type);
        stated.is_some_and(|(_, value)| value.trim_start().starts_with("text/event-stream"))
    }

    /// The body as a stream with its timing; `None` if it is not an event stream, whatever it is called.
    fn stream(&self, whole: &[u8], redactor: &mut Redactor) -> Option<Document> {
        let mut document = Document::parse(whole, EVENT_LIMIT_BYTES).ok()?;
        let times = self.times(&document);
        let is_terminal = |frame: &Frame| {
            let event = frame.event.as_ref();
            event.is_some_and(|event| {
                StreamEvent::parse(&event.data).is_ok_and(|event| event.is_terminal())
            })
        };
        // Clients may hang up as soon as they have the last event.
        let is_whole =
            self.cut == Some(ResponseCut::Stall) && document.frames.iter().any(is_terminal);
        let cut = self.cut.filter(|_| !is_whole);
        redactor.stream(&mut document);
        let mut bytes = self.settings(cut).into_bytes();
        let mut told_ms = 0;
        for (frame, time) in document.frames.iter().zip(times) {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            if ms > told_ms {
                let delay = Directive::Delay(Duration::from_millis(ms - told_ms));
                bytes.extend_from_slice(format!("{delay}\n").as_bytes());
                told_ms = ms;
            }
            bytes.extend_from_slice(&frame.raw);
        }
        load::check_stream(&bytes).ok()?;
        // Directives come on top of what an event may have.
        Document::parse(&bytes, EVENT_LIMIT_BYTES + (1 << 10)).ok()
    }

    /// When each frame had come whole.
    fn times(&self, document: &Document) -> Vec<Duration> {
        let mut chunks = self.chunks.iter();
        let (mut come, mut last) = (0, Duration::ZERO);
        let mut end = 0;
        let mut times = Vec::with_capacity(document.frames.len());
        for frame in &document.frames {
            end += frame.raw.len();
            while come < end
                && let Some((time, bytes)) = chunks.next()
            {
                come += bytes.len();
                last = *time;
            }
            times.push(last);
        }
        times
    }

    /// The directive that a stream begins with, unless there is nothing to say.
    fn settings(&self, cut: Option<ResponseCut>) -> String {
        let mut pairs = Vec::new();
        if self.status != 200 || self.chunks.is_empty() {
            pairs.push(("status".to_owned(), self.status.to_string()));
        }
        pairs.extend(cut.map(|cut| {
            let how = match cut {
                ResponseCut::Reset => "reset",
                ResponseCut::Close => "close",
                ResponseCut::Stall => "stall",
            };
            ("end".to_owned(), how.to_owned())
        }));
        if pairs.is_empty() {
            return String::new();
        }
        format!("{}\n", Directive::Settings(pairs))
    }
}

fn pairs(headers: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// A body as JSON where it is JSON, else as text. With `exactly`, JSON whose bytes could not be told
/// from its value stays text: a string is sent back as it is.
fn value(body: &[u8], redactor: &mut Redactor, exactly: bool) -> Value {
    if body.is_empty() && !exactly {
        return Value::Null;
    }
    let text = String::from_utf8_lossy(body);
    let text = redactor.json(&text).unwrap_or_else(|| text.into_owned());
    let same = |value: &Value| serde_json::to_string(value).is_ok_and(|again| again == text);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if !exactly || !value.is_string() && same(&value) => value,
        _ => Value::String(text),
    }
}
