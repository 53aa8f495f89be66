//! A client that disturbs its server as little as it can: one connection, no parsing, and it never
//! sleeps. One that does has to be woken for every event, at the cost of whoever sends it, and how
//! much that is depends on the cores that the two happen to run on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What ends a chunked body.
pub const END: &[u8] = b"\r\n0\r\n\r\n";
/// Stands in a request where its number is written.
pub const NUMBER: &str = "########";

/// How much of a response is read at once, at most.
pub const BUFFER_BYTES: usize = 256 << 10;

/// A connection that is used again and again.
pub struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    /// The place in the request where its number is written, if it has one.
    number_at: Option<usize>,
    buffer: Vec<u8>,
    /// The bytes of the last response's body, with its framing.
    pub received: usize,
}

impl Client {
    /// Connects; `request` is what each stream is asked for with.
    pub fn connect(address: SocketAddr, request: String) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_nonblocking(true).expect("a socket option");
        Self {
            stream,
            number_at: request.find(NUMBER),
            request: request.into_bytes(),
            buffer: vec![0; BUFFER_BYTES],
            received: 0,
        }
    }

    /// Asks for one stream and reads all of it; gives the time to the first bytes of its body.
    pub fn stream(&mut self) -> Duration {
        self.stream
            .write_all(&self.request)
            .expect("the server reads");
        self.read()
    }

    /// The same, with a number in the request's text.
    pub fn stream_numbered(&mut self, number: usize) {
        let at = self
            .number_at
            .expect("a request with a place for its number");
        // In place: a copy of a large request would count as memory of the server's process.
        self.request[at..at + NUMBER.len()].copy_from_slice(format!("{number:08}").as_bytes());
        self.stream();
    }

    fn read(&mut self) -> Duration {
        let asked = Instant::now();
        let (mut filled, mut body, mut first) = (0, None, None);
        loop {
            let count = match self.stream.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::hint::spin_loop();
                    continue;
                }
                read => read.expect("the server writes"),
            };
            assert_ne!(count, 0, "the server closed the connection");
            filled += count;
            let seen = &self.buffer[..filled];
            if body.is_none() {
                let at = seen.windows(4).position(|four| four == b"\r\n\r\n");
                body = at.map(|at| at + 4);
                assert!(
                    seen.starts_with(b"HTTP/1.1 200 "),
                    "{}",
                    String::from_utf8_lossy(seen)
                );
            }
            if body.is_some_and(|body| filled > body) {
                first.get_or_insert_with(|| asked.elapsed());
            }
            if seen.ends_with(END) {
                self.received = filled - body.unwrap_or(filled);
                return first.unwrap_or_default();
            }
        }
    }
}
