//! Reading sealed replicas again, and when each was last verified.
//!
//! Stamps are written to the indexes many at a time: one that a crash takes only makes a replica be read again sooner.

use std::{collections::BTreeMap, io, sync::Arc};

use quarry_chunkserver_core::record::Quarantine;
use quarry_types::{
    ChunkId, Crc32, ReplicaState,
    limits::{BLOCK_BYTES, PACKET_BYTES},
    planted,
};

use super::{
    Store, StoreError,
    cache::OpenFile,
    dir::lock,
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points, work,
};
use quarry_chunkserver_core::scrub::Pace;

/// Stamps kept in memory before they are written.
pub(super) const UNSAVED_MAX: usize = 256;

/// How far scrubbing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes read since the server started.
    pub scrubbed_bytes: u64,
    /// When the replica that was verified longest ago was, in wall-clock milliseconds, for display; 0 for never, or when
    /// there is none.
    pub oldest_verified_ms: u64,
    /// Whether enough stamps wait to be written.
    pub save_due: bool,
}

/// One replica that is being read again.
pub struct Check {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    open: Arc<OpenFile>,
    at: u64,
}

impl Shared {
    /// Opens a replica afresh, which compares its header and that its block CRCs combine to its CRC.
    fn begin_check(&self, chunk: ChunkId) -> Result<(Arc<Replica>, Arc<OpenFile>), StoreError> {
        let found = self.find(chunk);
        let Ok(replica) = found else {
            lock(&self.state).schedule.remove(chunk);
            return Err(StoreError::no_replica(chunk));
        };
        let mut inner = lock(&replica.inner);
        if inner.gone || inner.record.state != ReplicaState::Sealed {
            lock(&self.state).schedule.remove(chunk);
            return Err(StoreError::no_replica(chunk));
        }
        replica.dir.index()?;
        lock(&self.files).evict(chunk);
        let open = self.settled(&replica, &mut inner)?;
        drop(inner);
        Ok((replica, open))
    }

    /// Reads and compares the next blocks; how many bytes. 0 at the end, and then it is noted as verified.
    fn check_on(&self, replica: &Replica, open: &OpenFile, at: u64) -> Result<u64, StoreError> {
        let length = open.sums.length();
        let bytes = length.saturating_sub(at).min(PACKET_BYTES);
        let compared = compare(open, at, bytes);
        let mut inner = lock(&replica.inner);
        // It may have been deleted, or a copy may have taken its place.
        self.check_named(replica, &inner, length, open.crc)?;
        match compared {
            Ok(None) => {}
            Ok(Some(_)) if planted!("scrub-sees-nothing") => {}
            Ok(Some(block)) => {
                let detail = format!("scrubbing: block {block} does not match its CRC");
                return Err(self.quarantine(replica, &mut inner, Quarantine::Checksum, &detail));
            }
            Err(error) => return Err(self.read_failed(replica, &mut inner, &error)),
        }
        if bytes == 0 {
            self.note_verified(replica, &inner);
            // It is good all the same, and written anew the next time.
            if inner.record.in_index
                && let Err(error) = self.renew_row(replica, &inner)
            {
                tracing::warn!(chunk = %replica.chunk, %error, "a small chunk that was verified is not written anew");
            }
        } else {
            lock(&self.state).scrubbed += bytes;
        }
        Ok(bytes)
    }

    /// A replica whose lock is held was read whole and is good.
    pub(super) fn note_verified(&self, replica: &Replica, inner: &Inner) {
        if inner.record.state == ReplicaState::Sealed && inner.record.length > 0 && replica.dir.works() {
            let (now, wall) = (self.now_ms(), self.world.clock.wall_ms());
            lock(&self.state).schedule.verified(replica.chunk, inner.record.length, now, wall);
        }
    }

