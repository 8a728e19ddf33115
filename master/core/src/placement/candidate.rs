//! A chunkserver as the leader knows it.

use quarry_types::ServerId;
use serde::{Deserialize, Serialize};

use crate::{command::ServerWish, detector::Health};

/// A chunkserver that could take a chunk, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub server: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// What the detector believes of it.
    pub health: Health,
    /// What an operator wants of it.
    pub wish: ServerWish,
    /// Why it should be given nothing new though it is alive (a slow or failing disk, a busy processor).
    pub sick: Option<String>,
    /// It has looked at its disks since it started; until then its room is unknown, not used up.
    pub disks_known: bool,
    /// Bytes of all its disks that work.
    pub capacity_bytes: u64,
    /// Bytes it can still take on one disk, its reserve kept.
    pub available_bytes: u64,
    /// Bytes it can still take on all disks.
    pub free_bytes: u64,
    /// Writes under way.
    pub active_writes: u32,
    /// Reads under way.
    pub active_reads: u32,
    /// Use of its processors, in percent.
    pub cpu_percent: u32,
    /// How long it takes to serve clients, in microseconds; 0: not known.
    pub latency_us: u64,
    /// It is on the writer's machine or in its rack.
    pub near: bool,
    /// Copies to it under way.
    pub copies_in: u32,
    /// Copies from it under way.
    pub copies_out: u32,
    /// Bytes that copies to it may take now; not positive: its budget is used up.
    pub budget_in: i64,
    /// Bytes that copies from it may take now.
    pub budget_out: i64,
}

impl Candidate {
    /// A server that is well and has nothing to do.
    #[must_use]
    pub fn idle(server: ServerId, rack: &str, capacity_bytes: u64, free_bytes: u64) -> Self {
        Candidate {
            server,
            rack: rack.into(),
            health: Health::Alive,
            wish: ServerWish::Active,
            sick: None,
            disks_known: true,
            capacity_bytes,
            available_bytes: free_bytes,
            free_bytes,
            active_writes: 0,
            active_reads: 0,
            cpu_percent: 0,
            latency_us: 0,
            near: false,
            copies_in: 0,
            copies_out: 0,
            budget_in: i64::MAX,
            budget_out: i64::MAX,
        }
    }

    /// Takes part in everything.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.health == Health::Alive && self.wish == ServerWish::Active
    }
}
