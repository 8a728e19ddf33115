//! Putting a chunk together from replicas of which none need be whole.
//!
//! Every block is verified against the CRC that came with it, and in the end the block CRCs must combine to the CRC of
//! the committed seal at its length (S3). That last check can fail although every block passed: a replica may be wrong
//! and agree with itself. Then what the present source gave is forgotten and the next one is asked.
//!
//! A source that says the CRCs of all blocks, and they combine, has proven them, even where its own data is bad. From
//! then on no other CRC counts.

use std::ops::Range;

use quarry_types::{
    ChunkSums, Crc32,
    limits::{BLOCK_BYTES, CHUNK_BYTES},
};

use crate::layout::blocks;

/// A chunk that is being put together. It only says which blocks are good; keeping their bytes is the caller's affair.
#[derive(Clone, Debug)]
pub struct Assembly {
    length: u64,
    crc: Crc32,
    /// Of each block that is here: its CRC, and which source gave it.
    here: Vec<Option<(Crc32, u32)>>,
    /// What the present source says.
    said: Vec<Option<Crc32>>,
    proven: Option<Vec<Crc32>>,
    source: u32,
    doubted: bool,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is good and was missing: it is to be kept.
    New,
    /// It was here already.
    Known,
    /// It does not match its CRC, or its CRC is not the proven one.
    Bad,
}

/// Bytes that are no block of this chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at {offset} are not a block of a chunk of {length} bytes")]
pub struct NoBlock {
    offset: u64,
    bytes: u64,
    length: u64,
}

impl Assembly {
    /// Nothing is here yet. `None` for a length that no chunk has, or a CRC that no empty chunk has.
    #[must_use]
    pub fn new(length: u64, crc: Crc32) -> Option<Self> {
        if length > CHUNK_BYTES || (length == 0 && crc != Crc32::EMPTY) {
            return None;
        }
        let none = vec![None; blocks(length) as usize];
        let said = vec![None; none.len()];
        Some(Assembly { length, crc, here: none, said, proven: None, source: 0, doubted: false })
    }

    /// Blocks come from another source from now on.
    pub fn begin_source(&mut self) {
        self.source += 1;
        self.said.fill(None);
    }

    /// Forgets everything that rests on a source that may have been wrong; what is proven stays.
    pub fn begin_again(&mut self) {
        if std::mem::take(&mut self.doubted) && self.proven.is_none() {
            self.here.fill(None);
        }
    }

    /// Whether something was forgotten: a source that was asked before may have what is missing now.
    #[must_use]
    pub fn doubted(&self) -> bool {
        self.doubted
    }

