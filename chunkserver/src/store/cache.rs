//! Files of settled replicas that are kept open, checked when they were opened.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quarry_env::Instant;
use quarry_types::{ChunkId, ChunkSums, Crc32};

use super::{config::OPEN_FILES_MAX, file::ChunkFile};

/// After this a file is opened and checked again. An open file goes on to be read when its name is gone or leads to
/// another file, and nobody would learn of it before the next start.
const CHECKED_FOR: Duration = Duration::from_secs(1);

/// A settled replica's file and the block CRCs that combine to its CRC.
pub(super) struct OpenFile {
    pub(super) file: ChunkFile,
    pub(super) sums: ChunkSums,
    pub(super) crc: Crc32,
    /// When it was opened.
    pub(super) checked: Instant,
}

/// Least recently used first out.
#[derive(Default)]
pub(super) struct FileCache {
    clock: u64,
    files: BTreeMap<ChunkId, (u64, Arc<OpenFile>)>,
    order: BTreeMap<u64, ChunkId>,
}

impl FileCache {
    pub(super) fn get(&mut self, chunk: ChunkId, length: u64, crc: Crc32, now: Instant) -> Option<Arc<OpenFile>> {
        let (used, file) = self.files.get_mut(&chunk)?;
        if file.sums.length() != length || file.crc != crc || now.since(file.checked) >= CHECKED_FOR {
            return None;
        }
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, chunk);
        Some(Arc::clone(file))
    }

    pub(super) fn put(&mut self, chunk: ChunkId, file: Arc<OpenFile>) {
        self.evict(chunk);
        while self.files.len() >= OPEN_FILES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.files.remove(&oldest);
        }
        self.clock += 1;
        self.files.insert(chunk, (self.clock, file));
        self.order.insert(self.clock, chunk);
    }

    pub(super) fn evict(&mut self, chunk: ChunkId) {
        if let Some((used, _)) = self.files.remove(&chunk) {
            self.order.remove(&used);
        }
    }
}
