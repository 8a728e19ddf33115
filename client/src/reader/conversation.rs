//! One read from one replica: the bytes of a range, each block verified as it comes, over the network or from the file of a
//! server on this machine.

use bytes::Bytes;
use quarry_env::clock::timeout;
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{
    Crc32, ErrorCode,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};

use super::from_file::LocalRead;
use crate::{
    ChunkInfo, ChunkState,
    client::Shared,
    frames::{Conn, ConnError},
    pool::{Pooled, Target},
};

/// Whole blocks of a chunk (its last may be short), each of which agrees with its CRC.
#[derive(Debug)]
pub(super) struct Verified {
    /// Where in the chunk; a multiple of the block length.
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// One CRC for each block.
    pub(super) crcs: Vec<Crc32>,
}

/// Bytes of a chunk, to be asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) chunk: &'a ChunkInfo,
    pub(super) from: u64,
    pub(super) to: u64,
    /// The same reader asks for another part of the chunk at the same time.
    pub(super) beside: bool,
}

/// What a replica sends next.
pub(super) enum Next {
    Data(Verified),
    /// The range is complete; of an open chunk, how far it could be read.
    End(u64),
    /// The way to the replica is of no use any more, which says nothing about the replica: to be begun again from here.
    Anew,
}

/// A read under way.
pub(super) enum Conversation {
    /// With the server.
    Network(Box<NetworkRead>),
    /// Without it.
    Local(Box<LocalRead>),
}

impl Conversation {
    /// Asks `target` for bytes and waits for the first of them.
    pub(super) async fn begin(
        shared: &Shared,
        target: &Target,
        wanted: Wanted<'_>,
    ) -> Result<(Conversation, Next), WireError> {
        let Wanted { chunk, from, to, .. } = wanted;
        if let Some(begun) = LocalRead::begin(shared, target, chunk, from, to).await? {
            return Ok(begun);
        }
        let (read, next) = NetworkRead::begin(shared, target, wanted).await?;
        Ok((Conversation::Network(Box::new(read)), next))
    }

    /// The next blocks, or the end. Every wait is limited by the client's stall limit.
    pub(super) async fn next(&mut self, shared: &Shared) -> Result<Next, WireError> {
        match self {
            Conversation::Network(read) => Ok(read.next(shared).await?),
            Conversation::Local(read) => read.next(shared).await,
        }
    }

    /// Gives the connection back; only behind the end of a range.
    pub(super) fn finish(self, shared: &Shared) {
        if let Conversation::Network(read) = self {
            shared.pool.put(read.pooled);
        }
    }
}

/// A read over the network.
pub(super) struct NetworkRead {
    pooled: Pooled,
    chunk: ChunkInfo,
    /// Where the next block must begin.
    at: u64,
}

