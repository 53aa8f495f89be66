//! Lines of an agent's output, bounded, whatever it prints.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cutpoint_trace::Observation;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::tracer::Tracer;

/// Longest line that is taken as a message: 64 MiB, room for any history an agent may echo.
const LINE_LIMIT_BYTES: u64 = 64 << 20;
/// How much an agent may tell in one case. What it tells is kept in memory; a real case stays below
/// a hundredth of this.
const CASE_LIMIT_BYTES: usize = 64 << 20;
/// What the smallest message takes in memory, about.
const MESSAGE_COST_BYTES: usize = 1 << 10;
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

    /// The length of the line that was read last.
    pub(super) fn length_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The line that was read last, shortened.
    pub(super) fn shown(&self) -> String {
        let text = self.buffer.trim_ascii();
        String::from_utf8_lossy(&text[..text.len().min(GARBAGE_KEPT_BYTES)]).into_owned()
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
                _ => Line::Garbage(self.shown()),
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
            tracer.record(Observation::Garbage { text });
        }
    }
}

/// What an agent may still tell in a case.
#[derive(Debug)]
pub(super) struct Budget {
    left_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left_bytes: CASE_LIMIT_BYTES,
        }
    }
}

impl Budget {
    /// Takes a message of that length into account; false once it was too much.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let left = self
            .left_bytes
            .checked_sub(bytes.saturating_add(MESSAGE_COST_BYTES));
        self.left_bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// Why an agent that told too much is ended.
    pub(super) fn overdrawn() -> String {
        format!(
            "it printed more than {} MiB in one case, and was killed for it",
            CASE_LIMIT_BYTES >> 20
        )
    }
}

/// The last part of a stream, read in the background.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: CancellationToken,
    reader: JoinHandle<()>,
}

impl Tail {
    /// Starts to read.
    pub(super) fn start(mut from: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (kept, ended) = (Arc::<Mutex<Vec<u8>>>::default(), CancellationToken::new());
        let (into, end) = (kept.clone(), ended.clone().drop_guard());
        let reader = tokio::spawn(async move {
            let _end = end;
            let mut chunk = vec![0; STDERR_KEPT_BYTES];
            while let Ok(read @ 1..) = from.read(&mut chunk).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&chunk[..read]);
                let surplus = kept.len().saturating_sub(STDERR_KEPT_BYTES);
                kept.drain(..surplus);
            }
        });
        Self {
            kept,
            ended,
            reader,
        }
    }

    /// What was read last, at the stream's end; a child of the agent may hold the stream open, so
    /// past `patience` it is what was read until now.
    pub(super) async fn text(&self, patience: Duration) -> String {
        let _ = tokio::time::timeout(patience, self.ended.cancelled()).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reader.abort();
    }
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
        let tail = Tail::start(std::io::Cursor::new(text));
        let kept = tail.text(Duration::from_secs(10)).await;
        assert_eq!(kept.len(), STDERR_KEPT_BYTES);
        assert!(kept.ends_with("the end"));
    }

    #[tokio::test]
    async fn stderr_that_is_held_open_is_told_so_far() {
        let (mut agent, harness) = tokio::io::duplex(64);
        let tail = Tail::start(harness);
        tokio::io::AsyncWriteExt::write_all(&mut agent, b"last words")
            .await
            .unwrap();
        while tail.text(Duration::from_millis(1)).await != "last words" {}
    }

    #[test]
    fn many_small_messages_and_one_large_one_overdraw_alike() {
        let mut budget = Budget::default();
        let small = (0..).take_while(|_| budget.spend(10)).count();
        assert!((1_000..100_000).contains(&small), "{small}");
        assert!(!Budget::default().spend(CASE_LIMIT_BYTES));
        assert!(Budget::default().spend(CASE_LIMIT_BYTES / 2));
    }
}
