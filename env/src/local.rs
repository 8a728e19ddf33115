//! Messages between processes of one machine, with which open files can be passed.

use std::io;

use crate::{DiskFile, net::BoxFuture};

/// A message that came, and the file that came with it.
pub struct LocalMessage {
    /// The message; never empty.
    pub bytes: Vec<u8>,
    /// The first file that was passed with it; what else was passed is closed. It is a file, but whose is for the caller to find
    /// out: the other end can pass any that it may open.
    pub file: Option<Box<dyn DiskFile>>,
}

/// Two ends that send each other whole messages.
pub trait LocalStream: Send + Sync {
    /// Sends a message, and `file` with it. The other end gets the same open file: it may change how it is read (its flags,
    /// its position), so pass one that nobody else uses. Has no deadline of its own. Cancel-safe: it is sent, or not.
    ///
    /// # Errors
    /// `Unsupported` when `file` is none of the operating system's, otherwise as that reports.
    fn send<'a>(&'a self, bytes: &'a [u8], file: Option<&'a dyn DiskFile>) -> BoxFuture<'a, io::Result<()>>;

    /// The next message, or `None` when the other end has gone. Has no deadline of its own. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` when it is longer than `limit` bytes or what came with it is no file; otherwise as the operating system
    /// reports.
    fn receive(&self, limit: usize) -> BoxFuture<'_, io::Result<Option<LocalMessage>>>;
}

/// A boxed [`LocalStream`].
pub type BoxLocalStream = Box<dyn LocalStream>;

/// A bound path. Dropping it removes the name, if it is still its own.
pub trait LocalListener: Send + Sync {
    /// The next who connects. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<BoxLocalStream>>;
}

/// A boxed [`LocalListener`].
pub type BoxLocalListener = Box<dyn LocalListener>;

impl std::fmt::Debug for LocalMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalMessage")
            .field("bytes", &self.bytes.len())
            .field("file", &self.file.is_some())
            .finish_non_exhaustive()
    }
}
