//! The master's committed seal (S2).

use quarry_chunkserver_core::{
    record::Quarantine,
    sealing::{SealStep, step},
};
use quarry_env::OpenMode;
use quarry_types::{ChunkId, ChunkSums, Crc32, ErrorCode, Leadership, Receipt, limits::BLOCK_BYTES};

use super::{
    StoreError,
    dir::lock,
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points,
    synced_later::SyncWhen,
};

impl Shared {
    /// `sync`: when what a writer sealed without a sync becomes durable.
    pub(super) fn commit_seal(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
        sync: SyncWhen,
    ) -> Result<Receipt, StoreError> {
        let _following = self.while_following(by)?;
        let replica = self.find(chunk)?;
        let mut inner = lock(&replica.inner);
        if inner.gone {
            return Err(StoreError::no_replica(chunk));
        }
        replica.dir.index()?;
        let mut next = step(&inner.record, length, crc);
        if next == SealStep::Fence {
            self.stop(&replica, &mut inner, true)?;
            next = step(&inner.record, length, crc);
        }
        let record = inner.record;
        let mismatch = |what: &str| {
            StoreError::new(
                ErrorCode::Mismatch,
                format!(
                    "chunk {chunk}: the master's seal is {length} bytes with CRC {crc}, this replica {what} {} with {}",
                    record.length, record.crc
                ),
            )
        };
        match next {
            SealStep::Done => self.stop(&replica, &mut inner, sync == SyncWhen::Now)?,
            SealStep::Record => {
                let now = sync == SyncWhen::Now || !lock(&replica.dir.unsynced).has_room();
                self.stop(&replica, &mut inner, now)?;
                let tail_crc = inner.record.tail_crc;
                self.record_seal(&replica, &mut inner, length, crc, tail_crc)?;
                if !inner.record.durable {
                    self.sync_later(&replica, length);
                }
            }
            SealStep::Cut => {
                self.stop(&replica, &mut inner, true)?;
                let tail_crc = self.agreed_tail(&replica, &mut inner, length, crc)?;
                self.record_seal(&replica, &mut inner, length, crc, tail_crc)?;
                self.finish_cut(&replica, &mut inner)?;
            }
            SealStep::TooShort => return Err(mismatch("has only")),
            SealStep::Conflict => {
                let alarm = mismatch("was sealed as");
                tracing::error!(%chunk, error = %alarm, "two committed seals of one chunk");
                return Err(alarm);
            }
            SealStep::Differs => {
                let detail = mismatch("has").to_string();
                return Err(self.quarantine(&replica, &mut inner, Quarantine::Differs, &detail));
            }
            SealStep::Quarantined => return Err(self.in_quarantine(&replica, &record)),
            SealStep::Fence => {
                return Err(StoreError::new(ErrorCode::Internal, format!("chunk {chunk}: it is still open")));
            }
        }
        self.receipt(&replica, &inner)
    }

    fn record_seal(
        &self,
        replica: &Replica,
        inner: &mut Inner,
        length: u64,
        crc: Crc32,
        tail_crc: Crc32,
    ) -> Result<(), StoreError> {
        let record = inner.record.sealed(length, crc, tail_crc);
        let changes = Changes::default().replica(replica.chunk, &record);
        self.write_index(&replica.dir, changes, sync_points::COMMIT_RECORD)?;
        inner.record = record;
        self.note(replica, &inner.record);
        Ok(())
    }

    /// Whether a longer replica agrees with the seal up to `length`: the CRC of the partial block there, or quarantine.
    ///
    /// The writer gave a CRC for the whole last block only, so that of its first part has to come from the stored bytes.
    /// It counts only because the whole, with the writer's CRCs of the blocks before, must give the committed CRC.
    fn agreed_tail(&self, replica: &Replica, inner: &mut Inner, length: u64, crc: Crc32) -> Result<Crc32, StoreError> {
        let open = self.settled(replica, inner)?;
        let full = (length / BLOCK_BYTES) as usize;
        let part = (length % BLOCK_BYTES) as usize;
        let mut blocks = open.sums.full().get(..full).unwrap_or_default().to_vec();
        let mut tail_crc = Crc32::EMPTY;
        if part > 0 {
            let start = length - part as u64;
            let mut block = vec![0; (open.sums.length() - start).min(BLOCK_BYTES) as usize];
            if let Err(error) = open.file.read(start, &mut block) {
                return Err(self.read_failed(replica, inner, &error));
            }
            if open.sums.blocks().nth(full) != Some(Crc32::of(&block)) {
                return Err(self.quarantine(replica, inner, Quarantine::Checksum, "the block at the cut"));
            }
            tail_crc = Crc32::of(block.get(..part).unwrap_or_default());
            blocks.push(tail_crc);
        }
        match ChunkSums::from_blocks(blocks, length) {
            Some(sums) if sums.combined() == crc => Ok(tail_crc),
            _ => Err(self.quarantine(replica, inner, Quarantine::Differs, "up to the committed length")),
        }
    }

    /// Cuts what a sealed replica's bytes are in. The record says that it must be, so a crash in between is made up for at the
    /// next start, or at the next read.
    pub(super) fn finish_cut(&self, replica: &Replica, inner: &mut Inner) -> Result<(), StoreError> {
        lock(&self.files).evict(replica.chunk);
        let record = inner.record.cut_finished();
        let changes = match inner.record.in_index {
            true => match self.cut_row(replica, inner) {
                Ok(changes) => changes,
                Err(error) => return Err(self.read_failed(replica, inner, &error)),
            },
            false => {
                self.cut_file(replica, inner)?;
                Changes::default().replica(replica.chunk, &record)
            }
        };
        // Losing it is harmless: a start cuts again.
        self.write_index(&replica.dir, changes, sync_points::IN_ORDER)?;
        inner.record = record;
        inner.settle_room(&replica.dir);
        Ok(())
    }

    fn cut_file(&self, replica: &Replica, inner: &mut Inner) -> Result<(), StoreError> {
        let path = replica.dir.file(replica.chunk);
        let record = inner.record;
        let file = match ChunkFile::open(&*self.world.disk, &path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) => return Err(self.read_failed(replica, inner, &error)),
        };
        file.cut(record.length, record.tail_crc).map_err(|e| StoreError::io(&path, "cut", &e))?;
        if let Err(error) = file.sync(sync_points::CUT_DATA) {
            return Err(self.sync_failed(replica, inner, &path, &error));
        }
        Ok(())
    }
}
