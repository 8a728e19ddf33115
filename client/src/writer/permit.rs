//! The right to write a chunk.

use std::time::Duration;

use prost::Message;
use quarry_proto::{WireError, convert, v1};
use quarry_types::{ClusterId, Crc32, ErrorCode, ServerId};

use crate::client::Shared;

/// What the master granted.
pub(super) struct Permit {
    pub(super) chunk: u64,
    /// File offset of the chunk.
    pub(super) offset: u64,
    pub(super) limit: u64,
    pub(super) grant: v1::Signed,
    pub(super) cluster: ClusterId,
    /// In pipeline order, never empty.
    pub(super) members: Vec<(ServerId, String)>,
}

impl Permit {
    /// Reads what the master answered.
    pub(super) fn from_reply(offset: u64, reply: v1::AddChunkReply) -> Result<Self, WireError> {
        let grant = convert::required(reply.grant, "grant")?;
        // The signature is for the chunkservers; the limit in it is for us as well.
        let body = v1::Grant::decode(&*grant.body)
            .map_err(|e| WireError::new(ErrorCode::InvalidArgument, format!("the grant does not decode: {e}")))?;
        let members = if reply.members.is_empty() { body.members } else { reply.members };
        let members = members
            .into_iter()
            .map(|m| Ok((convert::server(&m.server, "member")?, m.address)))
            .collect::<Result<Vec<_>, WireError>>()?;
        if members.is_empty() || body.limit_bytes == 0 {
            return Err(WireError::new(ErrorCode::Internal, "the master granted a chunk without members or room"));
        }
        let cluster = convert::cluster(&body.cluster, "cluster")?;
        Ok(Permit { chunk: reply.chunk, offset, limit: body.limit_bytes, grant, cluster, members })
    }

    /// How long the primary may be silent. Members give up on the next one after their own limits, the last one first; whoever
    /// is still silent after this is the primary itself.
    pub(super) fn stall(&self, shared: &Shared) -> Duration {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let stall = shared.config.stall;
        (stall * 2).saturating_add((stall * 2 / 5).saturating_mul(members.saturating_sub(1)))
    }

    /// Every member must state the same.
    pub(super) fn check(&self, receipts: &[v1::Signed], length: u64, crc: Crc32) -> Result<(), WireError> {
        let agreeing = receipts.iter().filter_map(|signed| v1::Receipt::decode(&*signed.body).ok());
        let agreeing = agreeing.filter(|r| (r.chunk, r.length, r.crc) == (self.chunk, length, crc.0)).count();
        if agreeing == self.members.len() {
            return Ok(());
        }
        let message = format!("{agreeing} of {} members sealed the chunk as it was sent", self.members.len());
        Err(WireError::new(ErrorCode::Mismatch, message))
    }
}
