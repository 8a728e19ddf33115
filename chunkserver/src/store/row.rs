//! Small chunks in the index: a row in place of a file.
//!
//! A file for a few kilobytes costs more than they do: its name, its head and its bytes are synced one after the other. A chunk
//! that comes whole, in one packet, is one batch of the index instead, with its record and one sync (S1). Its row is read as
//! the file that it stands for, so that whoever reads, scrubs or salvages need not know.
//!
//! ```text
//! offset   bytes
//!      0      56  the beginning of a chunk file's header, up to its checksum
//!     56       4  CRC-32 of the bytes, the writer's; little endian
//!     60          the bytes, one block at most
//! ```

use std::{io, sync::Arc};

use quarry_chunkserver_core::layout::{DATA_OFFSET, HEADER_DATA_BYTES, Header, PAGE_OFFSET, encode_slots};
use quarry_env::{DiskFile, KvError, OpenMode, SyncPoint};
use quarry_types::{ChunkSums, Crc32, Receipt, limits::BLOCK_BYTES, planted};

use super::{
    StoreError,
    file::ChunkFile,
    index::Changes,
    replica::{Inner, Replica},
    shared::Shared,
    sync_points,
};

/// Where the CRC of the bytes is.
const SLOT_AT: usize = HEADER_DATA_BYTES;
/// Where the bytes begin.
const BYTES_AT: usize = SLOT_AT + 4;

/// The row of a chunk of one block at most.
pub(super) fn encode(header: &Header, sums: &ChunkSums, data: &[u8]) -> Vec<u8> {
    let mut row = header.encode();
    row.truncate(HEADER_DATA_BYTES);
    let slot = sums.blocks().next().filter(|_| !planted!("lose-last-crc")).unwrap_or_default();
    row.extend(encode_slots([slot]));
    row.extend_from_slice(data);
    row
}

/// A row, as the chunk file that it stands for. It is never written: a change is another row.
struct RowFile(Vec<u8>);

