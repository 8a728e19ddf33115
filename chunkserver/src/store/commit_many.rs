//! Committed seals of many chunks at once: where nothing but the record changes, one write of the index does for all.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard},
};

use quarry_chunkserver_core::{
    record::ReplicaRecord,
    sealing::{SealStep, step},
};
use quarry_types::{ChunkId, Crc32, Leadership, Receipt};

use super::{
    StoreError,
    dir::{Dir, lock},
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points,
    synced_later::SyncWhen,
};

/// A replica whose lock is held, and what its record becomes.
struct Held<'a> {
    replica: &'a Arc<Replica>,
    inner: MutexGuard<'a, Inner>,
    record: ReplicaRecord,
}

impl Shared {
    /// The receipts of those of `seals` that only had to be written down. The others are as they were.
    pub(super) fn commit_records(
        &self,
        by: Leadership,
        seals: &[(ChunkId, u64, Crc32)],
        sync: SyncWhen,
    ) -> Result<BTreeMap<ChunkId, Receipt>, StoreError> {
        let _following = self.while_following(by)?;
        let mut receipts = BTreeMap::new();
        for of_dir in self.by_dir(seals.iter().map(|(chunk, length, crc)| (*chunk, (*length, *crc)))) {
            self.commit_in_dir(&of_dir, sync, &mut receipts);
        }
        Ok(receipts)
    }

    /// The replicas that are here, each once, by directory: one that hangs holds no replica of another one.
    pub(super) fn by_dir<T>(&self, chunks: impl Iterator<Item = (ChunkId, T)>) -> Vec<Vec<(Arc<Replica>, T)>> {
        let mut found = BTreeMap::new();
        for (chunk, with) in chunks {
            if let Ok(replica) = self.find(chunk) {
                found.entry(chunk).or_insert((replica, with));
            }
        }
        let mut by_dir: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (replica, with) in found.into_values() {
            // Not by its path: one that was replaced has the same, and what was lost with it is not in the new one.
            by_dir.entry(Arc::as_ptr(&replica.dir)).or_default().push((replica, with));
        }
        by_dir.into_values().collect()
    }

    /// Those of one directory that nobody is at: no lock is waited for while others are held.
    fn commit_in_dir(
        &self,
        replicas: &[(Arc<Replica>, (u64, Crc32))],
        sync: SyncWhen,
        receipts: &mut BTreeMap<ChunkId, Receipt>,
    ) {
        let Some(dir) = replicas.first().map(|(replica, ..)| Arc::clone(&replica.dir)) else { return };
        let (mut held, mut later, mut later_bytes) = (Vec::new(), 0, 0);
        for (replica, (length, crc)) in replicas {
            let Ok(inner) = replica.inner.try_lock() else { continue };
            let only_record = !inner.gone && step(&inner.record, *length, *crc) == SealStep::Record;
            if !only_record || !dir.works() {
                continue;
            }
            if !inner.record.durable {
                let room = lock(&dir.unsynced).has_room_beside(later, later_bytes);
                if sync == SyncWhen::Now || !room {
                    continue;
                }
                later += 1;
                later_bytes += length;
            }
            let record = inner.record.sealed(*length, *crc, inner.record.tail_crc);
            held.push(Held { replica, inner, record });
        }
        self.write_down(&dir, held, receipts);
    }

    fn write_down(&self, dir: &Arc<Dir>, held: Vec<Held<'_>>, receipts: &mut BTreeMap<ChunkId, Receipt>) {
        if held.is_empty() {
            return;
        }
        let add = |changes: Changes, held: &Held<'_>| changes.replica(held.replica.chunk, &held.record);
        let changes = held.iter().fold(Changes::default(), add);
        if let Err(error) = self.write_index(dir, changes, sync_points::COMMIT_RECORD) {
            tracing::warn!(dir = %dir.path.display(), %error, "committed seals are not written down");
            return;
        }
        for Held { replica, mut inner, record } in held {
            inner.record = record;
            self.note(replica, &inner.record);
            if !inner.record.durable {
                self.sync_later(replica, inner.record.length);
            }
            receipts.extend(self.receipt(replica, &inner).ok().map(|receipt| (replica.chunk, receipt)));
        }
    }
}