impl NetworkRead {
    async fn begin(shared: &Shared, target: &Target, wanted: Wanted<'_>) -> Result<(NetworkRead, Next), WireError> {
        let at = wanted.from - wanted.from % BLOCK_BYTES;
        let mut fresh = false;
        loop {
            let pooled = shared.pool.get(target, fresh).await?;
            let reused = pooled.slot.reused;
            let mut conversation = NetworkRead { pooled, chunk: wanted.chunk.clone(), at };
            match conversation.ask(shared, wanted).await {
                Ok(next) => return Ok((conversation, next)),
                // The server closed an idle connection, which says nothing about it.
                Err(ConnError::Io { .. }) if reused && !fresh => fresh = true,
                Err(ConnError::Refused { source, .. }) => {
                    // A refusal ends the conversation, not the connection. What is wrong does: the rest of the range comes behind it.
                    shared.pool.put(conversation.pooled);
                    return Err(source);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ask(&mut self, shared: &Shared, wanted: Wanted<'_>) -> Result<Next, ConnError> {
        let Wanted { from, to, beside, .. } = wanted;
        let read = v1::Read {
            chunk: self.chunk.id.0,
            length: self.chunk.length,
            crc: self.chunk.crc.0,
            offset: from,
            bytes: to - from,
            request_id: shared.config.request_id.clone(),
            open: self.chunk.state == ChunkState::Open,
            beside,
            ..Default::default()
        };
        let limit = shared.config.stall;
        let writer = &mut self.pooled.conn.writer;
        match timeout(&*shared.world.clock, limit, writer.send(read)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(self.timed_out(limit)),
        }
        self.next(shared).await
    }

    async fn next(&mut self, shared: &Shared) -> Result<Next, ConnError> {
        let limit = shared.config.stall;
        let answer = match timeout(&*shared.world.clock, limit, self.pooled.conn.reader.expect()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.timed_out(limit)),
        };
        match answer {
            (Frame::ReadData(data), bytes) => self.data(shared, &data, bytes).await.map(Next::Data),
            (Frame::ReadEnd(end), _) => Ok(Next::End(end.readable)),
            (other, _) => Err(self.pooled.conn.reader.unexpected(&other, "ReadData or ReadEnd")),
        }
    }

    async fn data(&mut self, shared: &Shared, data: &v1::ReadData, bytes: u32) -> Result<Verified, ConnError> {
        let length = u64::from(bytes);
        self.check_shape(data, length)?;
        let limit = shared.config.stall;
        // At most a packet, as the frame's header was checked.
        let mut buffer = shared.buffers.reused.take(bytes as usize);
        let memory = buffer.as_mut();
        let mut filled = 0;
        while filled < memory.len() {
            let Conn { reader, .. } = &mut self.pooled.conn;
            let rest = memory.get_mut(filled..).unwrap_or_default();
            match timeout(&*shared.world.clock, limit, reader.some_payload(rest)).await {
                Ok(received) => filled += received?,
                Err(_) => return Err(self.timed_out(limit)),
            }
        }
        let mut crcs = Vec::with_capacity(data.block_crcs.len());
        for (block, wanted) in memory.chunks(BLOCK_BYTES as usize).zip(&data.block_crcs) {
            let crc = Crc32::of(block);
            if crc.0 != *wanted {
                let at = self.at + crcs.len() as u64 * BLOCK_BYTES;
                let message = format!("the block at offset {at} came with CRC {wanted:08x} but has {crc}");
                return Err(self.wrong(ErrorCode::Corrupt, message));
            }
            crcs.push(crc);
        }
        self.at += length;
        Ok(Verified { offset: data.offset, bytes: buffer.freeze(), crcs })
    }

    /// Refuses what does not continue the range, before its bytes are received.
    fn check_shape(&self, data: &v1::ReadData, length: u64) -> Result<(), ConnError> {
        let end = data.offset.saturating_add(length);
        let blocks = length.div_ceil(BLOCK_BYTES);
        let sealed = self.chunk.state != ChunkState::Open;
        let whole = length.is_multiple_of(BLOCK_BYTES) || !sealed || end == self.chunk.length;
        let fits = length > 0 && length <= PACKET_BYTES && (!sealed || end <= self.chunk.length);
        if data.offset == self.at && blocks == data.block_crcs.len() as u64 && whole && fits {
            return Ok(());
        }
        let message = format!(
            "sent {length} bytes at {} with {} checksums where bytes at {} belong",
            data.offset,
            data.block_crcs.len(),
            self.at
        );
        Err(self.wrong(ErrorCode::InvalidArgument, message))
    }

    fn peer(&self) -> String {
        self.pooled.conn.reader.peer().to_owned()
    }

    fn timed_out(&self, limit: std::time::Duration) -> ConnError {
        ConnError::Timeout { peer: self.peer(), limit }
    }

    fn wrong(&self, code: ErrorCode, message: String) -> ConnError {
        ConnError::Wrong { peer: self.peer(), source: WireError::new(code, message) }
    }
}
