//! What can go wrong with the group, and what it is on the wire.

use std::{io, path::Path};

use quarry_env::{KvError, blocking::JobLost};
use quarry_master_core::{feature::UnknownLevel, tables::TableError};
use quarry_proto::WireError;
use quarry_types::ErrorCode;

/// The group could not be created, opened or kept running.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Creating is refused where something is already.
    #[error(
        "{path} is not empty: a group is created once, in an empty directory. To start the one that is there use \
         `quarry-master run`; to start over, remove the directory first"
    )]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// Nothing was created here, or its creation was interrupted. Such a directory never votes (S11).
    #[error(
        "{path} holds no Raft group, or its creation was interrupted before anything was acknowledged: remove it and \
         run again what made it: `quarry-master join` for one more of a group, `quarry-master init` for a new cluster"
    )]
    NoGroup {
        /// The directory.
        path: String,
    },
    /// Written by a newer program.
    #[error("{path} has format {found}, this program reads up to {known}: start it with a newer quarry-master")]
    Newer {
        /// What has the format.
        path: String,
        /// The format found.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
    /// The state is of a feature level that this build does not know.
    #[error("{path}: {unknown}")]
    Level {
        /// What holds it.
        path: String,
        /// Which, and what is known here.
        unknown: UnknownLevel,
    },
    /// What is stored cannot be right.
    #[error("{path}: {message}. {REPLACE}")]
    Corrupt {
        /// Where.
        path: String,
        /// What.
        message: String,
    },
    /// A store is damaged.
    #[error("{0}. {REPLACE}")]
    Damaged(KvError),
    /// A store failed.
    #[error(transparent)]
    Kv(KvError),
    /// A row of the replicated state cannot be read.
    #[error("replicated state: {0}")]
    Table(#[from] TableError),
    /// A file could not be read or written.
    #[error("{path}: {source}; check the disk and the permissions")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The process is shutting down.
    #[error(transparent)]
    Stopping(#[from] JobLost),
    /// Raft stopped or refused.
    #[error("Raft group: {0}; see the log above")]
    Raft(String),
}

/// What to do with a master whose files cannot be trusted any more.
pub(crate) const REPLACE: &str = "Do not start it again on these files, and keep a copy of them. Where other masters are \
     left, replace it: `quarry masters remove` it there, empty its data directory, `quarry-master join`, run it, `quarry \
     masters add` it. Where it was the only one: `quarry-master restore` from a backup";

impl From<KvError> for GroupError {
    fn from(from: KvError) -> Self {
        match from {
            damaged @ KvError::Damaged { .. } => GroupError::Damaged(damaged),
            other => GroupError::Kv(other),
        }
    }
}

impl GroupError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        GroupError::Io { path: path.display().to_string(), source }
    }

    pub(crate) fn corrupt(path: &Path, message: impl Into<String>) -> Self {
        GroupError::Corrupt { path: path.display().to_string(), message: message.into() }
    }
}

impl From<GroupError> for io::Error {
    fn from(from: GroupError) -> Self {
        match from {
            GroupError::Io { source, .. } => source,
            other => io::Error::other(other),
        }
    }
}

/// A command was not applied, or it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another master leads; nothing was done.
    #[error("this master does not lead the group{}", leader.as_deref().map(|l| format!(": ask {l}")).unwrap_or_default())]
    NotLeader {
        /// Where the leader is, when known.
        leader: Option<String>,
    },
    /// No majority, stopping, or failed. Whether the command took effect is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// The disk of this master has too little room left; nothing was done.
    #[error("{0}")]
    Full(String),
}

impl From<ProposeError> for WireError {
    fn from(from: ProposeError) -> Self {
        let message = from.to_string();
        match from {
            ProposeError::NotLeader { leader } => WireError { leader, ..WireError::new(ErrorCode::NotLeader, message) },
            ProposeError::Unavailable(_) => WireError::new(ErrorCode::Unavailable, message),
            ProposeError::Full(_) => WireError::new(ErrorCode::NoSpace, message),
        }
    }
}
