//! Why the store refuses or fails.

use std::{io, path::Path};

use quarry_env::{KvError, blocking::JobLost};
use quarry_proto::WireError;
use quarry_types::{ChunkId, ErrorCode};

/// Why the store refused or failed: a code for programs, and what failed, where, and what to do for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    code: ErrorCode,
    message: String,
}

impl StoreError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        StoreError { code, message: message.into() }
    }

    /// What the caller should do about it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    pub(crate) fn no_replica(chunk: ChunkId) -> Self {
        Self::new(ErrorCode::NoReplica, format!("chunk {chunk}: this server has no replica of it; ask another member"))
    }

    pub(crate) fn fenced(chunk: ChunkId, why: &str) -> Self {
        Self::new(
            ErrorCode::Fenced,
            format!("chunk {chunk} takes no further bytes here: {why}; ask the master for a new chunk"),
        )
    }

    /// An I/O error at `path`. A full disk is told apart: nothing is broken, there is only no room.
    pub(crate) fn io(path: &Path, doing: &str, error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::new(
                ErrorCode::NoSpace,
                format!("{doing} {}: no space left; free some room on that file system", path.display()),
            );
        }
        Self::new(ErrorCode::DiskFailed, format!("{doing} {}: {error}; check that disk", path.display()))
    }
}

impl From<KvError> for StoreError {
    fn from(from: KvError) -> Self {
        let code = match from {
            KvError::Full { .. } => ErrorCode::NoSpace,
            KvError::Failed { .. } | KvError::Damaged { .. } | KvError::Absent => ErrorCode::DiskFailed,
        };
        StoreError::new(code, from.to_string())
    }
}

impl From<JobLost> for StoreError {
    fn from(from: JobLost) -> Self {
        StoreError::new(ErrorCode::Unavailable, from.to_string())
    }
}

impl From<StoreError> for WireError {
    fn from(from: StoreError) -> Self {
        WireError::new(from.code, from.message)
    }
}
