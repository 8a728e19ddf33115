//! One chunk file: the steps on it that keep the order which the layout needs.

use std::{io, path::Path, sync::Arc};

use quarry_chunkserver_core::layout::{
    DATA_OFFSET, HEADER_BYTES, Header, PAGE_BYTES, PAGE_OFFSET, decode_slots, encode_slots, file_bytes, slot_offset,
};
use quarry_env::{Disk, DiskFile, OpenMode, SyncPoint};
use quarry_types::{ChunkSums, Crc32, limits::BLOCK_BYTES, planted};

/// An open chunk file.
#[derive(Clone)]
pub(super) struct ChunkFile(Arc<dyn DiskFile>);

/// Header and block CRCs as they are on the disk.
pub(super) struct Head {
    pub(super) header: Result<Header, String>,
    pub(super) slots: Vec<Crc32>,
}

impl ChunkFile {
    /// A new file with a header and an empty page. Nothing is durable yet.
    pub(super) fn create(disk: &dyn Disk, path: &Path, header: &Header) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        let mut head = header.encode();
        head.resize(HEADER_BYTES + PAGE_BYTES, 0);
        file.write_all_at(&head, 0)?;
        Ok(ChunkFile(file.into()))
    }

    /// A new file with all that it will ever hold. Nothing is durable yet.
    pub(super) fn create_whole(
        disk: &dyn Disk,
        path: &Path,
        header: &Header,
        sums: &ChunkSums,
        data: &[u8],
    ) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        let mut head = header.encode();
        head.extend(page(sums));
        file.write_all_at(&head, 0)?;
        file.write_all_at(data, DATA_OFFSET)?;
        Ok(ChunkFile(file.into()))
    }

    /// A file that is open.
    pub(super) fn of(file: Arc<dyn DiskFile>) -> Self {
        ChunkFile(file)
    }

    pub(super) fn open(disk: &dyn Disk, path: &Path, mode: OpenMode) -> io::Result<Self> {
        Ok(ChunkFile(disk.open(path, mode)?.into()))
    }

    /// Bytes of data in the file, whatever they are.
    pub(super) fn data_bytes(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(DATA_OFFSET))
    }

    pub(super) fn head(&self) -> io::Result<Head> {
        let mut bytes = vec![0; HEADER_BYTES + PAGE_BYTES];
        self.0.read_exact_at(&mut bytes, 0)?;
        let (header, page) = bytes.split_at(HEADER_BYTES);
        Ok(Head { header: Header::decode(header).map_err(|e| e.to_string()), slots: decode_slots(page) })
    }

    /// All of the file.
    pub(super) fn whole(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.len()?).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub(super) fn as_disk_file(&self) -> &dyn DiskFile {
        &*self.0
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, DATA_OFFSET + offset)
    }

    /// As [`ChunkFile::read`], of what is in memory, without waiting; how many bytes.
    pub(super) fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> usize {
        self.0.read_cached_at(buffer, DATA_OFFSET + offset)
    }

    /// Data that was read, or is about to be, need not stay in memory.
    pub(super) fn forget_cached(&self, offset: u64, bytes: u64) {
        self.0.forget_cached(DATA_OFFSET + offset, bytes);
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, DATA_OFFSET + offset)
    }

    /// What was written there is to be durable soon.
    pub(super) fn begin_sync(&self, offset: u64, bytes: u64) {
        self.0.begin_sync(DATA_OFFSET + offset, bytes);
    }

    /// Writes the CRCs of full blocks, from block `first` on.
    pub(super) fn write_slots(&self, first: usize, slots: &[Crc32]) -> io::Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        self.0.write_all_at(&encode_slots(slots.iter().copied()), slot_offset(first as u64))
    }

    /// Makes the file end where `sums` do, with all their block CRCs in the page. Slots behind the end become 0.
    pub(super) fn settle(&self, sums: &ChunkSums) -> io::Result<()> {
        self.0.set_len(file_bytes(sums.length()))?;
        self.0.write_all_at(&page(sums), PAGE_OFFSET)
    }

    /// Cuts a sealed file to `length`, and sets the CRC of its last block, of which `tail_crc` covers what is left. Does
    /// the same when it is done again.
    pub(super) fn cut(&self, length: u64, tail_crc: Crc32) -> io::Result<()> {
        self.0.set_len(file_bytes(length))?;
        if length.is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        self.0.write_all_at(&encode_slots([tail_crc]), slot_offset(length / BLOCK_BYTES))
    }

    pub(super) fn sync(&self, point: SyncPoint) -> io::Result<()> {
        self.0.sync_data(point)
    }
}

/// The page of all block CRCs, empty behind the last.
fn page(sums: &ChunkSums) -> Vec<u8> {
    let mut page = encode_slots(sums.blocks());
    if planted!("lose-last-crc") {
        page = encode_slots(sums.full().iter().copied());
    }
    page.resize(PAGE_BYTES, 0);
    page
}
