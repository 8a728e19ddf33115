//! Appending, flushing and sealing by the one writer.

use bytes::Bytes;
use quarry_chunkserver_core::{Durability, record::Mark};
use quarry_types::{ChunkId, ChunkSums, Crc32, ErrorCode, Receipt, planted};

use super::{
    StoreError,
    dir::lock,
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points,
};

/// The disk is told to begin with so many bytes at once, while the next ones arrive: the sync at the end has little left to
/// wait for.
const BEGIN_SYNC_BYTES: u64 = 8 << 20;

impl Shared {
    pub(super) fn append(
        &self,
        replica: &Replica,
        offset: u64,
        pieces: &[(Crc32, u64)],
        data: &Bytes,
    ) -> Result<(), StoreError> {
        verify_pieces(replica, offset, pieces, data)?;
        let mut inner = lock(&replica.inner);
        let sums = sums_after(replica, &mut inner, offset, pieces, data)?;
        self.write_next(replica, &mut inner, sums, data)
    }

    /// [`Shared::append`] of the last bytes and [`Shared::seal`] in one. A chunk that comes whole takes one record and three syncs,
    /// and a small one a single sync.
    pub(super) fn append_last(
        &self,
        replica: &Replica,
        offset: u64,
        pieces: &[(Crc32, u64)],
        data: &Bytes,
        end: (u64, Crc32),
    ) -> Result<Receipt, StoreError> {
        verify_pieces(replica, offset, pieces, data)?;
        let mut inner = lock(&replica.inner);
        let sums = sums_after(replica, &mut inner, offset, pieces, data)?;
        // One that will not be sealed after all is an open replica like others, with a record of its own.
        let whole = !inner.has_begun() && (sums.length(), sums.combined()) == end;
        if whole && self.belongs_in_index(sums.length()) {
            return self.settle_in_index(replica, &mut inner, &sums, data);
        }
        if whole {
            self.begin_whole(replica, &mut inner, sums, data)?;
        } else {
            self.write_next(replica, &mut inner, sums, data)?;
        }
        self.end(replica, &mut inner, end)
    }

    /// A chunk that comes whole with its end, in one: [`Shared::create`] and [`Shared::append_last`].
    pub(super) fn write_whole(
        &self,
        chunk: ChunkId,
        limit: u64,
        data: &Bytes,
        crc: Crc32,
    ) -> Result<Receipt, StoreError> {
        let length = data.len() as u64;
        let replica = self.create(chunk, limit)?;
        self.append_last(&replica, 0, &[(crc, length)], data, (length, crc))
    }

    /// Writes the bytes up to which `sums` go behind those that are there.
    fn write_next(
        &self,
        replica: &Replica,
        inner: &mut Inner,
        sums: ChunkSums,
        data: &Bytes,
    ) -> Result<(), StoreError> {
        if !inner.has_begun() {
            self.begin(replica, inner)?;
        }
        let (chunk, bytes) = (replica.chunk, data.len() as u64);
        let live = inner.writable(chunk)?;
        let Some(file) = &live.file else {
            return Err(StoreError::new(ErrorCode::Internal, format!("chunk {}: open without a file", replica.chunk)));
        };
        replica.dir.take(&*self.world.disk, bytes)?;
        if let Err(error) = write(file, live.sums.length(), live.sums.full().len(), &sums, data) {
            // Part of it may be in the file, behind what counts. A fence cuts it off.
            let error = StoreError::io(&replica.dir.file(chunk), "write", &error);
            live.broken = Some(error.clone());
            replica.dir.release(bytes);
            return Err(error);
        }
        live.sums = sums;
        let waits = live.sums.length() - live.begun;
        if self.durability == Durability::Sealed && waits >= BEGIN_SYNC_BYTES {
            file.begin_sync(live.begun, waits);
            live.begun += waits;
        }
        lock(&replica.progress).write(&live.sums);
        inner.room += bytes;
        Ok(())
    }

    pub(super) fn flush(&self, replica: &Replica, length: u64) -> Result<(), StoreError> {
        let mut inner = lock(&replica.inner);
        let flushed = inner.record.flushed.length;
        let live = inner.writable(replica.chunk)?;
        let mark = Mark::of(&live.sums);
        if length > mark.length {
            return Err(invalid(replica, &format!("a flush up to {length}, but only {} bytes are here", mark.length)));
        }
        if self.durability == Durability::Buffered || length <= flushed {
            return Ok(());
        }
        self.sync_live(replica, &mut inner, Wanted::Flush)?;
        let record = inner.record.flushed_to(mark);
        let changes = Changes::default().replica(replica.chunk, &record);
        self.write_index(&replica.dir, changes, sync_points::FLUSH_MARK)?;
        inner.record = record;
        Ok(())
    }

