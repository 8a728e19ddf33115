//! Byte streams between machines.

use std::{io, net::SocketAddr, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connected, ordered byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The other end, for logs.
    fn peer(&self) -> SocketAddr;
}

/// A boxed [`Stream`].
pub type BoxStream = Box<dyn Stream>;

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
}
