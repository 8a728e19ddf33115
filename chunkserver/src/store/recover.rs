//! What a start does with the replicas it finds.
//!
//! Open ones are cut back to what is proven and fenced (S1), sealed ones that were not synced are proven, interrupted cuts
//! are finished (S2), missing files are noticed. Other sealed data is not read: that is what scrubbing is for, and a start
//! must not take hours.
//!
//! Files that no record claims are removed. That is safe because a replica has a durable record before anything of it is
//! acknowledged, which is deleted only by an order that the master has committed (S6), and a copy is answered only when it
//! has a record: such a file is one whose unlinking a power loss undid, or a chunk or a copy that nobody counts on. It rests
//! on the indexes being complete, so nothing is removed while a directory is failed or missing. The file of an unfinished
//! copy has a name of its own and always goes.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use quarry_chunkserver_core::{
    disk_health::file_is_lost,
    layout::Header,
    record::{Mark, Quarantine, ReplicaRecord},
    recovery::{Recovered, Recovery},
};
use quarry_env::{Disk, OpenMode};
use quarry_types::{ChunkId, ChunkSums, ReplicaState, limits::BLOCK_BYTES};

use super::{
    StoreError,
    copy::is_copy,
    dir::{self, Dir, lock},
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica, room_of},
    shared::Shared,
    sync_points,
};

/// Records written to an index at once.
const BATCH: usize = 1024;

/// What came out of a file.
struct Proof {
    sums: ChunkSums,
    /// Nothing of what this server stated before is missing.
    complete: bool,
}

impl Shared {
    /// Loads what the indexes say and puts the files in order.
    pub(super) fn recover(&self) {
        let dirs = self.dirs();
        for dir in &dirs {
            if let Err(error) = self.load_records(dir) {
                self.fail_dir(dir, &error.to_string());
            }
        }
        if self.forgetful() {
            tracing::error!(
                "a data directory that this chunkserver once had is missing or failed: chunks that are not found here may be \
                 there, so fences of unknown chunks are answered with an error"
            );
        }
        for dir in &dirs {
            if let Err(error) = self.recover_dir(dir) {
                self.fail_dir(dir, &error.to_string());
            }
            self.obey_verdict(dir);
        }
        let replicas: Vec<_> = lock(&self.state).replicas.values().cloned().collect();
        for replica in replicas {
            let record = lock(&replica.inner).record;
            self.note(&replica, &record);
        }
    }

    /// Takes over what an index says. Replicas of a directory that is out of service make way.
    pub(super) fn load_records(&self, dir: &Arc<Dir>) -> Result<(), StoreError> {
        let Ok(index) = dir.index() else { return Ok(()) };
        let (mut records, mut tombstones) = (Vec::new(), Vec::new());
        index.replicas(|chunk, record| records.push((chunk, record)))?;
        index.tombstones(|chunk| tombstones.push(chunk))?;
        let stamps = index.verified()?;
        for (chunk, record) in records {
            self.load_record(dir, chunk, record, stamps.get(&chunk).copied());
        }
        let mut state = lock(&self.state);
        let watermark = state.watermark;
        let above = tombstones.into_iter().filter(|chunk| *chunk >= watermark);
        state.tombstones.extend(above.map(|chunk| (chunk, true)));
        state.roster.read.extend(dir.id);
        Ok(())
    }

    fn load_record(&self, dir: &Arc<Dir>, chunk: ChunkId, record: ReplicaRecord, stamp: Option<u64>) {
        let other = lock(&self.state).replicas.get(&chunk).cloned();
        let sealed = record.state == ReplicaState::Sealed;
        if let Some(other) = other.as_ref().filter(|other| other.dir.works()) {
            // This directory was away when the chunk came a second time. A sealed replica is the better one.
            let better = sealed && lock(&other.inner).record.state != ReplicaState::Sealed;
            if !better {
                tracing::warn!(%chunk, used = %other.dir.path.display(), unused = %dir.path.display(), "two replicas");
                return;
            }
        }
        let room = room_of(&record);
        let replica = Arc::new(Replica::new(chunk, Arc::clone(dir), record, room));
        let mut state = lock(&self.state);
        if state.replicas.get(&chunk).map(Arc::as_ptr) != other.as_ref().map(Arc::as_ptr) {
            // A copy has come meanwhile.
            return;
        }
        dir.count(room);
        state.replicas.insert(chunk, replica);
        if sealed && record.length > 0 {
            let (now, wall) = (self.now_ms(), self.world.clock.wall_ms());
            state.schedule.found(chunk, record.length, stamp, now, wall);
        }
    }

