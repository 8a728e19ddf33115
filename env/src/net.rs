//! Byte streams between machines.

use std::{io, net::SocketAddr, path::Path, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

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
