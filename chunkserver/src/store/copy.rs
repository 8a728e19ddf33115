//! The receiving replica of a copy.
//!
//! Blocks go into a file that is not the chunk's. Once they are all there and combine to the seal (S3) the file is
//! synced, takes the chunk's name, the name is synced, and only then there is a record: whatever a crash leaves before
//! that counts for nothing, and a start removes it. A replica that the copy replaces stands until then. The blocks of a small
//! chunk are kept in memory instead, and become the replica together with its record.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use quarry_chunkserver_core::{
    assembly::{Assembly, Taken},
    layout::{Header, file_bytes},
    record::ReplicaRecord,
};
use quarry_types::{
    ChunkId, ChunkSums, Crc32, ErrorCode, Leadership, Receipt, ReplicaState,
    limits::{self, BLOCK_BYTES},
};

use super::{
    StoreError,
    dir::{Dir, lock},
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica},
    row,
    shared::Shared,
    sync_points,
    synced_later::SyncWhen,
};

/// Copies under way at once; further ones are refused as busy.
pub const COPIES_MAX: usize = limits::COPIES_PER_SERVER;
/// How the name of a file that receives a copy ends.
const SUFFIX: &str = "copy";

/// Whether a file received a copy. It never counts, whoever left it.
pub(super) fn is_copy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SUFFIX)
}

/// A copy under way, as long as the state names it.
pub(super) struct Receiving {
    pub(super) chunk: ChunkId,
    by: Leadership,
    dir: Arc<Dir>,
    path: PathBuf,
    /// Taken in the directory; the replica takes it over.
    room: u64,
    part: Mutex<Part>,
}

struct Part {
    place: Place,
    assembly: Assembly,
}

/// Where the blocks go.
enum Place {
    /// A chunk of no bytes has none.
    Nowhere,
    File(ChunkFile),
    /// On their way into the index.
    Memory(Vec<u8>),
}

/// What there is to do about a copy.
pub(super) enum Begun {
    /// The replica is good already.
    Here(Receipt),
    /// Blocks are wanted.
    Receiving(Arc<Receiving>),
}

