//! RocksDB's errors as ours.

use std::path::Path;

use quarry_env::KvError;
use rocksdb::{Error, ErrorKind};

/// The system's texts for EIO, EUCLEAN, EBADMSG and ENOENT.
const LOST: [&str; 4] = ["Input/output error", "Structure needs cleaning", "Bad message", "No such file or directory"];

/// What `error` of the store at `path` means.
pub(crate) fn kv_error(path: &Path, error: &Error) -> KvError {
    classify(path, error.kind(), error.as_ref())
}

/// The binding does not pass RocksDB's subcode on, so a full disk is told by the system's fixed text.
pub(crate) fn classify(path: &Path, kind: ErrorKind, message: &str) -> KvError {
    let full = ["No space left on device", "Disk quota exceeded", "Max allowed space was reached"];
    if kind == ErrorKind::IOError && full.iter().any(|text| message.contains(text)) {
        return KvError::Full { path: path.display().to_string() };
    }
    if kind == ErrorKind::Corruption {
        return KvError::Damaged { path: path.display().to_string(), message: message.into() };
    }
    failed(path, message)
}

/// The same of a read of a value that is kept apart: what the medium does not give back is as good as damaged, and others may
/// be good.
pub(crate) fn read_error(path: &Path, error: &Error) -> KvError {
    classify_read(path, error.kind(), error.as_ref())
}

pub(crate) fn classify_read(path: &Path, kind: ErrorKind, message: &str) -> KvError {
    let lost = kind == ErrorKind::IOError && LOST.iter().any(|text| message.contains(text));
    let kind = if lost { ErrorKind::Corruption } else { kind };
    classify(path, kind, message)
}

/// A failure with words of our own.
pub(crate) fn failed(path: &Path, message: impl Into<String>) -> KvError {
    KvError::Failed { path: path.display().to_string(), message: message.into() }
}
