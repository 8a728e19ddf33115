//! What a call of this crate can fail with.

use std::{fmt, io};

use quarry_proto::WireError;
use quarry_types::{Advice, ErrorCode};

use crate::frames::ConnError;

/// A failed operation: which of the error table, what was being done, what happened, and what may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    code: ErrorCode,
    doing: String,
    message: String,
}

impl ClientError {
    /// An error with `message`, while `doing` (for example `opening /a`; may be empty).
    pub fn new(code: ErrorCode, doing: impl Into<String>, message: impl Into<String>) -> Self {
        ClientError { code, doing: doing.into(), message: message.into() }
    }

    /// An error of the wire while `doing`.
    pub(crate) fn from_wire(doing: &str, error: WireError) -> Self {
        ClientError::new(error.code, doing, error.message)
    }

    /// Which of the error table.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What happened, without what was being done and without the remedy.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the caller may do about errors of this kind, or an empty string.
    ///
    /// ```
    /// use quarry_client::{ClientError, ErrorCode};
    ///
    /// let error = ClientError::new(ErrorCode::LeaseLost, "writing /a", "lease l7 has ended");
    /// assert_eq!(error.code(), ErrorCode::LeaseLost);
    /// assert_eq!(error.remedy(), "write the file again");
    /// assert_eq!(error.to_string(), "writing /a: lease l7 has ended; write the file again");
    /// ```
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.code {
            ErrorCode::LeaseLost => "write the file again",
            ErrorCode::OutcomeUnknown => "look whether it took effect before doing it again",
            ErrorCode::DeadlineExceeded | ErrorCode::Unavailable => {
                "check that the servers run and that their addresses are right"
            }
            ErrorCode::NotEnoughServers => "start more chunkservers or ask for fewer replicas",
            ErrorCode::UnderReplicated => "check the chunkservers' state with `quarry status`, then try again",
            ErrorCode::NoSpace => "free space or add chunkservers",
            ErrorCode::LeaseHeld => "wait for the other writer to finish",
            ErrorCode::VersionMismatch => "run the same release on both sides",
            ErrorCode::Busy => "try again later",
            _ => "",
        }
    }

    /// What the error table advises.
    #[must_use]
    pub fn advice(&self) -> Advice {
        self.code.advice()
    }

    /// The same error with `doing` in front, where it does not say yet what was being done.
    pub(crate) fn while_doing(mut self, doing: impl FnOnce() -> String) -> Self {
        if self.doing.is_empty() {
            self.doing = doing();
        }
        self
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.doing.is_empty() {
            write!(f, "{}: ", self.doing)?;
        }
        f.write_str(&self.message)?;
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<WireError> for ClientError {
    fn from(from: WireError) -> Self {
        ClientError::new(from.code, "", from.message)
    }
}

impl From<ConnError> for ClientError {
    fn from(from: ConnError) -> Self {
        WireError::from(from).into()
    }
}

impl From<ClientError> for io::Error {
    fn from(from: ClientError) -> Self {
        let kind = match from.code {
            ErrorCode::NotFound => io::ErrorKind::NotFound,
            ErrorCode::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorCode::InvalidArgument => io::ErrorKind::InvalidInput,
            ErrorCode::DeadlineExceeded => io::ErrorKind::TimedOut,
            ErrorCode::NoSpace => io::ErrorKind::StorageFull,
            ErrorCode::Corrupt => io::ErrorKind::InvalidData,
            ErrorCode::IsADirectory => io::ErrorKind::IsADirectory,
            ErrorCode::NotADirectory => io::ErrorKind::NotADirectory,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, from)
    }
}
