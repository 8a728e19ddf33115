//! One replica in memory.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use quarry_chunkserver_core::{
    inventory::ReplicaItem,
    layout::{DATA_OFFSET, file_bytes},
    record::ReplicaRecord,
};
use quarry_types::{ChunkId, ChunkSums, Crc32, ReplicaState, limits::BLOCK_BYTES};

use super::{
    StoreError,
    dir::{Dir, lock},
    file::ChunkFile,
};

/// Ends of packets kept for readers of an open replica. A window holds a few; tiny packets fall back to block ends.
const ENDS_KEPT: usize = 1024;

/// One replica. Lock order: `inner`, then the store's state, then `progress` or the file cache.
pub(super) struct Replica {
    pub(super) chunk: ChunkId,
    pub(super) dir: Arc<Dir>,
    /// Held across disk writes: a fence and an acknowledgement never overlap (S5).
    pub(super) inner: Mutex<Inner>,
    /// Never held across disk writes, so that it may be asked anywhere.
    pub(super) progress: Mutex<Progress>,
    /// Mirrors the record, for readers that hold a file already.
    quarantined: AtomicBool,
}

pub(super) struct Inner {
    pub(super) record: ReplicaRecord,
    /// Present while it is open and works.
    pub(super) live: Option<Live>,
    /// It refuses writes for good, even if its record does not say so yet.
    pub(super) stopped: bool,
    /// It was deleted, or a copy has taken its place.
    pub(super) gone: bool,
    /// Room that it takes in its directory.
    pub(super) room: u64,
}

/// What a replica needs while it is written.
pub(super) struct Live {
    /// Absent before the first bytes: there is neither a file nor a record then.
    pub(super) file: Option<ChunkFile>,
    pub(super) sums: ChunkSums,
    pub(super) limit: u64,
    /// It came whole: the file ends where `sums` do, with all their block CRCs, and there is no record yet.
    pub(super) whole: bool,
    /// Whether the file's name is durable.
    pub(super) named: bool,
    /// Bytes of which the sync was begun.
    pub(super) begun: u64,
    /// A write failed half-way: nothing may follow it.
    pub(super) broken: Option<StoreError>,
}

impl Live {
    pub(super) fn new(limit: u64) -> Self {
        Live { file: None, sums: ChunkSums::default(), limit, whole: false, named: false, begun: 0, broken: None }
    }
}

/// How far an open replica is written and may be read.
#[derive(Default)]
pub(super) struct Progress {
    written: u64,
    acked: u64,
    /// Lengths at which a packet ended within a block, with the CRC of that block so far.
    ends: VecDeque<(u64, Crc32)>,
}

impl Progress {
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, sums: &ChunkSums) {
        self.written = sums.length();
        let (crc, bytes) = sums.tail();
        if bytes > 0 {
            if self.ends.len() == ENDS_KEPT {
                self.ends.pop_front();
            }
            self.ends.push_back((self.written, crc));
        }
    }

    pub(super) fn ack(&mut self, length: u64) {
        self.acked = self.acked.max(length).min(self.written);
        while self.ends.get(1).is_some_and(|(end, _)| *end <= self.acked) {
            self.ends.pop_front();
        }
    }

    /// How far every block, or its part, has a CRC of the writer and is known to be on every member; and the CRC of the
    /// partial block there.
    pub(super) fn readable(&self) -> (u64, Crc32) {
        let full = self.acked - self.acked % BLOCK_BYTES;
        let end = self.ends.iter().rev().find(|(end, _)| *end <= self.acked);
        end.copied().filter(|(end, _)| *end > full).unwrap_or((full, Crc32::EMPTY))
    }
}

impl Replica {
    pub(super) fn new(chunk: ChunkId, dir: Arc<Dir>, record: ReplicaRecord, room: u64) -> Self {
        let quarantined = AtomicBool::new(record.state == ReplicaState::Quarantined);
        let inner = Inner { record, live: None, stopped: false, gone: false, room };
        dir.chunks.fetch_add(1, Ordering::Relaxed);
        Replica { chunk, dir, inner: Mutex::new(inner), progress: Mutex::default(), quarantined }
    }

    /// What its bytes are in, for people.
    pub(super) fn place(&self, record: &ReplicaRecord) -> PathBuf {
        if record.in_index { self.dir.index_path() } else { self.dir.file(self.chunk) }
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire)
    }

    pub(super) fn set_quarantined(&self) {
        self.quarantined.store(true, Ordering::Release);
    }

    pub(super) fn written(&self) -> u64 {
        lock(&self.progress).written()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.dir.chunks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    /// The live part, when a write may go on.
    pub(super) fn writable(&mut self, chunk: ChunkId) -> Result<&mut Live, StoreError> {
        if self.gone {
            return Err(StoreError::fenced(chunk, "it was deleted"));
        }
        if self.stopped || self.record.state != ReplicaState::Open {
            return Err(StoreError::fenced(chunk, "it was fenced"));
        }
        let live = self.live.as_mut().ok_or_else(|| StoreError::fenced(chunk, "it was never opened"))?;
        match &live.broken {
            Some(error) => Err(error.clone()),
            None => Ok(live),
        }
    }

    /// Whether it has a file, or may not have one any more.
    pub(super) fn has_begun(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.file.is_some())
    }

    /// Sets the room it takes, and tells the directory.
    pub(super) fn settle_room(&mut self, dir: &Dir) {
        let room = room_of(&self.record);
        dir.count(room);
        dir.release(self.room);
        self.room = room;
    }
}

/// Room that a replica with this record takes, when it is not being written.
pub(super) fn room_of(record: &ReplicaRecord) -> u64 {
    match record.state {
        ReplicaState::Open => DATA_OFFSET,
        _ if record.in_index => record.length,
        // There may be no file.
        _ if record.length == 0 && record.flushed.length == 0 => 0,
        ReplicaState::Quarantined => file_bytes(record.length.max(record.flushed.length)),
        ReplicaState::Fenced | ReplicaState::Sealed => file_bytes(record.length),
    }
}

/// What the inventory says about a replica.
pub(super) fn item(chunk: ChunkId, record: &ReplicaRecord) -> ReplicaItem {
    let settled = record.state != ReplicaState::Open;
    ReplicaItem {
        chunk,
        state: record.state,
        length: if settled { record.length } else { 0 },
        crc: if settled { record.crc } else { Crc32::EMPTY },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_replica_is_readable_up_to_acked_ends_that_have_a_crc() {
        let mut sums = ChunkSums::default();
        let mut progress = Progress::default();
        for (crc, bytes) in [(1, 100), (2, 50), (3, BLOCK_BYTES - 150), (4, 10)] {
            sums.push(Crc32(crc), bytes).unwrap();
            progress.write(&sums);
        }
        assert_eq!(progress.readable(), (0, Crc32::EMPTY), "nothing is acknowledged");
        progress.ack(120);
        assert_eq!(progress.readable(), (100, Crc32(1)));
        progress.ack(100);
        assert_eq!(progress.readable().0, 100, "acknowledgements do not go back");
        progress.ack(160);
        assert_eq!(progress.readable().0, 150);
        progress.ack(BLOCK_BYTES);
        assert_eq!(progress.readable(), (BLOCK_BYTES, Crc32::EMPTY));
        progress.ack(u64::MAX);
        assert_eq!(progress.readable(), (BLOCK_BYTES + 10, Crc32(4)), "not beyond what is written");
    }
}
