//! A connection whose end the server can choose: over TCP, or within this process.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// What a response can ask of the connection that carries it.
#[derive(Debug)]
pub struct ConnectionControl {
    reset: AtomicBool,
    ends: Option<Endpoints>,
    flushes: AtomicU64,
    flush_awaited: AtomicBool,
}

/// The two ends of a TCP connection, as the server sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The client's.
    pub client: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
}

impl ConnectionControl {
    /// The connection's ends, where it has any.
    pub fn ends(&self) -> Option<Endpoints> {
        self.ends
    }

    /// When the connection is dropped, the peer gets a RST and not a FIN.
    pub fn reset_on_drop(&self) {
        self.reset.store(true, Ordering::Release);
    }

    /// How often all that was handed to the connection had been written to its socket.
    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Has the task of the connection polled again once [`ConnectionControl::flushes`] has grown.
    pub(super) fn await_flush(&self) {
        self.flush_awaited.store(true, Ordering::Relaxed);
    }

    fn flushed(&self, context: &Context<'_>) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if self.flush_awaited.swap(false, Ordering::Relaxed) {
            context.waker().wake_by_ref();
        }
    }
}

/// What carries a connection's bytes.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Memory(DuplexStream),
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($stream:expr, $it:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($it) => $call,
            Stream::Memory($it) => $call,
        }
    };
}

/// A connection under [`ConnectionControl`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    control: Arc<ConnectionControl>,
}

impl Connection {
    /// Wraps an accepted connection. Small writes go out at once: a gate must not wait for Nagle.
    ///
    /// # Errors
    /// If the socket option can't be set.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let ends = Endpoints {
            client: stream.peer_addr()?,
            server: stream.local_addr()?,
        };
        Ok(Self::over(Stream::Tcp(stream), Some(ends)))
    }

    /// Wraps one end of a connection within this process. For a client, a reset looks like an orderly end.
    pub(super) fn in_memory(stream: DuplexStream) -> Self {
        Self::over(Stream::Memory(stream), None)
    }

    fn over(stream: Stream, ends: Option<Endpoints>) -> Self {
        let control = ConnectionControl {
            reset: AtomicBool::new(false),
            ends,
            flushes: AtomicU64::new(0),
            flush_awaited: AtomicBool::new(false),
        };
        Self {
            stream,
            control: Arc::new(control),
        }
    }

    /// The connection's control.
    pub(crate) fn control(&self) -> Arc<ConnectionControl> {
        self.control.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Stream::Tcp(stream) = &self.stream
            && self.control.reset.load(Ordering::Acquire)
        {
            // If it fails, the peer sees a FIN: still an end without a terminal event.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(&mut self.stream, it => Pin::new(it).poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, it => Pin::new(it).poll_write(context, buffer))
    }

    /// hyper flushes only when it has written its whole buffer, so this is where a response learns
    /// that its bytes are on their way, also where a slow client made that take a while.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(either!(&mut self.stream, it => Pin::new(it).poll_flush(context)))?;
        self.control.flushed(context);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, it => Pin::new(it).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.stream, it => it.is_write_vectored())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, it => Pin::new(it).poll_write_vectored(context, buffers))
    }
}