    pub(super) fn recover_dir(&self, dir: &Arc<Dir>) -> Result<(), StoreError> {
        if !dir.works() {
            return Ok(());
        }
        let files = self.list_files(dir)?;
        self.find_kept(dir)?;
        let replicas: Vec<_> =
            lock(&self.state).replicas.values().filter(|r| Arc::ptr_eq(&r.dir, dir)).cloned().collect();
        let mut recovered = Changes::default();
        for replica in replicas {
            let mut inner = lock(&replica.inner);
            let record = inner.record;
            match record.state {
                ReplicaState::Quarantined => {}
                _ if record.state == ReplicaState::Open || !record.durable => {
                    let fenced = self.recover_open(&replica, &mut inner)?;
                    if fenced {
                        recovered = recovered.replica(replica.chunk, &inner.record);
                    }
                }
                _ if record.length > 0 && !record.in_index && !files.contains(&replica.chunk) => {
                    self.quarantine(&replica, &mut inner, Quarantine::Missing, "found at the start");
                }
                // If it fails a read tries again, or says why not.
                _ if record.cut_pending => {
                    if let Err(error) = self.finish_cut(&replica, &mut inner) {
                        tracing::error!(chunk = %replica.chunk, %error, "an interrupted cut could not be finished");
                    }
                }
                _ => {}
            }
            drop(inner);
            if recovered.len() >= BATCH {
                self.write_index(dir, std::mem::take(&mut recovered), sync_points::IN_ORDER)?;
            }
        }
        if recovered.len() > 0 {
            // As long as they are not durable, the next start proves the same again.
            self.write_index(dir, recovered, sync_points::IN_ORDER)?;
        }
        Ok(())
    }

    /// The chunks that have a file in a directory. Removes files that nothing claims.
    fn list_files(&self, dir: &Arc<Dir>) -> Result<BTreeSet<ChunkId>, StoreError> {
        let disk = &*self.world.disk;
        let complete = !self.forgetful() && self.dirs().iter().all(|other| other.works() || other.path == dir.path);
        let mut files = BTreeSet::new();
        for byte in 0..=u8::MAX {
            let shelf = dir.chunks().join(dir::shelf_name(byte));
            for path in disk.list(&shelf).map_err(|e| StoreError::io(&shelf, "list", &e))? {
                if is_copy(&path) {
                    remove(disk, &path, "an unfinished copy");
                    continue;
                }
                let Some(chunk) = dir::chunk_of(&path).filter(|chunk| dir.file(*chunk) == path) else {
                    tracing::warn!(file = %path.display(), "not a chunk file; it is left alone");
                    continue;
                };
                files.insert(chunk);
                if self.claims(dir, chunk) || !complete {
                    continue;
                }
                remove(disk, &path, "a file that no record claims");
            }
        }
        Ok(files)
    }

    /// Whether a file may be a replica's: of one whose bytes are in the index it is what that replaced.
    fn claims(&self, dir: &Arc<Dir>, chunk: ChunkId) -> bool {
        let replica = lock(&self.state).replicas.get(&chunk).cloned();
        let in_index = |replica: &Replica| Arc::ptr_eq(&replica.dir, dir) && lock(&replica.inner).record.in_index;
        replica.is_some_and(|replica| !in_index(&replica))
    }

