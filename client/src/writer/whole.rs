//! A chunk of one block at most, written and ended in one conversation.
//!
//! What is known to be the whole rest of a file need not wait for every member to have the chunk open: grant, bytes and end leave
//! together, and the members' receipts come back.

use bytes::Bytes;
use quarry_env::clock::timeout;
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{Crc32, ErrorCode, limits::BLOCK_BYTES};

use super::{
    permit::Permit,
    pipeline::{Broken, Ended, blame, refusal},
};
use crate::{
    client::Shared,
    frames::{Conn, ConnError},
    pool::{Pooled, Target},
};

/// The most that a chunk written in one conversation may have: a single piece.
pub(super) const WHOLE_BYTES_MAX: u64 = BLOCK_BYTES;

/// What became of it.
pub(super) enum Written {
    /// All members have ended it.
    Ended(Ended),
    /// It must be sealed where it stands.
    Broken(Broken),
    /// The primary is of an older release, and nothing was begun.
    Unknown,
}

/// Writes `bytes`, with this CRC, as the chunk.
pub(super) async fn write(shared: &Shared, permit: &Permit, bytes: &Bytes, crc: Crc32) -> Written {
    let Some((server, address)) = permit.members.first().cloned() else {
        let error = WireError::new(ErrorCode::Internal, "a chunk without members");
        return Written::Broken(Broken { error, culprit: None });
    };
    let target = Target { cluster: permit.cluster, server, address };
    let length = bytes.len() as u64;
    let receipts = match converse(shared, &target, permit, bytes, crc).await {
        Ok(Some(receipts)) => receipts,
        Ok(None) => return Written::Unknown,
        Err(error) => {
            let culprit = blame(&error, server);
            return Written::Broken(Broken { error, culprit });
        }
    };
    match permit.check(&receipts, length, crc) {
        Ok(()) => Written::Ended(Ended { length, crc, receipts }),
        Err(error) => Written::Broken(Broken { error, culprit: None }),
    }
}

/// The receipts; `None` where the primary does not know this.
async fn converse(
    shared: &Shared,
    target: &Target,
    permit: &Permit,
    bytes: &Bytes,
    crc: Crc32,
) -> Result<Option<Vec<v1::Signed>>, WireError> {
    let stall = permit.stall(shared);
    let mut fresh = false;
    loop {
        let Pooled { mut conn, slot } = shared.pool.get(target, fresh).await?;
        if !conn.takes_whole {
            shared.pool.put(Pooled { conn, slot });
            return Ok(None);
        }
        match timeout(&*shared.world.clock, stall, ask(shared, &mut conn, permit, bytes, crc)).await {
            Ok(Ok(receipts)) => {
                shared.pool.put(Pooled { conn, slot });
                return Ok(Some(receipts));
            }
            // The server closed an idle connection, most likely. If not, it refuses the chunk that it has begun.
            Ok(Err(ConnError::Io { .. })) if slot.reused && !fresh => fresh = true,
            Ok(Err(error)) => return Err(refusal(error)),
            Err(elapsed) => {
                let message = format!("chunkserver {} at {}: {elapsed}", target.server, target.address);
                return Err(WireError::new(ErrorCode::DeadlineExceeded, message));
            }
        }
    }
}

async fn ask(
    shared: &Shared,
    conn: &mut Conn,
    permit: &Permit,
    bytes: &Bytes,
    crc: Crc32,
) -> Result<Vec<v1::Signed>, ConnError> {
    let whole = v1::WriteWhole {
        grant: Some(permit.grant.clone()),
        position: 0,
        request_id: shared.config.request_id.clone(),
        crc: crc.0,
    };
    // One block at most.
    conn.writer.begin(whole, u32::try_from(bytes.len()).unwrap_or(u32::MAX)).await?;
    conn.writer.payload(bytes).await?;
    conn.writer.flush().await?;
    match conn.reader.expect().await? {
        (Frame::SealReply(reply), _) => Ok(reply.receipts),
        (other, _) => Err(conn.reader.unexpected(&other, "SealReply")),
    }
}