impl RowFile {
    /// The parts of the file that are not zero, and where they begin.
    fn parts(&self) -> [(u64, &[u8]); 3] {
        let part = |from: usize, to: usize| self.0.get(from..to.min(self.0.len())).unwrap_or_default();
        [(0, part(0, SLOT_AT)), (PAGE_OFFSET, part(SLOT_AT, BYTES_AT)), (DATA_OFFSET, part(BYTES_AT, self.0.len()))]
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a chunk in the index is not written as a file is")
}

impl DiskFile for RowFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(buffer.len() as u64) > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        for (at, part) in self.parts() {
            // What of the part lies in the buffer, seen from the beginning of each.
            let skipped = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
            let to = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (Some(from), Some(to)) = (part.get(skipped..), buffer.get_mut(to..)) else { continue };
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
        Ok(())
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.read_exact_at(buffer, offset).map_or(0, |()| buffer.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(DATA_OFFSET + self.0.len().saturating_sub(BYTES_AT) as u64)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_data(&self, _: SyncPoint) -> io::Result<()> {
        Err(read_only())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
}

impl Shared {
    /// Whether a chunk of so many bytes, all of which are here, goes into the index.
    pub(super) fn belongs_in_index(&self, bytes: u64) -> bool {
        bytes > 0 && bytes <= self.index_bytes
    }

    /// Takes a chunk that comes whole, with its record, in one batch: an open replica without bytes is settled, and durable.
    pub(super) fn settle_in_index(
        &self,
        replica: &Replica,
        inner: &mut Inner,
        sums: &ChunkSums,
        data: &[u8],
    ) -> Result<Receipt, StoreError> {
        let (chunk, bytes) = (replica.chunk, sums.length());
        let row = encode(&self.header(chunk)?, sums, data);
        replica.dir.take(&*self.world.disk, bytes)?;
        inner.room += bytes;
        let mut record = inner.record.fenced(sums, true, false).with_bytes_in_index();
        if planted!("seal-before-commit") {
            record = record.sealed(record.length, record.crc, record.tail_crc);
        }
        let changes = Changes::default().replica(chunk, &record).bytes(chunk, row);
        if let Err(error) = self.write_index(&replica.dir, changes, sync_points::FENCE_RECORD) {
            if replica.dir.works() {
                self.forget(replica, inner, &error);
            } else {
                // Whether the batch got through is not known, and so this server must not say that it never was here.
                inner.stopped = true;
            }
            return Err(error);
        }
        inner.stopped = true;
        inner.record = record;
        self.closed(inner);
        inner.settle_room(&replica.dir);
        self.note(replica, &inner.record);
        self.receipt(replica, inner)
    }

    /// Opens what a replica's bytes are in, to be read.
    pub(super) fn open_body(&self, replica: &Replica, in_index: bool) -> io::Result<ChunkFile> {
        if !in_index {
            return ChunkFile::open(&*self.world.disk, &replica.dir.file(replica.chunk), OpenMode::Read);
        }
        Ok(ChunkFile::of(Arc::new(RowFile(self.read_row(replica)?))))
    }

    /// An error that says that the row is lost condemns the replica, as with a file, and nothing else in the index.
    fn read_row(&self, replica: &Replica) -> io::Result<Vec<u8>> {
        // As of a file that is not there: of a directory that is gone as a whole it says nothing.
        let lost = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
        let index = replica.dir.index().map_err(io::Error::other)?;
        match index.bytes(replica.chunk) {
            Ok(Some(row)) if row.len() >= BYTES_AT => Ok(row),
            Ok(Some(row)) => Err(lost(format!("its row in the index has only {} bytes", row.len()))),
            Ok(None) => Err(lost("it has no row in the index".into())),
            Err(error @ KvError::Damaged { .. }) => Err(lost(error.to_string())),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Writes the row of a replica that was just verified anew. A blob file goes once a compaction has dropped the last key that
    /// named something in it: so a few rows that stay do not keep for ever the room of those beside them that were removed.
    pub(super) fn renew_row(&self, replica: &Replica, inner: &Inner) -> Result<(), StoreError> {
        let Ok(row) = self.read_row(replica) else { return Ok(()) };
        // Verified bytes only, also if the medium gives others now: that is for the next look.
        if Crc32::of(row.get(BYTES_AT..).unwrap_or_default()) != inner.record.crc {
            return Ok(());
        }
        self.write_index(&replica.dir, Changes::default().bytes(replica.chunk, row), sync_points::IN_ORDER)
    }

    /// The changes that cut a replica's row to what its record says, of whose last bytes it has the CRC.
    pub(super) fn cut_row(&self, replica: &Replica, inner: &Inner) -> io::Result<Changes> {
        let record = inner.record.cut_finished();
        let mut row = self.read_row(replica)?;
        row.truncate(BYTES_AT.saturating_add(usize::try_from(record.length).unwrap_or(usize::MAX)));
        if !record.length.is_multiple_of(BLOCK_BYTES)
            && let Some(slot) = row.get_mut(SLOT_AT..BYTES_AT)
        {
            slot.copy_from_slice(&record.tail_crc.0.to_le_bytes());
        }
        Ok(Changes::default().replica(replica.chunk, &record).bytes(replica.chunk, row))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quarry_types::{ChunkId, ClusterId, ServerId};

    use super::*;

    fn header() -> Header {
        Header {
            cluster: ClusterId::from_bytes(&[0x11; 16]).unwrap(),
            server: ServerId::from_bytes(&[0x22; 16]).unwrap(),
            chunk: ChunkId(0x0102_0304_0506_0708),
        }
    }

    fn sums(data: &[u8]) -> ChunkSums {
        let mut sums = ChunkSums::default();
        sums.push(Crc32::of(data), data.len() as u64).unwrap();
        sums
    }

    #[test]
    fn golden_row() {
        let row = encode(&header(), &sums(b"hello"), b"hello");
        let mut golden = b"QRYCHUNK\x01\0\0\0".to_vec();
        golden.extend([0x11; 16]);
        golden.extend([0x22; 16]);
        golden.extend([8, 7, 6, 5, 4, 3, 2, 1, 0xa1, 0xd3, 0x86, 0x9d]);
        golden.extend([0x86, 0xa6, 0x10, 0x36]);
        golden.extend(b"hello");
        assert_eq!(row, golden, "{:02x?}", &row[56..60]);
    }

    proptest! {
        #[test]
        fn a_row_reads_as_the_file_that_it_stands_for(
            bytes in proptest::collection::vec(any::<u8>(), 1..3000),
            from in 0usize..12_000,
            length in 0usize..12_000,
        ) {
            let mut file = header().encode();
            file.extend(encode_slots([Crc32::of(&bytes)]));
            file.resize(DATA_OFFSET as usize, 0);
            file.extend(&bytes);
            let row = RowFile(encode(&header(), &sums(&bytes), &bytes));
            prop_assert_eq!(row.len().unwrap(), file.len() as u64);
            let mut read = vec![0xee; length];
            match file.get(from..from + length) {
                Some(part) => {
                    row.read_exact_at(&mut read, from as u64).unwrap();
                    prop_assert_eq!(&read[..], part);
                    prop_assert_eq!(row.read_cached_at(&mut read, from as u64), length);
                }
                None => prop_assert!(row.read_exact_at(&mut read, from as u64).is_err()),
            }
        }

        #[test]
        fn rows_of_any_bytes_do_not_panic(row: Vec<u8>, offset: u64, length in 0usize..200) {
            let row = RowFile(row);
            let mut buffer = vec![0; length];
            let _ = row.read_exact_at(&mut buffer, offset);
            let _ = ChunkFile::of(Arc::new(row)).head();
        }
    }
}
