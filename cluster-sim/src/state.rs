//! The state of a real cluster, as `quarry admin export-state` writes it and `quarry-sim what-if` reads it.
//!
//! One JSON document. Version 1:
//!
//! | key | holds |
//! |---|---|
//! | `format` | `"quarry-state"` |
//! | `version` | `1` |
//! | `cluster` | the cluster's id |
//! | `settings` | what differs from the defaults: name → text, as `quarry settings` shows it |
//! | `servers` | every server that is not decommissioned: `id`, `rack`, `address`, `wish`, `health`, `disks` |
//! | `servers[].disks` | `path`, `capacity_bytes`, `used_bytes`, `failed`, `slow` |
//! | `chunks` | every sealed chunk that is not doomed, ascending by id: `id`, `bytes`, `wanted`, `on`, and `bad` if any is |
//! | `chunks[].on` | the holders of a replica, good or bad, by their place in `servers`, from 0 |
//! | `chunks[].bad` | those of them whose replica is in quarantine or not what the record says |
//!
//! `wish` is a word of `quarry status`: `active`, `draining`, `maintenance`; `health` is `alive`, `suspect`, `partitioned` or
//! `dead`. Unknown keys are refused: what a simulator does not know it would leave out of its answer. A key more is a new version.

mod load;

use std::collections::BTreeMap;

use quarry_types::{ClusterId, ServerId};
use serde::{Deserialize, Serialize};

pub use load::{Question, StateError};

/// What `format` says.
pub const FORMAT: &str = "quarry-state";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;

/// The state of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Whose state it is.
    pub cluster: ClusterId,
    /// What differs from the defaults, as `quarry settings` shows it.
    pub settings: BTreeMap<String, String>,
    /// Every server that is not decommissioned.
    pub servers: Vec<ServerState>,
    /// Every sealed chunk, ascending by id.
    pub chunks: Vec<ChunkState>,
}

/// A chunkserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    /// Its id.
    pub id: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// Where its data port is.
    pub address: String,
    /// What an operator wants of it.
    pub wish: WishWord,
    /// What the leader believes of it.
    pub health: HealthWord,
    /// Its disks.
    pub disks: Vec<DiskState>,
}

/// What an operator wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WishWord {
    /// It takes part.
    Active,
    /// It is emptied.
    Draining,
    /// It may be away.
    Maintenance,
}

/// What the leader believes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthWord {
    /// Beats come.
    Alive,
    /// Beats are missing.
    Suspect,
    /// Only its peers reach it.
    Partitioned,
    /// Counted as lost.
    Dead,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskState {
    /// Its directory.
    pub path: String,
    /// Bytes that it may hold.
    pub capacity_bytes: u64,
    /// Bytes of chunks on it.
    pub used_bytes: u64,
    /// It is out of service.
    pub failed: bool,
    /// It is slow.
    pub slow: bool,
}

/// A sealed chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkState {
    /// Its id.
    pub id: u64,
    /// Its length.
    pub bytes: u64,
    /// Wanted replicas.
    pub wanted: u32,
    /// Holders, by their place in [`State::servers`].
    pub on: Vec<u16>,
    /// Those of them whose replica is of no use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<u16>,
}

impl State {
    /// A state of this version.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let (settings, servers, chunks) = (BTreeMap::new(), Vec::new(), Vec::new());
        State { format: FORMAT.into(), version: VERSION, cluster, settings, servers, chunks }
    }
}

#[cfg(test)]
mod tests;
