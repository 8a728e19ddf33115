//! The Raft group of masters: the one door to the replicated state.
//!
//! Everything of openraft is behind this module, because it is an alpha whose signatures move. The rest of the master
//! sees [`Group`]: propose a command, read, watch who leads.
//!
//! | file | holds |
//! |---|---|
//! | `group` | [`Group`], what the rest of the master calls |
//! | `alone` | a group of one in a new lineage, from a backup or from what one member was left with |
//! | `bounded`, `rounds` | the read index, and reads from members that do not lead; one question for many who wait |
//! | `members` | growing and shrinking it, handing over the leadership |
//! | `joining` | what is said before one is a member: who answers at an address, the number of a new one |
//! | `network`, `outgoing` | calls to other members; sending a snapshot to one that lags |
//! | `serve`, `incoming` | answers to them; receiving a snapshot |
//! | `gate` | taking no part after a start before others have said what they know of this log |
//! | `superseded` | ending a member of a history that a forced recovery or a restored backup has ended |
//! | `digests` | hashes of the state at chosen entries, for comparing members |
//! | `parties`, `wire` | who speaks to whom, signed; openraft's messages in protobuf |
//! | `log`, `recent` | the log and the vote on disk; its newest entries in memory |
//! | `runtime`, `in_order` | what openraft runs on, without chance in it |
//! | `error` | [`GroupError`], [`ProposeError`] and what they are on the wire |

pub(crate) mod alone;
mod bounded;
mod codec;
mod digests;
mod error;
mod gate;
mod group;
mod in_order;
mod incoming;
mod joining;
mod log;
mod machine;
mod members;
mod network;
mod open;
mod outgoing;
mod parties;
mod recent;
mod room;
mod rounds;
mod runtime;
mod serve;
mod superseded;
mod types;
mod watching;
mod wire;

use std::time::Duration;

use quarry_master_core::feature::Features;
use quarry_types::NodeId;

pub use crate::store::View;
pub(crate) use digests::Known;
pub use error::{GroupError, ProposeError};
pub use group::Group;
pub use joining::{Introduced, ask_number};
pub use parties::Belonging;
pub use serve::RaftRpc;

/// A master as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number; never used again for another master.
    pub id: NodeId,
    /// `host:port` of its gRPC port.
    pub address: String,
}

/// How a [`Group`] runs.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `host:port` under which this master is reached now. Replaces what the group has stored for this node in what
    /// [`Group::leader`] and [`Group::status`] say; `None` leaves the stored one.
    pub advertise: Option<String>,
    /// Between a leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest election timeout; the longest is twice that.
    pub election: Duration,
    /// A snapshot is taken after this many commands.
    pub snapshot_every: u64,
    /// So many log entries stay behind a snapshot, for members that lag a little.
    pub keep_log: u64,
    /// Proposals are refused when the disk has less room than this, in bytes, so that the log never fails half-way.
    pub reserve_bytes: u64,
    /// The feature levels that this master knows. Another range than the build's is for tests.
    pub features: Features,
    /// A proposal that has no answer after this long fails with an unknown outcome.
    pub propose_timeout: Duration,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            advertise: None,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(300),
            snapshot_every: 50_000,
            keep_log: 5_000,
            reserve_bytes: 48 << 20,
            features: Features::THIS_BUILD,
            propose_timeout: Duration::from_secs(30),
        }
    }
}

/// Who leads, as this master knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderState {
    /// The term in which this master leads; `None` when it does not.
    pub me_since_term: Option<u64>,
    /// The leader, when one is known.
    pub id: Option<NodeId>,
    /// Its address.
    pub leader: Option<String>,
}

#[cfg(test)]
mod tests;
