//! Which chunks are read by many at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use quarry_proto::v1;
use quarry_types::ChunkId;

/// Chunks that a beat names.
pub(crate) const NAMED: usize = 4;
/// With fewer readers a chunk is not worth naming.
const READERS_MIN: u32 = 2;
/// Chunks that nobody reads any more and that are remembered until the next beat. Those being read are as many as there are
/// reads.
const IDLE_MAX: usize = 4096;

#[derive(Clone, Copy, Default)]
struct Count {
    now: u32,
    most: u32,
}

/// Clients that read, by chunk.
#[derive(Default)]
pub(crate) struct Readers {
    chunks: Mutex<BTreeMap<ChunkId, Count>>,
}

/// A client reads a chunk until this is dropped.
pub(crate) struct Reading<'a> {
    readers: &'a Readers,
    chunk: ChunkId,
}

impl Readers {
    fn chunks(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Count>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `read` begins, or waits for its turn. Not each one is a client more: copies do not count, nor does what a client reads
    /// of a chunk beside another part of it.
    pub(crate) fn begin_read(&self, read: &v1::Read) -> Option<Reading<'_>> {
        (!read.copy && !read.beside).then(|| self.begin(ChunkId(read.chunk)))
    }

    /// A client begins to read.
    pub(crate) fn begin(&self, chunk: ChunkId) -> Reading<'_> {
        let mut chunks = self.chunks();
        let count = chunks.entry(chunk).or_default();
        count.now += 1;
        count.most = count.most.max(count.now);
        Reading { readers: self, chunk }
    }

    /// The chunks that most clients have read at once since this was asked last, and by how many.
    pub(crate) fn take_most(&self) -> Vec<v1::HotChunk> {
        let mut most = Vec::new();
        let mut chunks = self.chunks();
        chunks.retain(|chunk, count| {
            if count.most >= READERS_MIN {
                most.push(v1::HotChunk { chunk: chunk.0, reads: count.most });
            }
            count.most = count.now;
            count.now > 0
        });
        most.sort_by(|a, b| b.reads.cmp(&a.reads).then(a.chunk.cmp(&b.chunk)));
        most.truncate(NAMED);
        most
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut chunks = self.readers.chunks();
        let many = chunks.len() > IDLE_MAX;
        let Some(count) = chunks.get_mut(&self.chunk) else { return };
        count.now -= 1;
        if many && count.now == 0 {
            chunks.remove(&self.chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(readers: &Readers) -> Vec<(u64, u32)> {
        readers.take_most().into_iter().map(|hot| (hot.chunk, hot.reads)).collect()
    }

    #[test]
    fn the_chunks_that_most_read_at_once_are_named_and_then_counted_anew() {
        let readers = Readers::default();
        for chunk in 1..=6u64 {
            let _together: Vec<_> = (0..chunk).map(|_| readers.begin(ChunkId(chunk))).collect();
        }
        for _ in 0..9 {
            drop(readers.begin(ChunkId(1)));
        }
        let _still = [readers.begin(ChunkId(3)), readers.begin(ChunkId(3))];
        assert_eq!(most(&readers), [(6, 6), (5, 5), (4, 4), (3, 3)], "nine one after the other are one at once");
        assert_eq!(most(&readers), [(3, 2)]);
    }

    #[test]
    fn a_client_counts_once_however_many_parts_of_a_chunk_it_reads_at_once() {
        let readers = Readers::default();
        let one = v1::Read { chunk: 7, ..Default::default() };
        let beside = v1::Read { beside: true, ..one.clone() };
        let copy = v1::Read { copy: true, ..one.clone() };
        let _reading = [&one, &beside, &copy].map(|read| readers.begin_read(read));
        assert_eq!(most(&readers), [], "one client, which is not many");
        let _another = readers.begin_read(&one);
        assert_eq!(most(&readers), [(7, 2)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let readers = Readers::default();
        for chunk in 0..2 * IDLE_MAX as u64 {
            drop(readers.begin(ChunkId(chunk)));
        }
        assert!(readers.chunks().len() <= IDLE_MAX + 1);
        assert_eq!(most(&readers), []);
        assert!(readers.chunks().is_empty());
    }
}
