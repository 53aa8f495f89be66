//! The lines of a file, one at a time, in memory that the file's size says nothing of.

use std::io::{self, Read};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// A line, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine<'a> {
    /// It is whole.
    Whole(&'a [u8]),
    /// The last one, which has no line break.
    Tail(&'a [u8]),
    /// It is longer than the limit; so many bytes.
    TooLong(u64),
}

/// Hands on each line with the byte that it starts at, until told to stop. Lines above the limit are
/// passed over.
pub fn each_line(
    mut from: impl Read,
    limit_bytes: usize,
    mut take: impl FnMut(InputLine<'_>, u64) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(limit_bytes + 1)];
    // What was read and not handed on lies between these two; the start of it is `byte` in the file.
    let (mut start, mut end, mut byte) = (0, 0, 0_u64);
    // How far it is known to have no line break, and how much of its line was passed over.
    let (mut searched, mut passed) = (0, 0_u64);
    loop {
        while let Some(length) = memchr::memchr(b'\n', &buffer[searched..end]) {
            let stop = searched + length;
            let line = match passed {
                0 => InputLine::Whole(&buffer[start..stop]),
                passed => InputLine::TooLong(passed + (stop - start) as u64),
            };
            if !take(line, byte) {
                return Ok(());
            }
            byte += passed + (stop + 1 - start) as u64;
            (start, searched, passed) = (stop + 1, stop + 1, 0);
        }
        if end - start > limit_bytes || passed > 0 {
            passed += (end - start) as u64;
            end = start;
        }
        buffer.copy_within(start..end, 0);
        (end, start) = (end - start, 0);
        searched = end;
        if end == buffer.len() {
            let length = (2 * buffer.len()).min(limit_bytes + 1);
            buffer.resize(length, 0);
        }
        let read = loop {
            match from.read(&mut buffer[end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            break;
        }
        end += read;
    }
    if passed > 0 {
        take(InputLine::TooLong(passed), byte);
    } else if end > 0 {
        take(InputLine::Tail(&buffer[..end]), byte);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a few bytes at a time.
    struct TrickleReader<'a>(&'a [u8], usize);

    impl Read for TrickleReader<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(into.len()).min(self.0.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn lines(text: &str, limit: usize, drip: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let drip = TrickleReader(text.as_bytes(), drip);
        each_line(drip, limit, |line, byte| {
            let line = match line {
                InputLine::Whole(text) => format!("{byte} {}", String::from_utf8_lossy(text)),
                InputLine::Tail(text) => format!("{byte} {}…", String::from_utf8_lossy(text)),
                InputLine::TooLong(bytes) => format!("{byte} {bytes} bytes"),
            };
            lines.push(line);
            true
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_come_whole_with_their_places() {
        for drip in [1, 2, 3, 100] {
            assert_eq!(
                lines("ab\n\ncde\nf", 10, drip),
                ["0 ab", "3 ", "4 cde", "8 f…"]
            );
            assert_eq!(lines("ab\n", 10, drip), ["0 ab"]);
            assert_eq!(lines("", 10, drip), [""; 0]);
        }
    }

    #[test]
    fn a_line_above_the_limit_is_passed_over() {
        for drip in [1, 2, 5, 100] {
            let found = lines("ab\n12345678\ncd\n1234", 4, drip);
            assert_eq!(found, ["0 ab", "3 8 bytes", "12 cd", "15 1234…"], "{drip}");
            assert_eq!(lines("123456", 4, drip), ["0 6 bytes"]);
        }
    }

    #[test]
    fn long_lines_grow_the_buffer() {
        let long = "x".repeat(3 * CHUNK_BYTES);
        let text = format!("a\n{long}\nb\n");
        let found = lines(&text, 1 << 30, 4096);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].len(), long.len() + 2);
        assert_eq!(found[2], format!("{} b", long.len() + 3));
    }
}
