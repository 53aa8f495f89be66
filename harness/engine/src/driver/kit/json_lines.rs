//! An agent's output as JSON lines, bounded in length and in number.

use cutpoint_trace::Observation;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::tracer::Tracer;

/// The longest line that is read as a message: 64 MiB, room for any history an agent may echo.
const LINE_LIMIT_BYTES: u64 = 64 << 20;
/// How much an agent may print in one case. Its messages are kept in memory; a real case stays below
/// a hundredth of this.
const CASE_LIMIT_BYTES: usize = 64 << 20;
/// What the smallest message takes in memory, about.
const MESSAGE_COST_BYTES: usize = 1 << 10;
/// How much of a line that is not a message is kept.
const GARBAGE_KEPT_BYTES: usize = 200;
/// How many lines that are not messages are recorded; if an agent floods its output, the next thousand
/// add nothing.
const GARBAGE_KEPT_LINES: usize = 20;

/// Reads JSON lines.
#[derive(Debug)]
pub(crate) struct JsonLines<R> {
    from: BufReader<R>,
    buffer: Vec<u8>,
}

/// One line of an agent's output.
#[derive(Debug)]
pub(crate) enum OutputLine {
    /// A JSON object.
    Message(Value),
    /// Anything else, shortened.
    Garbage(String),
}

impl<R: AsyncRead + Unpin> JsonLines<R> {
    /// A reader of JSON lines.
    pub(crate) fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            buffer: Vec::new(),
        }
    }

    /// The length of the last line that was read.
    pub(crate) fn length_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The last line that was read, shortened.
    pub(crate) fn shortened(&self) -> String {
        let text = self.buffer.trim_ascii();
        String::from_utf8_lossy(&text[..text.len().min(GARBAGE_KEPT_BYTES)]).into_owned()
    }

    /// The next line that is not blank; `None` at the end of the output.
    pub(crate) async fn next(&mut self) -> Option<OutputLine> {
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
                Ok(value @ Value::Object(_)) => OutputLine::Message(value),
                _ => OutputLine::Garbage(self.shortened()),
            });
        }
    }
}

/// Bounds what an agent prints in one case.
#[derive(Debug)]
pub(crate) struct OutputBudget {
    left_bytes: usize,
    garbage_lines: usize,
}

impl Default for OutputBudget {
    fn default() -> Self {
        Self {
            left_bytes: CASE_LIMIT_BYTES,
            garbage_lines: 0,
        }
    }
}

impl OutputBudget {
    /// Counts a message of that length; false once the case's messages are too much.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let cost = bytes.saturating_add(MESSAGE_COST_BYTES);
        let left = self.left_bytes.checked_sub(cost);
        self.left_bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// Records a line that is not a message, unless there were many already.
    pub(crate) fn record_garbage(&mut self, tracer: &Tracer, text: String) {
        self.garbage_lines += 1;
        if self.garbage_lines <= GARBAGE_KEPT_LINES {
            tracer.record(Observation::Garbage { text });
        }
    }

    /// Why an agent that printed too much is ended.
    pub(crate) fn exceeded() -> String {
        format!(
            "it printed more than {} MiB in one case, and was killed for it",
            CASE_LIMIT_BYTES >> 20
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whole_objects_are_messages() {
        let text = "\n{\"a\":1}\r\nhello\n[1]\n{\"half\":";
        let mut lines = JsonLines::new(text.as_bytes());
        assert!(matches!(lines.next().await, Some(OutputLine::Message(value)) if value["a"] == 1));
        for expected in ["hello", "[1]", "{\"half\":"] {
            assert!(
                matches!(lines.next().await, Some(OutputLine::Garbage(text)) if text == expected)
            );
        }
        assert!(lines.next().await.is_none());
    }

    #[test]
    fn many_small_messages_and_a_large_one_exceed_the_budget_alike() {
        let mut budget = OutputBudget::default();
        let small = (0..).take_while(|_| budget.spend(10)).count();
        assert!((1_000..100_000).contains(&small), "{small}");
        assert!(!OutputBudget::default().spend(CASE_LIMIT_BYTES));
        assert!(OutputBudget::default().spend(CASE_LIMIT_BYTES / 2));
    }
}
