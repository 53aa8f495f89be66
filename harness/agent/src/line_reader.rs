//! Lines on pipes, of bounded length.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest line that is read.
const LINE_LIMIT_BYTES: usize = 4 << 20;

/// Writes a line and sees it on its way.
pub(crate) async fn write_line<W: AsyncWrite + Unpin>(
    output: &mut W,
    mut line: Vec<u8>,
) -> io::Result<()> {
    line.push(b'\n');
    output.write_all(&line).await?;
    output.flush().await
}

/// A line was too long and is passed over.
pub(crate) struct LineTooLong;

/// Lines of bounded length.
pub(crate) struct LineReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// How much of the buffer has no line break in it.
    searched: usize,
    /// A line that is too long is being passed over.
    skipping: bool,
    ended: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            searched: 0,
            skipping: false,
            ended: false,
        }
    }

    /// The next line without its line break; `None` at the end of the input.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<u8>, LineTooLong>> {
        loop {
            let fresh = &self.buffer[self.searched..];
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.searched = 0;
                line.pop();
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                return Some(Ok(line));
            }
            self.searched = self.buffer.len();
            if self.skipping || self.searched > LINE_LIMIT_BYTES {
                self.buffer.clear();
                self.searched = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    return Some(Err(LineTooLong));
                }
            }
            if self.ended {
                // The last line may lack its line break; half a line is not JSON and is refused.
                let rest = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return (!rest.is_empty()).then_some(Ok(rest));
            }
            let mut piece = [0; 8 << 10];
            match self.input.read(&mut piece).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            }
        }
    }
}