    /// Whether the CRC of every block is proven, so that only missing blocks are of use.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.proven.is_some()
    }

    /// The first run of missing blocks at or behind `from`, in bytes of the chunk.
    #[must_use]
    pub fn missing(&self, from: u64) -> Option<Range<u64>> {
        let mut rest = (0u64..).zip(&self.here).skip(blocks(from) as usize);
        let (first, _) = rest.find(|(_, block)| block.is_none())?;
        let end = rest.find(|(_, block)| block.is_some()).map_or(self.length, |(block, _)| block * BLOCK_BYTES);
        Some(first * BLOCK_BYTES..end)
    }

    /// Bytes that are here.
    #[must_use]
    pub fn done(&self) -> u64 {
        (0u64..).zip(&self.here).filter(|(_, block)| block.is_some()).map(|(block, _)| self.bytes_of(block)).sum()
    }

    fn bytes_of(&self, block: u64) -> u64 {
        self.length.saturating_sub(block * BLOCK_BYTES).min(BLOCK_BYTES)
    }

    /// Looks at a block with the CRC that came with it.
    ///
    /// # Errors
    /// [`NoBlock`] when these bytes are not exactly one block of the chunk.
    pub fn take(&mut self, offset: u64, crc: Crc32, data: &[u8]) -> Result<Taken, NoBlock> {
        let block = offset / BLOCK_BYTES;
        let bytes = data.len() as u64;
        let slot = usize::try_from(block).ok().and_then(|block| Some((self.here.get_mut(block)?, block)));
        let Some((here, at)) = slot.filter(|_| offset.is_multiple_of(BLOCK_BYTES)) else {
            return Err(NoBlock { offset, bytes, length: self.length });
        };
        if bytes != self.length.saturating_sub(offset).min(BLOCK_BYTES) {
            return Err(NoBlock { offset, bytes, length: self.length });
        }
        if let Some(said) = self.said.get_mut(at) {
            *said = Some(crc);
        }
        let proven = self.proven.as_ref().and_then(|proven| proven.get(at));
        if proven.is_some_and(|proven| *proven != crc) || Crc32::of(data) != crc {
            return Ok(Taken::Bad);
        }
        if here.is_some() {
            return Ok(Taken::Known);
        }
        *here = Some((crc, self.source));
        Ok(Taken::New)
    }

    /// What the present source amounts to: the sums of the whole chunk once it is together.
    pub fn settle(&mut self) -> Option<ChunkSums> {
        if self.proven.is_none()
            && let Some(said) = self.said.iter().copied().collect::<Option<Vec<_>>>()
            && self.agrees(&said).is_some()
        {
            for (here, crc) in self.here.iter_mut().zip(&said) {
                self.doubted |= here.is_some_and(|(old, _)| old != *crc);
                *here = here.filter(|(old, _)| old == crc);
            }
            self.proven = Some(said);
        }
        let all = self.here.iter().map(|here| here.map(|(crc, _)| crc)).collect::<Option<Vec<_>>>()?;
        let sums = self.agrees(&all);
        if sums.is_none() {
            self.doubted = true;
            for here in &mut self.here {
                *here = here.filter(|(_, source)| *source != self.source);
            }
        }
        sums
    }

    fn agrees(&self, blocks: &[Crc32]) -> Option<ChunkSums> {
        ChunkSums::from_blocks(blocks.to_vec(), self.length).filter(|sums| sums.combined() == self.crc)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    fn data(blocks: usize) -> Vec<u8> {
        (0..(blocks - 1) * BLOCK + 100).map(|i| (i / 7 % 251) as u8).collect()
    }

    fn assembly(data: &[u8]) -> Assembly {
        Assembly::new(data.len() as u64, Crc32::of(data)).unwrap()
    }

    /// A replica: the bytes of each block and its slot.
    type Replica = Vec<(Vec<u8>, Crc32)>;

    fn replica(data: &[u8]) -> Replica {
        data.chunks(BLOCK).map(|block| (block.to_vec(), Crc32::of(block))).collect()
    }

    fn offer(assembly: &mut Assembly, replica: &Replica) -> Option<ChunkSums> {
        assembly.begin_source();
        for (block, (bytes, crc)) in (0u64..).zip(replica) {
            assembly.take(block * BLOCK_BYTES, *crc, bytes).unwrap();
        }
        assembly.settle()
    }

    #[test]
    fn missing_runs_are_those_between_good_blocks() {
        let data = data(4);
        let mut chunk = assembly(&data);
        let length = data.len() as u64;
        assert_eq!(chunk.missing(0), Some(0..length));
        let block = &data[BLOCK..2 * BLOCK];
        chunk.begin_source();
        assert_eq!(chunk.take(BLOCK_BYTES, Crc32(1), block), Ok(Taken::Bad));
        assert_eq!(chunk.take(BLOCK_BYTES, Crc32::of(block), block), Ok(Taken::New));
        assert_eq!(chunk.take(BLOCK_BYTES, Crc32::of(block), block), Ok(Taken::Known));
        assert_eq!((chunk.missing(0), chunk.missing(1)), (Some(0..BLOCK_BYTES), Some(2 * BLOCK_BYTES..length)));
        assert_eq!((chunk.missing(length), chunk.done()), (None, BLOCK_BYTES));
        for (offset, bytes) in [(1, BLOCK), (0, BLOCK - 1), (3 * BLOCK_BYTES, 101), (4 * BLOCK_BYTES, 1), (u64::MAX, 1)]
        {
            assert!(chunk.take(offset, Crc32(0), &vec![0; bytes]).is_err(), "{bytes} at {offset}");
        }
    }

    #[test]
    fn s3_blocks_that_agree_with_themselves_but_not_with_the_seal_are_forgotten() {
        let data = data(3);
        let mut chunk = assembly(&data);
        let mut holed = replica(&data);
        // Bad data under a bad slot: this source proves nothing.
        holed[1] = (vec![0; BLOCK], Crc32(7));
        assert_eq!(offer(&mut chunk, &holed), None);
        let other = vec![9; data.len()];
        assert_eq!(offer(&mut chunk, &replica(&other)), None, "every block passed, the chunk did not");
        assert!(chunk.doubted() && chunk.missing(0) == Some(BLOCK_BYTES..2 * BLOCK_BYTES));
        assert!(offer(&mut chunk, &replica(&data)).is_some());
    }

    #[test]
    fn s3_slots_that_combine_are_proof_though_their_data_is_bad() {
        let data = data(3);
        let mut chunk = assembly(&data);
        let wrong = vec![9; BLOCK];
        chunk.begin_source();
        chunk.take(0, Crc32::of(&wrong), &wrong).unwrap();
        let mut bad = replica(&data);
        bad[1].0[5] ^= 1;
        assert_eq!(offer(&mut chunk, &bad), None);
        assert!(chunk.proven() && chunk.doubted(), "the wrong first block is found out");
        assert_eq!(chunk.take(BLOCK_BYTES, Crc32::of(&wrong), &wrong), Ok(Taken::Bad));
        assert!(offer(&mut chunk, &replica(&data)).is_some());
    }

    #[test]
    fn an_empty_chunk_is_together_from_the_start() {
        assert!(Assembly::new(0, Crc32::EMPTY).unwrap().settle().is_some());
        assert!(Assembly::new(0, Crc32(1)).is_none() && Assembly::new(CHUNK_BYTES + 1, Crc32(1)).is_none());
    }

    proptest! {
        #[test]
        fn s3_replicas_that_are_bad_at_different_blocks_make_a_whole_one(
            // Of each block: which of three replicas has it good, and how the others are bad.
            plan in proptest::collection::vec((0usize..3, any::<[bool; 3]>(), any::<[bool; 3]>()), 1..12)
        ) {
            let data = data(plan.len());
            let mut replicas = [replica(&data), replica(&data), replica(&data)];
            for (block, (good, spare, slot)) in plan.iter().enumerate() {
                for (at, replica) in replicas.iter_mut().enumerate().filter(|(at, _)| at != good && !spare[*at]) {
                    let (bytes, crc) = &mut replica[block];
                    bytes[0] ^= 1;
                    if slot[at] {
                        *crc = Crc32(crc.0 ^ 1);
                    }
                }
            }
            let mut chunk = assembly(&data);
            let sums = replicas.iter().find_map(|replica| offer(&mut chunk, replica));
            prop_assert_eq!(sums.map(|sums| (sums.length(), sums.combined())), Some((data.len() as u64, Crc32::of(&data))));
        }
    }
}
