//! What of an open replica is still proven after a crash.
//!
//! A crash leaves in the file whatever the disk happened to have written. What counts is what a checksum of the
//! writer proves: a full block by its slot in the file, the partial block at the flushed mark by the mark's CRC in
//! the index. The replica is cut behind the last proven byte and takes no more writes (S1). If that lies below the
//! flushed mark then the disk lost what it had promised to keep, and the replica takes no part in anything.

use quarry_types::{ChunkSums, Crc32, limits::BLOCK_BYTES};

use crate::record::Mark;

/// Goes through the blocks of a file, one at a time, so that memory stays bounded.
#[derive(Clone, Debug)]
pub struct Recovery {
    slots: Vec<Crc32>,
    data_bytes: u64,
    mark: Mark,
    sums: ChunkSums,
    ended: bool,
}

/// Where to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Offset in the chunk's data.
    pub offset: u64,
    /// Bytes, at most a block.
    pub bytes: u64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Cut the replica to these sums.
    Proven(ChunkSums),
    /// Less is proven than had been flushed.
    BelowFlushedMark {
        /// Bytes that are proven.
        proven: u64,
    },
}

impl Recovery {
    /// Of a file with these block CRCs and this many bytes of data.
    #[must_use]
    pub fn new(slots: Vec<Crc32>, data_bytes: u64, mark: Mark) -> Self {
        Recovery { slots, data_bytes, mark, sums: ChunkSums::default(), ended: false }
    }

    /// The next stretch of data to look at; `None` at the end.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let offset = self.sums.length();
        let bytes = self.data_bytes.saturating_sub(offset).min(BLOCK_BYTES);
        (!self.ended && bytes > 0).then_some(Wanted { offset, bytes })
    }

    /// Takes the data of [`Recovery::wanted`], or an empty slice when it cannot be read.
    pub fn step(&mut self, data: &[u8]) {
        let block = self.sums.full().len();
        let whole = data.len() as u64 == BLOCK_BYTES;
        if whole
            && let Some(slot) = self.slots.get(block)
            && Crc32::of(data) == *slot
        {
            self.ended = self.sums.push(*slot, BLOCK_BYTES).is_err();
            return;
        }
        self.ended = true;
        // Of a block that is not proven as a whole, the part below the flushed mark may still be.
        let marked = self.mark.length.saturating_sub(self.sums.length());
        let part = usize::try_from(marked).ok().and_then(|n| data.get(..n));
        if let Some(part) = part
            && marked > 0
            && marked < BLOCK_BYTES
            && Crc32::of(part) == self.mark.tail_crc
        {
            // Cannot fail: fewer bytes than a block, at the start of one.
            let _fits = self.sums.push(self.mark.tail_crc, marked);
        }
    }

    /// The verdict, once there is nothing more wanted.
    #[must_use]
    pub fn finish(self) -> Recovered {
        if self.sums.length() < self.mark.length {
            Recovered::BelowFlushedMark { proven: self.sums.length() }
        } else {
            Recovered::Proven(self.sums)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    fn data(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i * 7 % 253) as u8).collect()
    }

    fn slots(data: &[u8]) -> Vec<Crc32> {
        data.chunks_exact(BLOCK).map(Crc32::of).chain([Crc32(0); 3]).collect()
    }

    fn mark(data: &[u8], length: usize) -> Mark {
        Mark { length: length as u64, tail_crc: Crc32::of(&data[length - length % BLOCK..length]) }
    }

    fn run(file: &[u8], slots: Vec<Crc32>, mark: Mark) -> Recovered {
        let mut recovery = Recovery::new(slots, file.len() as u64, mark);
        while let Some(want) = recovery.wanted() {
            recovery.step(&file[want.offset as usize..(want.offset + want.bytes) as usize]);
        }
        recovery.finish()
    }

    #[test]
    fn s1_full_blocks_are_proven_by_slots_and_the_tail_by_the_mark() {
        let all = data(2 * BLOCK + 1000);
        let proven = |r: Recovered| match r {
            Recovered::Proven(sums) => (sums.length(), sums.combined()),
            Recovered::BelowFlushedMark { proven } => panic!("{proven}"),
        };
        let flushed = 2 * BLOCK + 600;
        assert_eq!(
            proven(run(&all, slots(&all), mark(&all, flushed))),
            (flushed as u64, Crc32::of(&all[..flushed])),
            "bytes behind the mark have no checksum"
        );
        assert_eq!(proven(run(&all, slots(&all), Mark::default())), (2 * BLOCK as u64, Crc32::of(&all[..2 * BLOCK])));
        assert_eq!(proven(run(&[], vec![], Mark::default())), (0, Crc32::EMPTY));
    }

    #[test]
    fn s1_a_block_without_its_slot_still_counts_up_to_the_mark() {
        let all = data(BLOCK);
        let r = run(&all, vec![Crc32(0)], mark(&all, 100));
        assert!(matches!(r, Recovered::Proven(s) if s.length() == 100));
    }

    #[test]
    fn s1_less_than_the_mark_is_no_replica() {
        let all = data(BLOCK + 10);
        let m = mark(&all, BLOCK + 10);
        assert_eq!(run(&all[..BLOCK + 9], slots(&all), m), Recovered::BelowFlushedMark { proven: BLOCK as u64 });
        assert_eq!(run(&all, vec![], m), Recovered::BelowFlushedMark { proven: 0 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn s1_whatever_the_crash_left_only_written_bytes_are_proven(
            written in 0usize..4 * BLOCK,
            flushed_share in 0.0f64..=1.0,
            left in 0usize..4 * BLOCK,
            damage in proptest::option::of(0usize..4 * BLOCK),
            lost_slot in proptest::option::of(0usize..4),
        ) {
            let all = data(written);
            let flushed = (written as f64 * flushed_share) as usize;
            let mut file = all.clone();
            file.resize(left, 0);
            if let Some(at) = damage && at < file.len() {
                file[at] ^= 0x40;
            }
            let mut page = slots(&all);
            if let Some(i) = lost_slot && i < page.len() {
                page[i] = Crc32(0);
            }
            match run(&file, page, mark(&all, flushed)) {
                Recovered::Proven(sums) => {
                    let n = sums.length() as usize;
                    prop_assert!(n >= flushed && n <= written);
                    prop_assert_eq!(&file[..n], &all[..n]);
                    prop_assert_eq!(sums.combined(), Crc32::of(&all[..n]));
                }
                Recovered::BelowFlushedMark { proven } => prop_assert!(proven < flushed as u64),
            }
        }
    }
}
