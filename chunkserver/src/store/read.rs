//! Reading and checking settled replicas, and reading open ones.

use std::{io, sync::Arc};

use bytes::Bytes;
use quarry_chunkserver_core::{
    layout::{DATA_OFFSET, Header, blocks},
    record::Quarantine,
};
use quarry_client::reused::Memory;
use quarry_env::DiskFile;
use quarry_proto::{frame::Frame, v1};
use quarry_types::{
    ChunkId, ChunkSums, Crc32, ErrorCode, Receipt, ReplicaState,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};

use super::{
    StoreError,
    cache::OpenFile,
    dir::lock,
    file::{ChunkFile, Head},
    replica::{Inner, Replica},
    shared::Shared,
};

/// What one read returns at most, in bytes.
const READ_BYTES_MAX: u64 = 4 * PACKET_BYTES;

impl Shared {
    /// Checks that the replica is what the caller names. `None` for one of no bytes: it needs no file.
    pub(super) fn open_settled(
        &self,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<(Arc<Replica>, Option<Arc<OpenFile>>), StoreError> {
        let replica = self.find(chunk)?;
        let mut inner = lock(&replica.inner);
        self.check_named(&replica, &inner, length, crc)?;
        let file = if length == 0 { None } else { Some(self.settled(&replica, &mut inner)?) };
        drop(inner);
        Ok((replica, file))
    }

    /// As [`Shared::open_settled`] when that takes no wait: the file is open, and nobody is at the replica. `None` says nothing.
    pub(super) fn settled_at_hand(
        &self,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Option<(Arc<Replica>, Arc<OpenFile>)> {
        let replica = self.find(chunk).ok()?;
        let inner = replica.inner.try_lock().ok()?;
        self.check_named(&replica, &inner, length, crc).ok()?;
        if length == 0 || inner.record.cut_pending {
            return None;
        }
        let file = lock(&self.files).get(chunk, length, crc, self.world.clock.now())?;
        drop(inner);
        Some((replica, file))
    }

    /// A replica that is being written.
    pub(super) fn find_open(&self, chunk: ChunkId) -> Result<Arc<Replica>, StoreError> {
        let replica = self.find(chunk)?;
        match lock(&replica.inner).writable(chunk) {
            Err(error) if error.code() == ErrorCode::Fenced => return Err(error),
            _ => {}
        }
        Ok(replica)
    }

    pub(super) fn check_named(
        &self,
        replica: &Replica,
        inner: &Inner,
        length: u64,
        crc: Crc32,
    ) -> Result<(), StoreError> {
        let (chunk, record) = (replica.chunk, &inner.record);
        if inner.gone {
            return Err(StoreError::no_replica(chunk));
        }
        replica.dir.index()?;
        if record.state == ReplicaState::Quarantined {
            return Err(self.in_quarantine(replica, record));
        }
        if !record.serves(length, crc) {
            return Err(StoreError::new(
                ErrorCode::Mismatch,
                format!(
                    "chunk {chunk}: {length} bytes with CRC {crc} were asked for, this replica is {:?} with {} bytes, CRC {}",
                    record.state, record.length, record.crc
                ),
            ));
        }
        Ok(())
    }

    /// The file of a settled replica, checked when it was opened.
    pub(super) fn settled(&self, replica: &Replica, inner: &mut Inner) -> Result<Arc<OpenFile>, StoreError> {
        if inner.record.cut_pending {
            self.finish_cut(replica, inner)?;
        }
        let (length, crc) = (inner.record.length, inner.record.crc);
        if let Some(file) = lock(&self.files).get(replica.chunk, length, crc, self.world.clock.now()) {
            return Ok(file);
        }
        let file = Arc::new(self.load(replica, inner)?);
        lock(&self.files).put(replica.chunk, Arc::clone(&file));
        Ok(file)
    }

    /// Opens the file and compares header and block CRCs with the record (S3). Reads no data.
    fn load(&self, replica: &Replica, inner: &mut Inner) -> Result<OpenFile, StoreError> {
        let checked = self.world.clock.now();
        let open = || -> io::Result<(ChunkFile, Head, u64)> {
            let file = self.open_body(replica, inner.record.in_index)?;
            let head = file.head()?;
            let bytes = file.data_bytes()?;
            Ok((file, head, bytes))
        };
        let (file, head, bytes) = match open() {
            Ok(opened) => opened,
            Err(error) => return Err(self.read_failed(replica, inner, &error)),
        };
        let wanted = Header { cluster: self.cluster()?, server: self.server, chunk: replica.chunk };
        let (length, crc) = (inner.record.length, inner.record.crc);
        let mut slots = head.slots;
        slots.truncate(blocks(length) as usize);
        let sums = ChunkSums::from_blocks(slots, length).filter(|sums| sums.combined() == crc);
        let detail = match (head.header, sums) {
            (Ok(header), Some(sums)) if header == wanted && bytes >= length => {
                return Ok(OpenFile { file, sums, crc, checked });
            }
            (Err(error), _) => error,
            (Ok(header), _) if header != wanted => {
                format!(
                    "its header names chunk {} of server {}, cluster {}",
                    header.chunk, header.server, header.cluster
                )
            }
            (_, None) => "its block CRCs do not combine to its CRC".to_owned(),
            _ => {
                let detail = format!("{bytes} of {length} bytes are left");
                return Err(self.quarantine(replica, inner, Quarantine::Missing, &detail));
            }
        };
        Err(self.quarantine(replica, inner, Quarantine::Checksum, &detail))
    }

    /// Opens the file of a sealed replica for somebody else, and nobody but that: what the other does to it (its flags, its
    /// position) must not concern who reads here. Checked like the one that reads are answered from.
    pub(super) fn give_out(&self, chunk: ChunkId, length: u64, crc: Crc32) -> Result<GivenOut, StoreError> {
        let replica = self.find(chunk)?;
        let mut inner = lock(&replica.inner);
        self.check_named(&replica, &inner, length, crc)?;
        if inner.record.state != ReplicaState::Sealed || length == 0 || inner.record.in_index {
            let message = format!("chunk {chunk}: only files are given out, of sealed chunks that are not empty");
            return Err(StoreError::new(ErrorCode::Mismatch, message));
        }
        if inner.record.cut_pending {
            self.finish_cut(&replica, &mut inner)?;
        }
        Ok(GivenOut(self.load(&replica, &mut inner)?))
    }

    /// Reads blocks of a settled replica as far as they are in memory, without waiting. [`Shared::read`] goes on from there.
    pub(super) fn begin_read(
        &self,
        replica: &Replica,
        open: &OpenFile,
        offset: u64,
        max: u64,
    ) -> Result<BegunRead, StoreError> {
        // A caller that asks behind the end must not make the file look short.
        let bytes = span(replica, offset, max, open.sums.length())?;
        let mut data = self.memory.take(bytes as usize);
        let there = if replica.is_quarantined() { 0 } else { open.file.read_cached(offset, data.as_mut()) };
        Ok(BegunRead { offset, data, there })
    }

    /// Reads what is missing.
    pub(super) fn read(
        &self,
        replica: &Replica,
        open: &OpenFile,
        mut begun: BegunRead,
    ) -> Result<(Bytes, Vec<Crc32>), StoreError> {
        if replica.is_quarantined() {
            return Err(self.in_quarantine(replica, &lock(&replica.inner).record));
        }
        let rest = begun.data.as_mut().get_mut(begun.there..).unwrap_or_default();
        if !rest.is_empty()
            && let Err(error) = open.file.read(begun.offset + begun.there as u64, rest)
        {
            let mut inner = lock(&replica.inner);
            // It may have been cut to a seal, or deleted, under the reader.
            self.check_named(replica, &inner, open.sums.length(), open.crc)?;
            return Err(self.read_failed(replica, &mut inner, &error));
        }
        Ok(begun.finish(open))
    }

    /// Reads blocks of an open replica, up to what every member has.
    pub(super) fn read_open(
        &self,
        replica: &Replica,
        offset: u64,
        max: u64,
    ) -> Result<(Bytes, Vec<Crc32>), StoreError> {
        let (readable, tail_crc) = lock(&replica.progress).readable();
        let bytes = span(replica, offset, max, readable)?;
        let mut inner = lock(&replica.inner);
        let live = match inner.writable(replica.chunk) {
            Ok(live) => live,
            // What is there may still be read: a broken write concerns what comes behind it.
            Err(error) if error.code() == ErrorCode::Fenced => return Err(error),
            Err(error) => inner.live.as_mut().ok_or(error)?,
        };
        let Some(file) = live.file.clone().filter(|_| bytes > 0) else {
            return Ok((Bytes::new(), Vec::new()));
        };
        let full = live.sums.full().iter().copied().skip((offset / BLOCK_BYTES) as usize);
        let mut crcs: Vec<_> = full.take((bytes / BLOCK_BYTES) as usize).collect();
        drop(inner);
        if !bytes.is_multiple_of(BLOCK_BYTES) {
            crcs.push(tail_crc);
        }
        let mut data = vec![0; bytes as usize];
        file.read(offset, &mut data).map_err(|e| StoreError::io(&replica.dir.file(replica.chunk), "read", &e))?;
        Ok((data.into(), crcs))
    }

    pub(super) fn verify(&self, chunk: ChunkId, length: u64, crc: Crc32) -> Result<Receipt, StoreError> {
        // What was checked when the file was opened is checked again.
        lock(&self.files).evict(chunk);
        let (replica, open) = self.open_settled(chunk, length, crc)?;
        let bad = open.and_then(|open| first_bad(&open).transpose());
        let mut inner = lock(&replica.inner);
        self.check_named(&replica, &inner, length, crc)?;
        match bad {
            None => {
                self.note_verified(&replica, &inner);
                self.receipt(&replica, &inner)
            }
            Some(Ok(block)) => {
                let detail = format!("block {block} does not match its CRC");
                Err(self.quarantine(&replica, &mut inner, Quarantine::Checksum, &detail))
            }
            Some(Err(error)) => Err(self.read_failed(&replica, &mut inner, &error)),
        }
    }
}

/// A read of a settled replica that has come as far as it could without waiting.
pub(super) struct BegunRead {
    offset: u64,
    data: Memory,
    /// Bytes that are there.
    there: usize,
}

impl BegunRead {
    pub(super) fn is_complete(&self) -> bool {
        self.there >= self.data.as_ref().len()
    }

    /// The data, all of which is there, with the checksums of its blocks.
    pub(super) fn finish(self, open: &OpenFile) -> (Bytes, Vec<Crc32>) {
        let data = self.data.freeze();
        let block_crcs = open.block_crcs(self.offset, data.len() as u64);
        (data, block_crcs)
    }
}

impl OpenFile {
    /// The stored CRCs of the blocks of `bytes` bytes at `offset`.
    pub(super) fn block_crcs(&self, offset: u64, bytes: u64) -> Vec<Crc32> {
        let (first, count) = (offset / BLOCK_BYTES, blocks(bytes));
        self.sums.blocks().skip(first as usize).take(count as usize).collect()
    }
}

/// The file of a sealed replica, to be given out.
pub(crate) struct GivenOut(OpenFile);

impl GivenOut {
    /// The open file, which nobody else uses.
    pub(crate) fn file(&self) -> &dyn DiskFile {
        self.0.file.as_disk_file()
    }

    /// What is to be known about it.
    pub(crate) fn frame(&self) -> Frame {
        let block_crcs = self.0.sums.blocks().map(|crc| crc.0).collect();
        v1::LocalFile { data_offset: DATA_OFFSET, block_crcs }.into()
    }
}

/// The first block whose data does not match its stored CRC.
fn first_bad(open: &OpenFile) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    for (block, crc) in (0u64..).zip(open.sums.blocks()) {
        let offset = block * BLOCK_BYTES;
        buffer.truncate((open.sums.length() - offset).min(BLOCK_BYTES) as usize);
        open.file.read(offset, &mut buffer)?;
        if Crc32::of(&buffer) != crc {
            return Ok(Some(block));
        }
    }
    Ok(None)
}

/// How many bytes a read gets: whole blocks, or up to the end.
pub(super) fn span(replica: &Replica, offset: u64, max: u64, readable: u64) -> Result<u64, StoreError> {
    if !offset.is_multiple_of(BLOCK_BYTES) {
        return Err(StoreError::new(
            ErrorCode::InvalidArgument,
            format!("chunk {}: offset {offset} is not at the start of a block", replica.chunk),
        ));
    }
    let max = max.clamp(BLOCK_BYTES, READ_BYTES_MAX);
    Ok((max - max % BLOCK_BYTES).min(readable.saturating_sub(offset)))
}
