//! One read from the file of a replica on this machine.

use quarry_proto::WireError;
use quarry_types::{
    ErrorCode,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};

use super::conversation::{Conversation, Next, Verified};
use crate::{
    ChunkInfo, ChunkState,
    client::Shared,
    local::{NoFile, Unread},
    pool::Target,
};

/// Shorter chunks are read over the network: one question brings all their bytes, and would only bring the file here.
const CHUNK_BYTES_MIN: u64 = PACKET_BYTES;

/// A read under way.
pub(super) struct LocalRead {
    target: Target,
    chunk: ChunkInfo,
    /// Where the next block begins, and where the last one that is wanted ends.
    at: u64,
    end: u64,
}

impl LocalRead {
    /// Reads the first of the bytes `from..to` of `chunk`; `None` when they are to be had over the network.
    ///
    /// # Errors
    /// What is wrong with the replica.
    pub(super) async fn begin(
        shared: &Shared,
        target: &Target,
        chunk: &ChunkInfo,
        from: u64,
        to: u64,
    ) -> Result<Option<(Conversation, Next)>, WireError> {
        if chunk.state != ChunkState::Sealed || chunk.length < CHUNK_BYTES_MIN || from >= to {
            return Ok(None);
        }
        if !shared.local.knows(target.server) {
            // Connecting brings it, and the connection is not lost.
            let pooled = shared.pool.get(target, false).await?;
            shared.pool.put(pooled);
        }
        let mut read = LocalRead {
            target: target.clone(),
            chunk: chunk.clone(),
            at: from - from % BLOCK_BYTES,
            end: to.next_multiple_of(BLOCK_BYTES).min(chunk.length),
        };
        match read.next(shared).await? {
            Next::Anew => Ok(None),
            next => Ok(Some((Conversation::Local(Box::new(read)), next))),
        }
    }

    /// The next blocks, or the end.
    ///
    /// # Errors
    /// What is wrong with the replica.
    pub(super) async fn next(&mut self, shared: &Shared) -> Result<Next, WireError> {
        if self.at >= self.end {
            return Ok(Next::End(self.chunk.length));
        }
        // The file is not kept here: whoever pauses in the middle of a chunk would keep it open.
        let (key, file) = match shared.local.file(&self.target, &self.chunk).await {
            Ok(file) => file,
            Err(NoFile::Nowhere) => return Ok(Next::Anew),
            Err(why) => {
                tracing::debug!(server = %self.target.server, chunk = %self.chunk.id, %why, "no local read");
                return Ok(Next::Anew);
            }
        };
        // At most a packet.
        let bytes = (self.end - self.at).min(PACKET_BYTES) as usize;
        match shared.local.read((key, &file), self.at, bytes, &shared.buffers.reused).await {
            Ok((bytes, crcs)) => {
                let offset = self.at;
                self.at += bytes.len() as u64;
                Ok(Next::Data(Verified { offset, bytes, crcs }))
            }
            Err(Unread::Wrong { at, wanted, found }) => {
                // It may be replaced by a good one.
                shared.local.drop_file(&key);
                let message = format!("the block at offset {at} should have CRC {wanted} but has {found} in its file");
                Err(WireError::new(ErrorCode::Corrupt, message))
            }
            Err(Unread::Late(limit)) => {
                shared.local.drop_file(&key);
                shared.local.avoid(self.target.server);
                let message = format!("its file could not be read within {limit:?}");
                Err(WireError::new(ErrorCode::DeadlineExceeded, message))
            }
            Err(Unread::Failed(why)) => {
                tracing::info!(server = %self.target.server, chunk = %self.chunk.id, why, "a local read failed");
                shared.local.drop_file(&key);
                shared.local.avoid(self.target.server);
                Ok(Next::Anew)
            }
        }
    }
}
