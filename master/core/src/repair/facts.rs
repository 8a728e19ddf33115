//! A chunk and the cluster as the leader knows them.

use std::collections::BTreeSet;

use quarry_types::{ChunkId, Crc32, ServerId};
use serde::{Deserialize, Serialize};

use crate::{command::ServerWish, detector::Health, placement::Candidate};

/// What a replica is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quality {
    /// It is what the record says.
    Good,
    /// It may be good, but nothing of its server counts before it was verified (an old image).
    Doubted,
    /// It is not what the record says: too short, not yet cut, or not yet checked.
    Unfit,
    /// It failed a check.
    Quarantined,
}

/// One server's replica of a chunk, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub server: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// What the detector believes of it.
    pub health: Health,
    /// What an operator wants of it.
    pub wish: ServerWish,
    /// What the replica is worth.
    pub quality: Quality,
    /// It stands in a full report that was made after the server adopted this leader's epoch, and the server's stream goes on
    /// since (S7).
    pub reported: bool,
    /// It is to go elsewhere although its server stays (balancing).
    pub leaving: bool,
    /// A command to drop it was sent, and no later report says that it is still there (S7).
    pub dropping: bool,
}

impl Holder {
    /// Serves reads and copies now.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.quality == Quality::Good && !self.dropping && matches!(self.health, Health::Alive | Health::Partitioned)
    }

    /// Counts as remaining when another replica is dropped (S7).
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.quality == Quality::Good
            && self.reported
            && !self.dropping
            && self.health == Health::Alive
            && self.wish != ServerWish::Maintenance
    }

    /// Is to be somewhere else in the end.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.leaving || matches!(self.wish, ServerWish::Draining | ServerWish::Decommissioned)
    }
}

/// A sealed chunk and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkFacts {
    /// Which.
    pub chunk: ChunkId,
    /// Its sealed length in bytes.
    pub length: u64,
    /// Its sealed CRC.
    pub crc: Crc32,
    /// Wanted replicas.
    pub wanted: u32,
    /// So many more for a while, because it is read much.
    #[serde(default)]
    pub extra: u32,
    /// Where balancing wants the replica that is leaving.
    #[serde(default)]
    pub toward: Option<ServerId>,
    /// Who holds it, in server order.
    pub holders: Vec<Holder>,
}

/// Everything else that a decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The registered servers, in server order.
    pub candidates: Vec<Candidate>,
    /// Racks of all servers that are not decommissioned, dead ones included.
    pub racks: BTreeSet<String>,
    /// Why repair of chunks with two or more replicas holds, when it does.
    pub brake: Option<String>,
    /// Servers had time to report to this leader.
    pub ready: bool,
    /// Bytes that copies in the whole cluster may take now.
    pub budget: i64,
    /// A new lineage began, and no operator has let deletions go yet (S6).
    #[serde(default)]
    pub held: bool,
}

impl Cluster {
    /// A server was given so many bytes: the next decision counts them before its beat does.
    pub fn give(&mut self, server: ServerId, bytes: u64) {
        if let Ok(at) = self.candidates.binary_search_by_key(&server, |c| c.server)
            && let Some(candidate) = self.candidates.get_mut(at)
        {
            candidate.free_bytes = candidate.free_bytes.saturating_sub(bytes);
            candidate.available_bytes = candidate.available_bytes.saturating_sub(bytes);
        }
    }

    /// So many bytes are taken from a server.
    pub fn take(&mut self, server: ServerId, bytes: u64) {
        if let Ok(at) = self.candidates.binary_search_by_key(&server, |c| c.server)
            && let Some(candidate) = self.candidates.get_mut(at)
        {
            candidate.free_bytes = candidate.free_bytes.saturating_add(bytes).min(candidate.capacity_bytes);
        }
    }

    /// A registered server.
    #[must_use]
    pub fn candidate(&self, server: ServerId) -> Option<&Candidate> {
        let at = self.candidates.binary_search_by_key(&server, |c| c.server).ok()?;
        self.candidates.get(at)
    }
}
