//! Byte streams between machines.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::local::{BoxLocalListener, BoxLocalStream};

/// A connected, ordered byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The other end, for logs.
    fn peer(&self) -> SocketAddr;

    /// Whether the other end seems to be on this machine, which only a try can tell for sure. `false` where that is not
    /// known.
    fn same_machine(&self) -> bool {
        false
    }

    /// Says that whoever waits to read need not be woken before so many bytes are there, or the stream has ended. At least one; until
    /// it is said, and where it is not heeded, it is one.
    fn wake_reader_at(&self, bytes: usize) {
        let _every_byte_wakes = bytes;
    }
}

/// A boxed [`Stream`].
pub type BoxStream = Box<dyn Stream>;

/// The reading half of a stream.
pub struct ReadEnd(Arc<Mutex<BoxStream>>);

/// The writing half of a stream. What the other half is told of it ends only with both.
pub struct WriteEnd(Arc<Mutex<BoxStream>>);

/// Halves that can be used by two tasks. Each call holds the stream for as long as one system call takes.
#[must_use]
pub fn split(stream: BoxStream) -> (ReadEnd, WriteEnd) {
    let shared = Arc::new(Mutex::new(stream));
    (ReadEnd(Arc::clone(&shared)), WriteEnd(shared))
}

fn lock(shared: &Mutex<BoxStream>) -> MutexGuard<'_, BoxStream> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadEnd {
    /// As [`Stream::wake_reader_at`].
    pub fn wake_at(&self, bytes: usize) {
        lock(&self.0).wake_reader_at(bytes);
    }
}

impl AsyncRead for ReadEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A bound port.
pub trait Listener: Send + Sync {
    /// Where it listens, with the port the kernel picked when 0 was asked for.
    ///
    /// # Errors
    /// As the operating system reports.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<BoxStream>>;
}

/// The network as one process sees it.
pub trait Net: Send + Sync {
    /// Listens on `address` (`host:port`).
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Connects to `address` (`host:port`), resolving names. Has no deadline of its own: wrap it in
    /// [`crate::clock::timeout`]. Cancel-safe.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>>;

    /// Listens at `path` for processes of this machine, in the place of a socket that nobody listens at any more. Whoever
    /// reaches `path` may connect.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, `AlreadyExists` when something else has that name, `Unsupported` where there
    /// are no such sockets, and what the operating system reports.
    fn bind_local(&self, path: &Path) -> io::Result<BoxLocalListener> {
        Err(no_local(path))
    }

    /// Connects to who listens at `path` on this machine, at once.
    ///
    /// # Errors
    /// `Unsupported` where there are no such sockets, and what the operating system reports.
    fn connect_local(&self, path: &Path) -> io::Result<BoxLocalStream> {
        Err(no_local(path))
    }
}

fn no_local(path: &Path) -> io::Error {
    let message = format!("{}: there are no sockets within a machine here", path.display());
    io::Error::new(io::ErrorKind::Unsupported, message)
}
