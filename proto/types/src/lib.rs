//! The words that every part of Quarry shares: ids, limits, checksums, signatures, names and error codes.
//!
//! Pure data and arithmetic. This crate must not know wire formats, files, sockets or clocks.
//!
//! | module | holds |
//! |---|---|
//! | [`ids`] | names of clusters, servers, chunks, inodes, sessions; epoch and lineage |
//! | [`limits`] | every named number with its unit, and the relations between them |
//! | [`crc`] | CRC-32 and how two of them combine |
//! | [`sums`] | the block checksums of a growing chunk |
//! | [`auth`] | the cluster key and what it signs |
//! | [`receipt`] | a member's statement about a replica |
//! | [`revision`] | a place in the stream of changes |
//! | [`name`] | names and paths that the namespace accepts |
//! | [`mod@duration`] | durations as people write them |
//! | [`mod@planted`] | bugs that only a build for the simulation has |
//! | [`error`] | the error table: code, and what the caller should do |

pub mod auth;
pub mod crc;
pub mod duration;
pub mod error;
pub mod ids;
pub mod limits;
pub mod name;
pub mod planted;
pub mod receipt;
pub mod revision;
pub mod sums;

pub use auth::{ClusterKey, Mac};
pub use crc::Crc32;
pub use error::{Advice, ErrorCode};
pub use ids::{
    ChunkId, ClusterId, Epoch, InodeId, Leadership, LeadershipRefusal, LeaseId, Lineage, NodeId, ServerId, SessionId,
};
pub use receipt::{Receipt, ReplicaState};
pub use revision::{Revision, RevisionError};
pub use sums::ChunkSums;