    /// Writes the stamps that wait, with one sync for each directory.
    fn save_verified(&self) -> Result<(), StoreError> {
        let unsaved: Vec<_> = {
            let mut state = lock(&self.state);
            let stamps = state.schedule.take_unsaved();
            let with_dir = |(chunk, stamp)| Some((chunk, stamp, Arc::clone(&state.replicas.get(&chunk)?.dir)));
            stamps.into_iter().filter_map(with_dir).collect()
        };
        let mut by_dir: BTreeMap<_, (Arc<_>, Changes)> = BTreeMap::new();
        for (chunk, stamp, dir) in unsaved {
            let (_, changes) = by_dir.entry(dir.path.clone()).or_insert_with(|| (dir, Changes::default()));
            *changes = std::mem::take(changes).verified(chunk, stamp);
        }
        for (dir, changes) in by_dir.into_values().filter(|(dir, _)| dir.works()) {
            self.write_index(&dir, changes, sync_points::IN_ORDER)?;
        }
        Ok(())
    }
}

/// The first block from `at` on that differs from its CRC. What is read comes from the medium, and does not push what
/// clients read out of memory.
fn compare(open: &OpenFile, at: u64, bytes: u64) -> io::Result<Option<u64>> {
    if bytes == 0 {
        return Ok(None);
    }
    let mut data = vec![0; bytes as usize];
    open.file.forget_cached(at, bytes);
    open.file.read(at, &mut data)?;
    open.file.forget_cached(at, bytes);
    let first = at / BLOCK_BYTES;
    let crcs = open.sums.blocks().skip(first as usize);
    let bad = data.chunks(BLOCK_BYTES as usize).zip(crcs).position(|(block, crc)| Crc32::of(block) != crc);
    Ok(bad.map(|block| first + block as u64))
}

impl Store {
    /// The sealed replica that was verified longest ago.
    #[must_use]
    pub fn next_to_check(&self) -> Option<ChunkId> {
        lock(&self.0.state).schedule.oldest()
    }

    /// The time from the beginning of a check of `bytes` to that of the next.
    #[must_use]
    pub fn check_turn(&self, bytes: u64, pace: &Pace) -> std::time::Duration {
        lock(&self.0.state).schedule.turn(bytes, pace, self.0.now_ms())
    }

    /// Begins to read a sealed replica again.
    ///
    /// # Errors
    /// NoReplica when it is gone, or not sealed; Corrupt when it is now in quarantine; DiskFailed.
    pub async fn check(&self, chunk: ChunkId) -> Result<Check, StoreError> {
        let (replica, open) = work(&self.0, move |shared| shared.begin_check(chunk)).await?;
        Ok(Check { shared: Arc::clone(&self.0), replica, open, at: 0 })
    }

    /// A replica could not be read for a reason that is not its own: the others come first.
    pub fn put_check_off(&self, chunk: ChunkId) {
        lock(&self.0.state).schedule.put_off(chunk, self.0.now_ms());
    }

    /// Writes down what was verified since the last time.
    ///
    /// # Errors
    /// DiskFailed. What was not written is only read again sooner.
    pub async fn save_verified(&self) -> Result<(), StoreError> {
        work(&self.0, |shared| shared.save_verified()).await
    }

    /// When a sealed replica was last verified, in wall-clock milliseconds, for display; 0 for never, `None` when there is
    /// no sealed replica of the chunk.
    #[must_use]
    pub fn last_verified(&self, chunk: ChunkId) -> Option<u64> {
        lock(&self.0.state).schedule.last_verified(chunk)
    }

    /// How far scrubbing is.
    #[must_use]
    pub fn scrub_status(&self) -> ScrubStatus {
        let state = lock(&self.0.state);
        ScrubStatus {
            scrubbed_bytes: state.scrubbed,
            oldest_verified_ms: state.schedule.oldest_stamp(),
            save_due: state.schedule.unsaved() >= UNSAVED_MAX,
        }
    }
}

impl Check {
    /// Bytes of the replica.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.open.sums.length()
    }

    /// Reads and compares some more; how many bytes. 0 when all of it was good, which is noted then.
    ///
    /// # Errors
    /// Corrupt when it is now in quarantine; NoReplica or Mismatch when it went meanwhile; DiskFailed.
    pub async fn step(&mut self) -> Result<u64, StoreError> {
        let (replica, open, at) = (Arc::clone(&self.replica), Arc::clone(&self.open), self.at);
        let bytes = work(&self.shared, move |shared| shared.check_on(&replica, &open, at)).await?;
        self.at += bytes;
        Ok(bytes)
    }
}
