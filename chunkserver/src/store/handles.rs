//! What a writer and a reader of one replica hold.

use std::sync::Arc;

use bytes::Bytes;
use quarry_types::{ChunkId, Crc32, Receipt};

use super::{StoreError, cache::OpenFile, dir::lock, read, replica::Replica, shared::Shared, work};

/// The one writer of an open replica. Dropping it leaves the replica open: only a fence or a restart ends it.
pub struct ReplicaWriter {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
}

impl ReplicaWriter {
    pub(super) fn new(shared: &Arc<Shared>, replica: Arc<Replica>) -> Self {
        ReplicaWriter { shared: Arc::clone(shared), replica }
    }

    /// The chunk.
    #[must_use]
    pub fn chunk(&self) -> ChunkId {
        self.replica.chunk
    }

    /// Bytes written.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.replica.written()
    }

    /// Writes `data` at `offset`, which must be [`ReplicaWriter::length`]. `pieces` are the CRC and length of each piece
    /// as `quarry_types::sums::pieces` cuts them; the data is verified against them first and nothing is written when one
    /// is wrong.
    ///
    /// # Errors
    /// Fenced; Corrupt; InvalidArgument; NoSpace; DiskFailed. After an error that came from the disk only a fence helps.
    pub async fn append(&self, offset: u64, pieces: Vec<(Crc32, u64)>, data: Bytes) -> Result<(), StoreError> {
        let replica = Arc::clone(&self.replica);
        work(&self.shared, move |shared| shared.append(&replica, offset, &pieces, &data)).await
    }

    /// Makes everything up to `length` durable, which must have been written (with buffered durability it only checks that).
    ///
    /// # Errors
    /// Fenced; InvalidArgument; DiskFailed.
    pub async fn flush(&self, length: u64) -> Result<(), StoreError> {
        let replica = Arc::clone(&self.replica);
        work(&self.shared, move |shared| shared.flush(&replica, length)).await
    }

    /// Ends the replica at `length`, which must be all that was written, with the CRC of all. The receipt is durable,
    /// except with buffered durability.
    ///
    /// # Errors
    /// Fenced; Mismatch; DiskFailed.
    pub async fn seal(&self, length: u64, crc: Crc32) -> Result<Receipt, StoreError> {
        let replica = Arc::clone(&self.replica);
        work(&self.shared, move |shared| shared.seal(&replica, length, crc)).await
    }

    /// [`ReplicaWriter::append`] of the last bytes and [`ReplicaWriter::seal`] in one, which costs less; after an error it is not
    /// known how far it came.
    ///
    /// # Errors
    /// As of both.
    pub async fn append_last(
        &self,
        offset: u64,
        pieces: Vec<(Crc32, u64)>,
        data: Bytes,
        length: u64,
        crc: Crc32,
    ) -> Result<Receipt, StoreError> {
        let replica = Arc::clone(&self.replica);
        work(&self.shared, move |shared| shared.append_last(&replica, offset, &pieces, &data, (length, crc))).await
    }

    /// Every member has the chunk up to `length`: readers may go that far.
    pub fn set_acked(&self, length: u64) {
        lock(&self.replica.progress).ack(length);
    }
}

/// Reads one replica.
pub struct ReplicaReader {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    source: Source,
}

/// What a reader reads.
pub(super) enum Source {
    /// A settled replica of no bytes.
    Empty,
    /// A settled replica.
    Settled(Arc<OpenFile>),
    /// A replica that is being written.
    Open,
}

impl ReplicaReader {
    pub(super) fn new(shared: &Arc<Shared>, replica: Arc<Replica>, source: Source) -> Self {
        ReplicaReader { shared: Arc::clone(shared), replica, source }
    }

    /// How far the replica may be read now. Of a settled replica this is its length; of an open one it grows.
    #[must_use]
    pub fn readable(&self) -> u64 {
        match &self.source {
            Source::Empty => 0,
            Source::Settled(file) => file.sums.length(),
            Source::Open => lock(&self.replica.progress).readable().0,
        }
    }

    /// Reads whole blocks from `offset`, a multiple of the block size, at most `max_bytes` (at least one block), up to
    /// [`ReplicaReader::readable`]. Returns the data with the stored CRC of each block: the reader at the far end
    /// verifies them, they are not compared here (S3). Empty at the end.
    ///
    /// # Errors
    /// InvalidArgument; NoReplica; Fenced; Corrupt; DiskFailed.
    pub async fn read(&self, offset: u64, max_bytes: u64) -> Result<(Bytes, Vec<Crc32>), StoreError> {
        let replica = Arc::clone(&self.replica);
        match &self.source {
            Source::Empty => Ok((Bytes::new(), Vec::new())),
            Source::Settled(file) => {
                let begun = self.shared.begin_read(&replica, file, offset, max_bytes)?;
                // What is in memory is copied where it is wanted; a thread costs more than the copy.
                if begun.is_complete() && !replica.is_quarantined() {
                    return Ok(begun.finish(file));
                }
                let file = Arc::clone(file);
                work(&self.shared, move |shared| shared.read(&replica, &file, begun)).await
            }
            Source::Open => work(&self.shared, move |shared| shared.read_open(&replica, offset, max_bytes)).await,
        }
    }

    /// The first `part_bytes` of the `max_bytes` at `offset`, if they are in memory: their data, and the stored CRCs of all blocks
    /// that [`ReplicaReader::read`] would give for all. `None` says nothing, and is all there is of an open replica.
    ///
    /// # Errors
    /// InvalidArgument.
    pub fn at_hand(&self, offset: u64, max_bytes: u64, part_bytes: u64) -> Result<Option<AtHand>, StoreError> {
        let Source::Settled(file) = &self.source else { return Ok(None) };
        let bytes = read::span(&self.replica, offset, max_bytes, file.sums.length())?;
        let begun = self.shared.begin_read(&self.replica, file, offset, bytes.min(part_bytes))?;
        if bytes == 0 || !begun.is_complete() || self.replica.is_quarantined() {
            return Ok(None);
        }
        let (first, _) = begun.finish(file);
        Ok(Some(AtHand { bytes, block_crcs: file.block_crcs(offset, bytes), first }))
    }
}

/// The beginning of a read, without having waited for it.
pub struct AtHand {
    /// Bytes of all.
    pub bytes: u64,
    /// The stored CRC of each block of all.
    pub block_crcs: Vec<Crc32>,
    /// The first part of it.
    pub first: Bytes,
}
