//! Taking a content encoding back, chunk by chunk, so that what comes out keeps its time.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

/// How much is taken from a decoder at once.
const PIECE_BYTES: usize = 16 << 10;

/// A body's pieces, each with when it came.
pub(super) type TimedChunks = Vec<(Duration, Vec<u8>)>;

/// The body without its content encodings, no more of it than `limit_bytes`; and what went wrong.
pub(super) fn decode(
    encodings: &str,
    chunks: &[(Duration, Bytes)],
    limit_bytes: usize,
) -> (TimedChunks, Option<String>) {
    let mut pieces: TimedChunks = chunks
        .iter()
        .map(|(time, bytes)| (*time, bytes.to_vec()))
        .collect();
    // The encoding that was applied last is named last.
    for encoding in encodings.split(',').rev().map(str::trim) {
        let source = ChunkReader::new(pieces);
        let time = source.time.clone();
        let reader = match reader(encoding, source) {
            Ok(reader) => reader,
            Err((source, problem)) => return (source.left, Some(problem)),
        };
        let problem;
        (pieces, problem) = read(reader, &time, limit_bytes);
        if problem.is_some() {
            return (pieces, problem);
        }
    }
    (pieces, None)
}

/// The encodings that [`decode`] knows.
fn reader(encoding: &str, mut source: ChunkReader) -> Result<Box<dyn Read>, (ChunkReader, String)> {
    Ok(match encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => Box::new(source),
        "gzip" | "x-gzip" => Box::new(MultiGzDecoder::new(source)),
        // Some servers send the bare format, though the name means the one with a header.
        "deflate" if source.first() & 0x0F == 8 => Box::new(ZlibDecoder::new(source)),
        "deflate" => Box::new(DeflateDecoder::new(source)),
        "br" => Box::new(brotli_decompressor::Decompressor::new(source, 4096)),
        "zstd" if source.first() == 0 && source.left.is_empty() => Box::new(source),
        "zstd" => match StreamingDecoder::new(source) {
            Ok(decoder) => Box::new(decoder),
            Err(error) => {
                let problem = format!("its zstd frame cannot be read: {error}");
                return Err((ChunkReader::new(Vec::new()), problem));
            }
        },
        unknown => {
            let problem = format!("its content-encoding `{unknown}` is not known");
            return Err((source, problem));
        }
    })
}

fn read(
    mut reader: Box<dyn Read>,
    time: &Cell<Duration>,
    limit_bytes: usize,
) -> (TimedChunks, Option<String>) {
    let mut pieces = TimedChunks::new();
    let mut total = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (pieces, None),
            Ok(length) => {
                total += length;
                if total > limit_bytes {
                    return (
                        pieces,
                        Some(format!("it unpacks to more than {limit_bytes} bytes")),
                    );
                }
                pieces.push((time.get(), buffer[..length].to_vec()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A body that was cut off ends like this as well; the recording says so already.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return (pieces, None),
            Err(error) => return (pieces, Some(format!("it cannot be unpacked: {error}"))),
        }
    }
}

/// Hands out one chunk at a time, with the time of the last one.
struct ChunkReader {
    left: TimedChunks,
    next: usize,
    current: Bytes,
    time: Rc<Cell<Duration>>,
}

impl ChunkReader {
    fn new(pieces: TimedChunks) -> Self {
        Self {
            left: pieces,
            next: 0,
            current: Bytes::new(),
            time: Rc::default(),
        }
    }

    fn first(&mut self) -> u8 {
        let mut bytes = self.left.iter().flat_map(|(_, bytes)| bytes);
        bytes.next().copied().unwrap_or_default()
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some((time, bytes)) = self.left.get_mut(self.next) else {
                return Ok(0);
            };
            self.next += 1;
            self.time.set(*time);
            self.current = std::mem::take(bytes).into();
        }
        let length = into.len().min(self.current.len());
        self.current
            .split_to(length)
            .copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use std::io::Write as _;

    /// Packs each word so that it can be unpacked as soon as it has come.
    fn gzip(words: &[&str]) -> Vec<(Duration, Bytes)> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut chunks = Vec::new();
        for (at, word) in words.iter().enumerate() {
            packer.write_all(word.as_bytes()).unwrap();
            packer.flush().unwrap();
            let time = Duration::from_millis(at as u64);
            chunks.push((time, std::mem::take(packer.get_mut()).into()));
        }
        chunks.push((Duration::from_secs(1), packer.finish().unwrap().into()));
        chunks
    }

    #[test]
    fn what_is_unpacked_keeps_its_time() {
        let (pieces, problem) = decode("gzip", &gzip(&["one", "two", "three"]), 100);
        assert_eq!(problem, None);
        let expected = ["one", "two", "three"].iter().enumerate();
        let expected: TimedChunks = expected
            .map(|(at, word)| (Duration::from_millis(at as u64), word.as_bytes().to_vec()))
            .collect();
        assert_eq!(pieces, expected);
    }

    #[test]
    fn what_was_cut_off_is_unpacked_as_far_as_it_goes() {
        let mut chunks = gzip(&["one", "two"]);
        chunks.truncate(1);
        let (pieces, problem) = decode("gzip", &chunks, 100);
        assert_eq!((pieces.len(), problem), (1, None));
    }

    #[test]
    fn a_bomb_is_refused_and_what_is_unknown_is_told() {
        let zeros = "0".repeat(1 << 20);
        let (pieces, problem) = decode("gzip", &gzip(&[&zeros]), 1 << 16);
        assert!(problem.unwrap().contains("more than 65536 bytes"));
        assert!(pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 1 << 16);
        let chunks = [(Duration::ZERO, Bytes::from_static(b"x"))];
        let (pieces, problem) = decode("rot13", &chunks, 100);
        assert_eq!(pieces, [(Duration::ZERO, b"x".to_vec())]);
        assert!(problem.unwrap().contains("`rot13` is not known"));
    }

    #[test]
    fn other_encodings_are_unpacked() {
        let zlib = {
            let mut packer =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(b"hello").unwrap();
            packer.finish().unwrap()
        };
        let bare = {
            let mut packer =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(b"hello").unwrap();
            packer.finish().unwrap()
        };
        let zstd = ruzstd::encoding::compress_to_vec(
            &b"hello"[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        // `printf hello | brotli`, uncompressed meta-block.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03].to_vec();
        for (name, packed) in [
            ("deflate", zlib),
            ("deflate", bare),
            ("zstd", zstd),
            ("br", brotli),
        ] {
            let (pieces, problem) = decode(name, &[(Duration::ZERO, packed.into())], 100);
            assert_eq!(problem, None, "{name}");
            assert_eq!(pieces.concat_bytes(), b"hello", "{name}");
        }
    }

    trait Concat {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl Concat for TimedChunks {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
        }
    }
}
