//! Lines of an agent's output, bounded, whatever it prints.

use std::sync::Arc;

use cutpoint_check::trace::What;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::tracer::Tracer;

/// Longest line that is taken as a message: 64 MiB, room for any history an agent may echo.
const LINE_LIMIT_BYTES: u64 = 64 << 20;
/// How much of a line that is no message is kept.
const GARBAGE_KEPT_BYTES: usize = 200;
/// How many lines that are no messages are recorded; an agent that floods its output says no more
/// with the next thousand.
const GARBAGE_KEPT_LINES: usize = 20;
/// How much of an agent's stderr is kept: its end.
const STDERR_KEPT_BYTES: usize = 4096;

/// Reads JSON lines.
#[derive(Debug)]
pub(super) struct JsonLines<R> {
    from: BufReader<R>,
    buffer: Vec<u8>,
}

/// What a line holds.
#[derive(Debug)]
pub(super) enum Line {
    /// A JSON object.
    Message(Value),
    /// Anything else, shortened.
    Garbage(String),
}

impl<R: AsyncRead + Unpin> JsonLines<R> {
    /// A reader of JSON lines.
    pub(super) fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            buffer: Vec::new(),
        }
    }

    /// The next line that is not blank; `None` at the end of the output.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.from).take(LINE_LIMIT_BYTES);
            // A read error of a pipe means that its other end is gone.
            let read = limited
                .read_until(b'\n', &mut self.buffer)
                .await
                .unwrap_or(0);
            if read == 0 {
                return None;
            }
            let text = self.buffer.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let parsed: Result<Value, _> = serde_json::from_slice(text);
            return Some(match parsed {
                Ok(value @ Value::Object(_)) => Line::Message(value),
                _ => {
                    let kept = &text[..text.len().min(GARBAGE_KEPT_BYTES)];
                    Line::Garbage(String::from_utf8_lossy(kept).into_owned())
                }
            });
        }
    }
}

/// Records lines that are no messages, as many as say something new.
#[derive(Debug, Default)]
pub(super) struct GarbageLog {
    seen: usize,
}

impl GarbageLog {
    /// Records one.
    pub(super) fn record(&mut self, tracer: &Arc<Tracer>, text: String) {
        self.seen += 1;
        if self.seen <= GARBAGE_KEPT_LINES {
            tracer.record(What::Garbage { text });
        }
    }
}

/// Reads a stream to its end and keeps the last part of it.
pub(super) async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = vec![0; STDERR_KEPT_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_told_from_garbage() {
        let text = "\n{\"a\":1}\r\nhello\n[1]\n{\"half\":";
        let mut lines = JsonLines::new(text.as_bytes());
        assert!(matches!(lines.next().await, Some(Line::Message(value)) if value["a"] == 1));
        for expected in ["hello", "[1]", "{\"half\":"] {
            assert!(matches!(lines.next().await, Some(Line::Garbage(text)) if text == expected));
        }
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn only_the_end_of_stderr_is_kept() {
        let text = "x".repeat(10_000) + "the end";
        let kept = tail(text.as_bytes()).await;
        assert_eq!(kept.len(), STDERR_KEPT_BYTES);
        assert!(kept.ends_with("the end"));
    }
}
