//! Messages to and from the types of `quarry-types`. Bytes from the wire never panic: what does not fit is a
//! [`WireError`] that names the field.

use bytes::Bytes;
use quarry_types::{
    ChunkId, ClusterId, Crc32, Epoch, ErrorCode, Leadership, Lineage, Receipt, ReplicaState, Revision, ServerId,
};
use uuid::Uuid;

use crate::{WireError, v1};

fn bad(field: &str) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, format!("field {field} is missing or malformed"))
}

/// A server id from its 16 bytes.
///
/// # Errors
/// Names `field` when the length is another.
pub fn server(bytes: &[u8], field: &str) -> Result<ServerId, WireError> {
    ServerId::from_bytes(bytes).ok_or_else(|| bad(field))
}

/// A cluster id from its 16 bytes.
///
/// # Errors
/// Names `field` when the length is another.
pub fn cluster(bytes: &[u8], field: &str) -> Result<ClusterId, WireError> {
    ClusterId::from_bytes(bytes).ok_or_else(|| bad(field))
}

/// A message field that must be there.
///
/// # Errors
/// Names `field` when it is not.
pub fn required<T>(value: Option<T>, field: &str) -> Result<T, WireError> {
    value.ok_or_else(|| bad(field))
}

impl From<Leadership> for v1::Leadership {
    fn from(from: Leadership) -> Self {
        v1::Leadership {
            lineage_number: from.lineage.number,
            lineage_id: Bytes::copy_from_slice(from.lineage.id.as_bytes()),
            epoch: from.epoch.0,
        }
    }
}

impl TryFrom<v1::Leadership> for Leadership {
    type Error = WireError;
    fn try_from(from: v1::Leadership) -> Result<Self, WireError> {
        let id = Uuid::from_slice(&from.lineage_id).map_err(|_| bad("lineage_id"))?;
        Ok(Leadership { lineage: Lineage { number: from.lineage_number, id }, epoch: Epoch(from.epoch) })
    }
}

impl From<Revision> for v1::Revision {
    fn from(from: Revision) -> Self {
        v1::Revision {
            lineage_number: from.lineage.number,
            lineage_id: Bytes::copy_from_slice(from.lineage.id.as_bytes()),
            index: from.index,
            position: from.position,
        }
    }
}

impl TryFrom<v1::Revision> for Revision {
    type Error = WireError;
    fn try_from(from: v1::Revision) -> Result<Self, WireError> {
        let id = Uuid::from_slice(&from.lineage_id).map_err(|_| bad("lineage_id"))?;
        let lineage = Lineage { number: from.lineage_number, id };
        Ok(Revision { lineage, index: from.index, position: from.position })
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(from: Receipt) -> Self {
        v1::Receipt {
            cluster: from.cluster.to_bytes().into(),
            server: from.server.to_bytes().into(),
            chunk: from.chunk.0,
            length: from.length,
            crc: from.crc.0,
            durable: from.durable,
            restarted: from.restarted,
        }
    }
}

impl TryFrom<v1::Receipt> for Receipt {
    type Error = WireError;
    fn try_from(from: v1::Receipt) -> Result<Self, WireError> {
        Ok(Receipt {
            cluster: cluster(&from.cluster, "cluster")?,
            server: server(&from.server, "server")?,
            chunk: ChunkId(from.chunk),
            length: from.length,
            crc: Crc32(from.crc),
            durable: from.durable,
            restarted: from.restarted,
        })
    }
}

impl From<ReplicaState> for v1::ReplicaState {
    fn from(from: ReplicaState) -> Self {
        match from {
            ReplicaState::Open => v1::ReplicaState::Open,
            ReplicaState::Fenced => v1::ReplicaState::Fenced,
            ReplicaState::Sealed => v1::ReplicaState::Sealed,
            ReplicaState::Quarantined => v1::ReplicaState::Quarantined,
        }
    }
}

/// A replica's state from its number.
///
/// # Errors
/// When the number is unknown.
pub fn replica_state(number: i32) -> Result<ReplicaState, WireError> {
    match v1::ReplicaState::try_from(number) {
        Ok(v1::ReplicaState::Open) => Ok(ReplicaState::Open),
        Ok(v1::ReplicaState::Fenced) => Ok(ReplicaState::Fenced),
        Ok(v1::ReplicaState::Sealed) => Ok(ReplicaState::Sealed),
        Ok(v1::ReplicaState::Quarantined) => Ok(ReplicaState::Quarantined),
        Ok(v1::ReplicaState::Unspecified) | Err(_) => Err(bad("state")),
    }
}