impl Shared {
    pub(super) fn begin_copy(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<Begun, StoreError> {
        let cluster = self.cluster()?;
        let assembly = Assembly::new(length, crc).ok_or_else(|| {
            StoreError::new(ErrorCode::InvalidArgument, format!("no chunk has {length} bytes with CRC {crc}"))
        })?;
        let old = lock(&self.state).replicas.get(&chunk).cloned();
        let dir = match old.filter(|replica| replica.dir.works()) {
            None => self.roomiest(chunk)?,
            Some(replica) => match self.settle_for(by, &replica, length, crc)? {
                Some(receipt) => return Ok(Begun::Here(receipt)),
                None => Arc::clone(&replica.dir),
            },
        };
        let in_index = self.belongs_in_index(length);
        let room = if length == 0 || in_index { length } else { file_bytes(length) };
        dir.take(&*self.world.disk, room)?;
        let number = self.world.random.next_u64();
        let path = dir.shelf(chunk).join(format!("{:016x}.{number:016x}.{SUFFIX}", chunk.0));
        let part = Mutex::new(Part { place: Place::Nowhere, assembly });
        let copy = Arc::new(Receiving { chunk, by, dir, path, room, part });
        // Held from before anyone can find the copy.
        let mut part = lock(&copy.part);
        if let Err(error) = self.admit_copy(&copy) {
            copy.dir.release(room);
            return Err(error);
        }
        if in_index {
            part.place = Place::Memory(vec![0; length as usize]);
        } else if length > 0 {
            match ChunkFile::create(&*self.world.disk, &copy.path, &Header { cluster, server: self.server, chunk }) {
                Ok(file) => part.place = Place::File(file),
                Err(error) => {
                    self.end_copy(&copy);
                    return Err(StoreError::io(&copy.path, "create", &error));
                }
            }
        }
        drop(part);
        Ok(Begun::Receiving(copy))
    }

    /// Tries to do with the replica that is here. `None` when a copy may take its place.
    fn settle_for(
        &self,
        by: Leadership,
        replica: &Replica,
        length: u64,
        crc: Crc32,
    ) -> Result<Option<Receipt>, StoreError> {
        let chunk = replica.chunk;
        if lock(&replica.inner).record.state == ReplicaState::Open {
            return Err(StoreError::new(
                ErrorCode::Conflict,
                format!("chunk {chunk} is being written here and cannot be copied; fence it first"),
            ));
        }
        match self.commit_seal(by, chunk, length, crc, SyncWhen::Now) {
            Ok(receipt) => Ok(Some(receipt)),
            Err(error) if replaceable(&lock(&replica.inner), length) => {
                tracing::info!(%chunk, %error, "the replica is to be replaced by a copy");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn admit_copy(&self, copy: &Arc<Receiving>) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        let busy =
            |why: &str| StoreError::new(ErrorCode::Busy, format!("chunk {}: {why}; try again later", copy.chunk));
        if state.copies.contains_key(&copy.chunk) {
            return Err(busy("it is being copied to this server already"));
        }
        if state.copies.len() >= COPIES_MAX {
            return Err(busy(&format!("{COPIES_MAX} chunks are being copied to this server")));
        }
        state.copies.insert(copy.chunk, Arc::clone(copy));
        Ok(())
    }

    /// The part of a copy, unless the copy was ended, for example by a delete.
    fn part<'a>(&self, copy: &'a Arc<Receiving>) -> Result<MutexGuard<'a, Part>, StoreError> {
        let part = lock(&copy.part);
        let state = lock(&self.state);
        if state.copies.get(&copy.chunk).is_some_and(|current| Arc::ptr_eq(current, copy)) {
            Ok(part)
        } else {
            Err(ended(copy))
        }
    }

    /// Verifies blocks and keeps the good ones that are missing; how many were bad.
    pub(super) fn take_copied(
        &self,
        copy: &Arc<Receiving>,
        offset: u64,
        crcs: &[Crc32],
        data: &Bytes,
    ) -> Result<u64, StoreError> {
        let invalid = |what: &dyn std::fmt::Display| {
            StoreError::new(ErrorCode::InvalidArgument, format!("chunk {}: {what}", copy.chunk))
        };
        let mut part = self.part(copy)?;
        let Part { place, assembly } = &mut *part;
        copy.dir.index()?;
        let blocks = data.chunks(BLOCK_BYTES as usize);
        if blocks.len() != crcs.len() {
            return Err(invalid(&format!("{} blocks at {offset} came with {} CRCs", blocks.len(), crcs.len())));
        }
        let (mut at, mut bad) = (offset, 0);
        for (block, crc) in blocks.zip(crcs) {
            match assembly.take(at, *crc, block).map_err(|e| invalid(&e))? {
                Taken::New => match place {
                    Place::Nowhere => return Err(invalid(&"an empty chunk takes no blocks")),
                    Place::File(file) => {
                        file.write(at, block).map_err(|e| StoreError::io(&copy.path, "write", &e))?;
                    }
                    Place::Memory(all) => {
                        let from = usize::try_from(at).unwrap_or(usize::MAX);
                        let to = all.get_mut(from..from.saturating_add(block.len()));
                        to.ok_or_else(|| invalid(&"a block behind its end"))?.copy_from_slice(block);
                    }
                },
                Taken::Known => {}
                Taken::Bad => bad += 1,
            }
            at = at.saturating_add(block.len() as u64);
        }
        if let Place::File(file) = place {
            // A sync of all of it at once would hold up those of the writers.
            file.begin_sync(offset, data.len() as u64);
        }
        Ok(bad)
    }

    /// Changes or looks at what is known of the blocks.
    pub(super) fn with_assembly<T>(copy: &Receiving, look: impl FnOnce(&mut Assembly) -> T) -> T {
        look(&mut lock(&copy.part).assembly)
    }

    /// Makes a copy that is together the replica.
    pub(super) fn finish_copy(&self, copy: &Arc<Receiving>) -> Result<Receipt, StoreError> {
        let chunk = copy.chunk;
        let mut part = self.part(copy)?;
        let sums = part.assembly.settle().ok_or_else(|| {
            StoreError::new(
                ErrorCode::Corrupt,
                format!("chunk {chunk}: its blocks do not combine to the committed CRC"),
            )
        })?;
        self.write_copy(copy, &part, &sums).map_err(|e| StoreError::io(&copy.path, "sync", &e))?;
        let (record, row) = match &part.place {
            Place::Memory(bytes) => {
                let row = row::encode(&self.header(chunk)?, &sums, bytes);
                (ReplicaRecord::copied(&sums).with_bytes_in_index(), Some(row))
            }
            Place::Nowhere | Place::File(_) => (ReplicaRecord::copied(&sums), None),
        };
        drop(part);
        // From here on nobody else begins to lead, so that this order is not an older leader's when it takes effect.
        let _following = self.while_following(copy.by)?;
        let replica = Arc::new(Replica::new(chunk, Arc::clone(&copy.dir), record, copy.room));
        // Held from before anyone can find it: whoever does waits until it is the replica or has failed.
        let mut inner = lock(&replica.inner);
        let old = lock(&self.state).replicas.get(&chunk).cloned();
        let mut old_inner = old.as_ref().map(|old| lock(&old.inner));
        self.take_place(copy, &replica, old.as_ref().zip(old_inner.as_deref()), sums.length())?;
        let replaced = old.as_deref().zip(old_inner.as_ref().map(|inner| inner.record));
        if let Err(error) = self.establish(copy, replaced, &record, row) {
            tracing::warn!(%chunk, %error, "a copy could not become the replica");
            inner.gone = true;
            copy.dir.release(copy.room);
            let mut state = lock(&self.state);
            match &old {
                Some(old) => state.replicas.insert(chunk, Arc::clone(old)),
                None => state.replicas.remove(&chunk),
            };
            return Err(error);
        }
        if let (Some(old), Some(old_inner)) = (&old, &mut old_inner) {
            old_inner.gone = true;
            old.dir.release(old_inner.room);
        }
        lock(&self.files).evict(chunk);
        self.note(&replica, &inner.record);
        self.receipt(&replica, &inner)
    }

    /// All block CRCs into the page, and everything onto the disk. After a failed sync the file is of no further use.
    fn write_copy(&self, copy: &Receiving, part: &Part, sums: &ChunkSums) -> io::Result<()> {
        let Place::File(file) = &part.place else { return Ok(()) };
        copy.dir.index().map_err(io::Error::other)?;
        file.settle(sums)?;
        file.sync(sync_points::COPY_DATA)
    }

    /// The moment from which the copy is what others find. A delete that came before it has ended the copy.
    fn take_place(
        &self,
        copy: &Arc<Receiving>,
        replica: &Arc<Replica>,
        old: Option<(&Arc<Replica>, &Inner)>,
        length: u64,
    ) -> Result<(), StoreError> {
        let chunk = copy.chunk;
        let mut state = lock(&self.state);
        if !state.copies.get(&chunk).is_some_and(|current| Arc::ptr_eq(current, copy)) {
            return Err(ended(copy));
        }
        let unchanged = match (state.replicas.get(&chunk), old) {
            (None, None) => true,
            (Some(now), Some((old, inner))) => {
                Arc::ptr_eq(now, old) && (replaceable(inner, length) || !old.dir.works())
            }
            _ => false,
        };
        if !unchanged {
            let message = format!("chunk {chunk}: its replica here changed while it was copied; order it again");
            return Err(StoreError::new(ErrorCode::Busy, message));
        }
        state.copies.remove(&chunk);
        state.replicas.insert(chunk, Arc::clone(replica));
        Ok(())
    }

    /// Gives the file the chunk's name and the chunk its record, each durable before the next; or the record its row.
    fn establish(
        &self,
        copy: &Receiving,
        old: Option<(&Replica, ReplicaRecord)>,
        record: &ReplicaRecord,
        row: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (disk, path, shelf) = (&*self.world.disk, copy.dir.file(copy.chunk), copy.dir.shelf(copy.chunk));
        let old = old.filter(|(old, _)| old.dir.works());
        let bad = old.filter(|(old, _)| record.length > 0 && old.is_quarantined());
        let wreck =
            bad.filter(|(_, was)| was.in_index).and_then(|(old, _)| self.open_body(old, true).ok()?.whole().ok());
        if let Some((old, _)) = bad.filter(|(_, was)| !was.in_index) {
            self.keep(old)?;
        }
        let changes = Changes::default().replica(copy.chunk, record);
        if let Some(row) = row {
            self.write_index(&copy.dir, changes.bytes(copy.chunk, row), sync_points::COPY_RECORD)?;
            self.keep_row(old, wreck);
            // Should the name come back after a power loss, nothing claims it and the next start removes it.
            return match disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a replaced file stays until the next start");
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        if record.length > 0 {
            disk.rename(&copy.path, &path).map_err(|e| StoreError::io(&path, "rename the copy to", &e))?;
            disk.sync_dir(&shelf, sync_points::COPY_DIR).map_err(|e| StoreError::io(&shelf, "sync", &e))?;
        }
        // There may be the row of an older replica, also of one that was not used.
        self.write_index(&copy.dir, changes.no_bytes(copy.chunk), sync_points::COPY_RECORD)?;
        self.keep_row(old, wreck);
        Ok(())
    }

    /// Keeps what was read of a replaced row.
    fn keep_row(&self, old: Option<(&Replica, ReplicaRecord)>, wreck: Option<Vec<u8>>) {
        if let (Some((old, _)), Some(wreck)) = (old, wreck)
            && let Err(error) = self.keep_bytes(old, &wreck)
        {
            tracing::warn!(chunk = %old.chunk, %error, "what was in quarantine is not kept");
        }
    }

    /// Ends a copy that has not become the replica: its room is free again at once. True for the one that ends it.
    pub(super) fn end_copy(&self, copy: &Arc<Receiving>) -> bool {
        let mut state = lock(&self.state);
        let current = state.copies.get(&copy.chunk).is_some_and(|current| Arc::ptr_eq(current, copy));
        if current {
            state.copies.remove(&copy.chunk);
            copy.dir.release(copy.room);
        }
        current
    }

    /// Removes the file of a copy that was given up.
    pub(super) fn abandon_copy(&self, copy: &Arc<Receiving>) {
        self.end_copy(copy);
        // What is still being written is waited for.
        let _part = lock(&copy.part);
        match self.world.disk.remove_file(&copy.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %copy.path.display(), %error, "an unfinished copy stays until the next start");
            }
            _ => {}
        }
    }
}

/// Whether a copy of `length` bytes may take the place of a replica.
fn replaceable(inner: &Inner, length: u64) -> bool {
    let record = &inner.record;
    !inner.gone
        && match record.state {
            ReplicaState::Quarantined => true,
            // What it has is a part of the chunk at best, and never served as the chunk.
            ReplicaState::Fenced => record.length < length,
            ReplicaState::Open | ReplicaState::Sealed => false,
        }
}

fn ended(copy: &Receiving) -> StoreError {
    StoreError::new(
        ErrorCode::Unavailable,
        format!("chunk {}: its copying was ended, by a deletion or a stop; order it again if it is wanted", copy.chunk),
    )
}
