//! What a tool printed, bounded.

use std::collections::VecDeque;

/// How much of the beginning and how much of the end is kept.
const HALF_BYTES: usize = 32 << 10;

/// The beginning and the end of an output.
#[derive(Debug, Default)]
pub(crate) struct OutputCapture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped_bytes: usize,
}

impl OutputCapture {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = HALF_BYTES - self.head.len();
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(HALF_BYTES);
        self.tail.drain(..excess);
        self.dropped_bytes += excess;
    }

    /// The text, with a note where something was left out.
    pub(crate) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped_bytes == 0 {
            return String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned();
        }
        format!(
            "{}\n[{} bytes left out]\n{}",
            String::from_utf8_lossy(&self.head),
            self.dropped_bytes,
            String::from_utf8_lossy(&tail)
        )
    }
}

/// Cuts a stream of bytes into texts without splitting a character.
#[derive(Debug, Default)]
pub(crate) struct Utf8Pieces {
    rest: Vec<u8>,
}

impl Utf8Pieces {
    /// The text up to the last whole character; bytes that are no UTF-8 become replacement
    /// characters.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let keep = incomplete_suffix(&self.rest);
        let whole = self.rest.len() - keep;
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        self.rest.drain(..whole);
        text
    }
}

/// How many bytes at the end may become a character when more bytes come.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for at in (from..bytes.len()).rev() {
        let needed = match bytes[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        let have = bytes.len() - at;
        return if have < needed { have } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_keeps_both_ends() {
        let mut capture = OutputCapture::default();
        for n in 0..100_000 {
            capture.push(format!("{n}\n").as_bytes());
        }
        let text = capture.text();
        assert!(text.starts_with("0\n1\n") && text.ends_with("99999\n"));
        assert!(text.contains("bytes left out") && text.len() < 2 * HALF_BYTES + 100);
    }

    #[test]
    fn pieces_join_to_the_text_wherever_they_are_cut() {
        let text = "aé€😀z".as_bytes();
        for cut in 0..=text.len() {
            let mut pieces = Utf8Pieces::default();
            let joined = pieces.push(&text[..cut]) + &pieces.push(&text[cut..]);
            assert_eq!(joined.as_bytes(), text, "cut at {cut}");
        }
        assert_eq!(Utf8Pieces::default().push(b"a\xFFb"), "a\u{FFFD}b");
    }
}
