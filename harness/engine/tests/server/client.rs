//! A client on the bare socket: it sees every byte, and sends what no HTTP library would.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Upper bound of every wait: reached only if the server hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Whole,
    /// The connection was closed before.
    Closed,
    /// The connection was reset before.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Bytes of the current chunk that are still to come, with the line break behind them.
    Chunked {
        left: usize,
    },
    Length {
        left: usize,
    },
    UntilClose,
    Over,
}

/// The status line and headers of a response.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection with at most one response under way.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    /// What was read and is not yet taken apart.
    raw: Vec<u8>,
    framing: Framing,
    /// The response's body so far, without its framing.
    pub body: Vec<u8>,
    /// Set when the connection ended.
    gone: Option<End>,
}

/// The bytes of a request with a JSON body.
pub fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A wait with the bound of all waits.
pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// A client on an existing connection.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            raw: Vec::new(),
            framing: Framing::Over,
            body: Vec::new(),
            gone: None,
        }
    }

    /// Connects and sends a request.
    pub async fn ask(address: SocketAddr, path: &str, body: &Value) -> Self {
        let mut client = Self::connect(address).await;
        client.send(&post(path, body)).await;
        client
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        soon("the server to take bytes", self.stream.write_all(bytes))
            .await
            .unwrap();
    }

    /// Reads the next response's head. Fails with what was read if the connection ends before.
    pub async fn try_head(&mut self) -> Result<Head, (End, Vec<u8>)> {
        self.body.clear();
        loop {
            if let Some(at) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8(self.raw.drain(..at + 4).collect()).unwrap();
                let head = parse_head(&text);
                self.framing = framing(&head);
                return Ok(head);
            }
            self.read_more().await;
            if let Some(end) = self.gone {
                return Err((end, std::mem::take(&mut self.raw)));
            }
        }
    }

    /// Reads the next response's head.
    pub async fn head(&mut self) -> Head {
        self.try_head()
            .await
            .expect("the connection ended before a response came")
    }

    /// Reads until so many bytes of the body are there.
    pub async fn read_body(&mut self, bytes: usize) {
        self.take_apart();
        while self.body.len() < bytes {
            assert_eq!(
                self.gone,
                None,
                "after {} of {bytes} bytes",
                self.body.len()
            );
            assert_ne!(
                self.framing,
                Framing::Over,
                "after {} of {bytes} bytes",
                self.body.len()
            );
            self.read_more().await;
            self.take_apart();
        }
    }

    /// Reads the body to its end.
    pub async fn finish(&mut self) -> End {
        loop {
            self.take_apart();
            match (self.framing, self.gone) {
                (Framing::Over, _) | (Framing::UntilClose, Some(End::Closed)) => return End::Whole,
                (_, Some(end)) => return end,
                _ => self.read_more().await,
            }
        }
    }

    /// Reads a whole response whose body is JSON.
    pub async fn json(&mut self) -> (Head, Value) {
        let head = self.head().await;
        assert_eq!(self.finish().await, End::Whole);
        (
            head,
            serde_json::from_slice(&self.body).expect("a JSON body"),
        )
    }

    /// Waits for the end of the connection and gives what came before it.
    pub async fn until_closed(&mut self) -> (End, Vec<u8>) {
        loop {
            if let Some(end) = self.gone {
                return (end, std::mem::take(&mut self.raw));
            }
            self.read_more().await;
        }
    }

    /// Whether nothing more of the body can be read just now, and the connection stands.
    ///
    /// It asks the kernel itself, because the runtime may not have looked at the socket for a while.
    pub fn is_silent(&mut self) -> bool {
        let before = self.body.len();
        let socket = self.stream.as_fd().try_clone_to_owned().unwrap();
        let mut socket = std::net::TcpStream::from(socket);
        let mut buffer = [0; 4 << 10];
        let open = loop {
            match socket.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.raw.extend_from_slice(&buffer[..count]),
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.take_apart();
        open && self.body.len() == before
    }

    /// Whether no byte has come since what was last taken.
    pub fn has_nothing(&mut self) -> bool {
        self.is_silent() && self.raw.is_empty()
    }

    async fn read_more(&mut self) {
        let mut buffer = [0; 16 << 10];
        match soon("bytes from the server", self.stream.read(&mut buffer)).await {
            Ok(0) => self.gone = Some(End::Closed),
            Ok(count) => self.raw.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.gone = Some(End::Reset)
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Moves what belongs to the body from `raw` to `body`.
    fn take_apart(&mut self) {
        loop {
            match &mut self.framing {
                Framing::Over => return,
                Framing::UntilClose => return self.body.append(&mut self.raw),
                Framing::Length { left } => {
                    let count = self.raw.len().min(*left);
                    self.body.extend(self.raw.drain(..count));
                    *left -= count;
                    if *left > 0 {
                        return;
                    }
                    self.framing = Framing::Over;
                }
                Framing::Chunked { left: 0 } => {
                    let Some(at) = self.raw.windows(2).position(|two| two == b"\r\n") else {
                        return;
                    };
                    let size = std::str::from_utf8(&self.raw[..at]).unwrap();
                    let size = usize::from_str_radix(size, 16).expect("a chunk's size");
                    if size == 0 {
                        // No trailers are ever sent, so one blank line follows.
                        if self.raw.len() < at + 4 {
                            return;
                        }
                        assert_eq!(&self.raw[at..at + 4], b"\r\n\r\n");
                        self.raw.drain(..at + 4);
                        self.framing = Framing::Over;
                    } else {
                        self.raw.drain(..at + 2);
                        self.framing = Framing::Chunked { left: size + 2 };
                    }
                }
                Framing::Chunked { left } => {
                    let of_body = self.raw.len().min(left.saturating_sub(2));
                    self.body.extend(self.raw.drain(..of_body));
                    *left -= of_body;
                    let of_break = if *left <= 2 {
                        self.raw.len().min(*left)
                    } else {
                        0
                    };
                    self.raw.drain(..of_break);
                    *left -= of_break;
                    if *left > 0 {
                        return;
                    }
                }
            }
        }
    }
}

fn parse_head(text: &str) -> Head {
    let mut lines = text.trim_end().split("\r\n");
    let mut status_line = lines.next().unwrap().split(' ');
    let version = status_line.next().unwrap().to_owned();
    let status = status_line.next().unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Head {
        version,
        status,
        headers: lines.map(header).collect(),
    }
}

fn framing(head: &Head) -> Framing {
    if head.status == 100 {
        return Framing::Over;
    }
    match (
        head.header("transfer-encoding"),
        head.header("content-length"),
    ) {
        (Some("chunked"), _) => Framing::Chunked { left: 0 },
        (_, Some(length)) => Framing::Length {
            left: length.parse().unwrap(),
        },
        _ => Framing::UntilClose,
    }
}
