//! Errors of this crate, and the one place where they become errors of the wire.

use std::path::PathBuf;

use quarry_env::blocking::JobLost;
use quarry_master_core::query;
use quarry_proto::WireError;
use quarry_types::ErrorCode;

/// Why a master does not start.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// A file or directory could not be used.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory, the key or both are not what they must be.
    #[error("{0}")]
    Refused(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; pick another with {flag}")]
    Listen {
        /// Which one.
        address: String,
        /// What sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The group does not open.
    #[error("the master group in {path}: {message}")]
    Group {
        /// Where its files are.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The process is going down.
    #[error(transparent)]
    Lost(#[from] JobLost),
}

impl MasterError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> MasterError {
        let path = path.into();
        move |source| MasterError::File { what, path, source }
    }
}

/// An error of the wire, for the services.
pub(crate) type Fault = WireError;

pub(crate) fn fault(code: ErrorCode, message: impl Into<String>) -> Fault {
    WireError::new(code, message)
}

pub(crate) fn job_lost(lost: JobLost) -> Fault {
    fault(ErrorCode::Unavailable, lost.to_string())
}

pub(crate) fn query_fault(from: query::Fault) -> Fault {
    match from {
        query::Fault::Refused(refusal) => fault(refusal.code, refusal.message),
        query::Fault::Table(e) => fault(ErrorCode::Internal, format!("the master's state cannot be read: {e}")),
    }
}
