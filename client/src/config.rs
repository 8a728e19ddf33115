//! What a client is told when it connects and when it creates a file.

use std::time::Duration;

use quarry_types::{ErrorCode, InodeId, limits};

use crate::ClientError;

/// How a client finds its cluster and how patient it is.
///
/// ```
/// use quarry_client::ClientConfig;
///
/// let config = ClientConfig { request_id: "nightly-backup".into(), ..ClientConfig::new(["10.0.0.1:9400"]) };
/// assert_eq!(config.masters, ["10.0.0.1:9400"]);
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The masters as `HOST:PORT`; one that answers is enough, it names the leader.
    pub masters: Vec<String>,
    /// An operation gives up when nothing moves for this long.
    pub deadline: Duration,
    /// Goes with every call into the log lines of all servers. Visible ASCII; empty: a random one.
    pub request_id: String,
    /// A chunkserver that sends or takes nothing for this long counts as failed.
    pub stall: Duration,
    /// A reader asks a second replica when the first byte has not come after this long (at most; less where servers
    /// have been answering fast).
    pub hedge_after: Duration,
    /// Longest chunk a writer asks for, in bytes; at most [`limits::CHUNK_BYTES`].
    pub chunk_bytes: u64,
    /// Most connections to chunkservers.
    pub connections: usize,
    /// Read sealed chunks of chunkservers on the same machine from their files, where those give them out. Verified like
    /// everything else; what cannot be read so is read over the network.
    pub local_reads: bool,
}

impl ClientConfig {
    /// The defaults, with these masters.
    pub fn new<T: Into<String>>(masters: impl IntoIterator<Item = T>) -> Self {
        ClientConfig {
            masters: masters.into_iter().map(Into::into).collect(),
            deadline: limits::CLIENT_DEADLINE,
            request_id: String::new(),
            stall: Duration::from_secs(5),
            hedge_after: Duration::from_millis(500),
            chunk_bytes: limits::CHUNK_BYTES,
            connections: 64,
            local_reads: true,
        }
    }

    /// Whether the values make sense.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] names the first that does not.
    pub fn check(&self) -> Result<(), ClientError> {
        let bad =
            |message: String| Err(ClientError::new(ErrorCode::InvalidArgument, "configuring the client", message));
        if self.masters.is_empty() {
            return bad("no master is named; give at least one HOST:PORT".into());
        }
        for master in &self.masters {
            let port =
                master.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return bad(format!("{master:?} is not an address; write HOST:PORT"));
            }
        }
        if !self.request_id.bytes().all(|b| b.is_ascii_graphic()) || self.request_id.len() > 128 {
            return bad("the request id must be at most 128 visible ASCII characters".into());
        }
        if self.chunk_bytes == 0 || self.chunk_bytes > limits::CHUNK_BYTES {
            return bad(format!("chunk_bytes must be from 1 to {}", limits::CHUNK_BYTES));
        }
        if self.deadline.is_zero() || self.stall.is_zero() || self.connections < 2 {
            return bad("deadline and stall must be longer than zero, and connections at least 2".into());
        }
        Ok(())
    }
}

/// When a created file appears, and what may stand in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreateMode {
    /// Appears whole when it is finished, and replaces a file of that name then.
    #[default]
    Replace,
    /// Appears whole when it is finished; fails if the name is taken, at the start or then.
    FailIfPresent,
    /// Appears whole when it is finished and replaces exactly this version of this inode, or fails.
    IfUnchanged {
        /// The inode to be replaced.
        inode: InodeId,
        /// Its version.
        version: u64,
    },
    /// Appears at once, empty, and grows while it is written; fails if the name is taken.
    Visible,
}

impl CreateMode {
    /// Whether nothing shows before the file is finished.
    #[must_use]
    pub fn is_atomic(self) -> bool {
        self != CreateMode::Visible
    }
}

/// How to create a file. The default replaces atomically, with the cluster's number of replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// When it appears and what it may replace.
    pub mode: CreateMode,
    /// Wanted replicas of each chunk; 0: what its directory says, or the cluster's default.
    pub replicas: u32,
    /// Make missing parent directories.
    pub parents: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(ClientConfig::new(["a:1", "[::1]:9400"]).check().is_ok());
        for masters in [vec![], vec!["a"], vec![":1"], vec!["a:x"], vec!["a:1", "b:70000"]] {
            let error = ClientConfig::new(masters).check().unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
        }
        assert!(ClientConfig { request_id: "a\nb".into(), ..ClientConfig::new(["a:1"]) }.check().is_err());
        assert!(ClientConfig { chunk_bytes: 65 << 20, ..ClientConfig::new(["a:1"]) }.check().is_err());
    }
}