    pub(super) fn seal(&self, replica: &Replica, length: u64, crc: Crc32) -> Result<Receipt, StoreError> {
        self.end(replica, &mut lock(&replica.inner), (length, crc))
    }

    fn end(&self, replica: &Replica, inner: &mut Inner, (length, crc): (u64, Crc32)) -> Result<Receipt, StoreError> {
        let live = inner.writable(replica.chunk)?;
        let (here, here_crc) = (live.sums.length(), live.sums.combined());
        if (here, here_crc) != (length, crc) {
            return Err(StoreError::new(
                ErrorCode::Mismatch,
                format!(
                    "chunk {}: sealed as {length} bytes with CRC {crc}, here are {here} with {here_crc}",
                    replica.chunk
                ),
            ));
        }
        self.stop(replica, inner, self.durability == Durability::Sealed)?;
        self.receipt(replica, inner)
    }

    /// Makes an open replica's data, block CRCs and name durable. A failed sync condemns the replica.
    pub(super) fn sync_live(&self, replica: &Replica, inner: &mut Inner, why: Wanted) -> Result<(), StoreError> {
        let (data_point, dir_point) = match why {
            Wanted::Flush => (sync_points::FLUSH_DATA, sync_points::FLUSH_DIR),
            Wanted::Fence => (sync_points::FENCE_DATA, sync_points::FENCE_DIR),
        };
        let Some(live) = &mut inner.live else { return Ok(()) };
        let Some(file) = &live.file else { return Ok(()) };
        match why {
            Wanted::Flush if planted!("skip-fsync-of-flush") => return Ok(()),
            Wanted::Fence if planted!("skip-fsync-before-receipt") => return Ok(()),
            _ => {}
        }
        if let Err(error) = file.sync(data_point) {
            return Err(self.sync_failed(replica, inner, &replica.dir.file(replica.chunk), &error));
        }
        if live.named {
            return Ok(());
        }
        let shelf = replica.dir.shelf(replica.chunk);
        match self.world.disk.sync_dir(&shelf, dir_point) {
            Ok(()) => live.named = true,
            Err(error) => return Err(self.sync_failed(replica, inner, &shelf, &error)),
        }
        Ok(())
    }
}

/// What an open replica is synced for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// It goes on afterwards.
    Flush,
    /// It ends.
    Fence,
}

fn invalid(replica: &Replica, what: &str) -> StoreError {
    StoreError::new(ErrorCode::InvalidArgument, format!("chunk {}: {what}", replica.chunk))
}

/// Nothing that its CRC does not vouch for reaches the disk (S3).
fn verify_pieces(replica: &Replica, offset: u64, pieces: &[(Crc32, u64)], data: &Bytes) -> Result<(), StoreError> {
    let total = pieces.iter().fold(0u64, |all, (_, bytes)| all.saturating_add(*bytes));
    if data.is_empty() || total != data.len() as u64 {
        return Err(invalid(replica, &format!("the pieces cover {total} of {} bytes at {offset}", data.len())));
    }
    let mut rest = &data[..];
    for (crc, bytes) in pieces {
        let at = usize::try_from(*bytes).unwrap_or(usize::MAX);
        let Some((piece, tail)) = rest.split_at_checked(at) else {
            return Err(invalid(replica, &format!("a piece of {bytes} bytes does not fit")));
        };
        if Crc32::of(piece) != *crc {
            return Err(StoreError::new(
                ErrorCode::Corrupt,
                format!(
                    "chunk {}: bytes at {offset} fail their checksum: damaged on the way; send them again",
                    replica.chunk
                ),
            ));
        }
        rest = tail;
    }
    Ok(())
}

/// The sums of a replica with `data` behind what it has, if that is where it belongs.
fn sums_after(
    replica: &Replica,
    inner: &mut Inner,
    offset: u64,
    pieces: &[(Crc32, u64)],
    data: &Bytes,
) -> Result<ChunkSums, StoreError> {
    let bytes = data.len() as u64;
    let live = inner.writable(replica.chunk)?;
    let (here, limit) = (live.sums.length(), live.limit);
    if offset != here || offset.saturating_add(bytes) > limit {
        return Err(invalid(replica, &format!("{bytes} bytes at {offset} do not continue its {here} within {limit}")));
    }
    let mut sums = live.sums.clone();
    for (crc, bytes) in pieces {
        sums.push(*crc, *bytes).map_err(|e| invalid(replica, &e.to_string()))?;
    }
    Ok(sums)
}

/// Writes data at `offset`, then the CRCs of the blocks that it completes, behind the `done` ones. `sums` are those after it.
fn write(file: &ChunkFile, offset: u64, done: usize, sums: &ChunkSums, data: &Bytes) -> std::io::Result<()> {
    file.write(offset, data)?;
    file.write_slots(done, sums.full().get(done..).unwrap_or_default())
}