    /// Cuts a replica back to what is proven and fences it; whether there is a new record to be written. One that is sealed for
    /// ever, and was not synced, is proven whole or goes into quarantine. An error means that the disk cannot be used.
    fn recover_open(&self, replica: &Replica, inner: &mut Inner) -> Result<bool, StoreError> {
        let path = replica.dir.file(replica.chunk);
        let sealed = inner.record.state == ReplicaState::Sealed;
        let failed = |e: io::Error| StoreError::io(&path, "recover", &e);
        let file = match ChunkFile::open(&*self.world.disk, &path, OpenMode::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return self.unreadable(replica, inner, error),
        };
        let proof = match &file {
            Some(file) => match self.prove(file, replica.chunk, &inner.record) {
                Ok(proof) => proof,
                Err(error) => return self.unreadable(replica, inner, error),
            },
            None => prove_nothing(&inner.record),
        };
        let Proof { sums, complete } = match proof {
            Ok(proof) => proof,
            Err(proven) => {
                let detail = format!("{proven} bytes are proven, {} were flushed", inner.record.flushed.length);
                self.quarantine(replica, inner, Quarantine::BelowFlushedMark, &detail);
                return Ok(false);
            }
        };
        if sealed && !complete {
            let detail =
                format!("{} bytes of {} are proven; it had not been synced", sums.length(), inner.record.length);
            self.quarantine(replica, inner, Quarantine::Missing, &detail);
            return Ok(false);
        }
        if !sealed {
            tracing::info!(chunk = %replica.chunk, bytes = sums.length(), "an open replica is fenced by the restart");
        }
        if let Some(file) = file.filter(|_| sums.length() > 0) {
            file.settle(&sums).map_err(failed)?;
            if let Err(error) = file.sync(sync_points::RECOVERY_DATA) {
                self.sync_failed(replica, inner, &path, &error);
                return Ok(false);
            }
            let shelf = replica.dir.shelf(replica.chunk);
            if let Err(error) = self.world.disk.sync_dir(&shelf, sync_points::RECOVERY_DIR) {
                self.sync_failed(replica, inner, &shelf, &error);
                return Ok(false);
            }
        }
        inner.record = match sealed {
            true => inner.record.made_durable(),
            false => inner.record.fenced(&sums, true, inner.record.restarted || !complete),
        };
        inner.settle_room(&replica.dir);
        Ok(true)
    }

    /// A file that the disk gave up costs its own replica; any other error says that the disk cannot be used.
    fn unreadable(&self, replica: &Replica, inner: &mut Inner, error: io::Error) -> Result<bool, StoreError> {
        if !file_is_lost(&error) {
            return Err(StoreError::io(&replica.dir.file(replica.chunk), "recover", &error));
        }
        self.quarantine(replica, inner, Quarantine::Missing, &error.to_string());
        Ok(false)
    }

    /// What of a file is proven; how much, when that is less than was flushed.
    fn prove(&self, file: &ChunkFile, chunk: ChunkId, record: &ReplicaRecord) -> io::Result<Result<Proof, u64>> {
        let head = match file.head() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(prove_nothing(record)),
            other => other?,
        };
        let cluster = lock(&self.state).cluster.unwrap_or_default();
        if head.header != Ok(Header { cluster, server: self.server, chunk }) {
            return Ok(prove_nothing(record));
        }
        let bytes = file.data_bytes()?;
        if matches!(record.state, ReplicaState::Fenced | ReplicaState::Sealed) {
            // It was settled without a sync. If nothing of it is missing, then what was stated about it still holds.
            let stated = Mark { length: record.length, tail_crc: record.tail_crc };
            let mut recovery = Recovery::new(head.slots.clone(), bytes.min(record.length), stated);
            walk(file, &mut recovery);
            if let Recovered::Proven(sums) = recovery.finish()
                && sums.combined() == record.crc
            {
                return Ok(Ok(Proof { sums, complete: true }));
            }
        }
        let mut recovery = Recovery::new(head.slots, bytes, record.flushed);
        walk(file, &mut recovery);
        Ok(match recovery.finish() {
            Recovered::Proven(sums) => Ok(Proof { sums, complete: false }),
            Recovered::BelowFlushedMark { proven } => Err(proven),
        })
    }
}

fn remove(disk: &dyn Disk, path: &Path, what: &str) {
    match disk.remove_file(path) {
        Ok(()) => tracing::info!(file = %path.display(), "removed {what}"),
        Err(error) => tracing::warn!(file = %path.display(), %error, "{what} stays"),
    }
}

fn prove_nothing(record: &ReplicaRecord) -> Result<Proof, u64> {
    if record.flushed.length > 0 { Err(0) } else { Ok(Proof { sums: ChunkSums::default(), complete: false }) }
}

/// One block in memory at a time. A block that cannot be read is not proven.
fn walk(file: &ChunkFile, recovery: &mut Recovery) {
    let mut block = vec![0; BLOCK_BYTES as usize];
    while let Some(wanted) = recovery.wanted() {
        let part = block.get_mut(..wanted.bytes as usize).unwrap_or_default();
        match file.read(wanted.offset, part) {
            Ok(()) => recovery.step(part),
            Err(_) => recovery.step(&[]),
        }
    }
}
