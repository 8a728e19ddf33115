//! Committed seals of many chunks at once: where nothing but the record changes, one write of the index does for all.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, MutexGuard},
};

use quarry_chunkserver_core::{
    record::ReplicaRecord,
    sealing::{SealStep, step},
};
use quarry_types::{ChunkId, Crc32, Leadership, Receipt};

use super::{
    StoreError,
    dir::lock,
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
        let mut found = BTreeMap::new();
        for (chunk, length, crc) in seals {
            if let Ok(replica) = self.find(*chunk) {
                found.entry(*chunk).or_insert((replica, *length, *crc));
            }
        }
        // Several replicas' locks are taken nowhere else, and here in the order of the chunks.
        let mut by_dir: BTreeMap<&Path, Vec<Held<'_>>> = BTreeMap::new();
        for (replica, length, crc) in found.values() {
            let held = self.to_write_down(replica, *length, *crc, sync);
            by_dir.entry(&replica.dir.path).or_default().extend(held);
        }
        let mut receipts = BTreeMap::new();
        for held in by_dir.into_values() {
            self.write_down(held, &mut receipts);
        }
        Ok(receipts)
    }

    fn to_write_down<'a>(
        &self,
        replica: &'a Arc<Replica>,
        length: u64,
        crc: Crc32,
        sync: SyncWhen,
    ) -> Option<Held<'a>> {
        let inner = lock(&replica.inner);
        let may_wait = || sync == SyncWhen::Later && lock(&replica.dir.unsynced).has_room();
        let only = !inner.gone
            && replica.dir.works()
            && step(&inner.record, length, crc) == SealStep::Record
            && (inner.record.durable || may_wait());
        let record = inner.record.sealed(length, crc, inner.record.tail_crc);
        only.then_some(Held { replica, inner, record })
    }

    /// All of one directory.
    fn write_down(&self, held: Vec<Held<'_>>, receipts: &mut BTreeMap<ChunkId, Receipt>) {
        let Some(dir) = held.first().map(|first| Arc::clone(&first.replica.dir)) else { return };
        let add = |changes: Changes, held: &Held<'_>| changes.replica(held.replica.chunk, &held.record);
        let changes = held.iter().fold(Changes::default(), add);
        if let Err(error) = self.write_index(&dir, changes, sync_points::COMMIT_RECORD) {
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
