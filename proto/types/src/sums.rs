//! The block checksums of a growing chunk.

use crate::{
    crc::Crc32,
    limits::{BLOCK_BYTES, CHUNK_BYTES},
};

/// The CRCs of a chunk's blocks, from its start to where it has been written.
///
/// It only ever combines CRCs that the writer computed; it never sees data (S3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSums {
    full: Vec<Crc32>,
    tail: Crc32,
    tail_bytes: u64,
}

/// A piece does not continue the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SumsError {
    /// The piece is empty, crosses a block boundary, or runs past the longest chunk.
    #[error("a piece of {piece} bytes does not fit at chunk offset {offset}")]
    Misfit {
        /// Where the chunk ends now.
        offset: u64,
        /// Bytes in the piece.
        piece: u64,
    },
}

impl ChunkSums {
    /// Rebuilds from stored block CRCs and the length they cover. `None` when their number does not fit.
    #[must_use]
    pub fn from_blocks(mut blocks: Vec<Crc32>, length: u64) -> Option<Self> {
        if length > CHUNK_BYTES || blocks.len() as u64 != length.div_ceil(BLOCK_BYTES) {
            return None;
        }
        let tail_bytes = length % BLOCK_BYTES;
        let tail = if tail_bytes == 0 { Crc32::EMPTY } else { blocks.pop()? };
        Some(ChunkSums { full: blocks, tail, tail_bytes })
    }

    /// Bytes covered.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.full.len() as u64 * BLOCK_BYTES + self.tail_bytes
    }

    /// The CRCs of the full blocks.
    #[must_use]
    pub fn full(&self) -> &[Crc32] {
        &self.full
    }

    /// The CRC and the length of the last, partial block; length 0 when there is none.
    #[must_use]
    pub fn tail(&self) -> (Crc32, u64) {
        (self.tail, self.tail_bytes)
    }

    /// All block CRCs, the partial one last.
    pub fn blocks(&self) -> impl Iterator<Item = Crc32> + '_ {
        self.full.iter().copied().chain((self.tail_bytes > 0).then_some(self.tail))
    }

    /// Adds the CRC of the next `bytes` bytes, which must lie in one block.
    ///
    /// # Errors
    /// [`SumsError::Misfit`]; nothing has changed then.
    pub fn push(&mut self, crc: Crc32, bytes: u64) -> Result<(), SumsError> {
        let offset = self.length();
        if bytes == 0 || self.tail_bytes + bytes > BLOCK_BYTES || offset + bytes > CHUNK_BYTES {
            return Err(SumsError::Misfit { offset, piece: bytes });
        }
        self.tail = self.tail.combine(crc, bytes);
        self.tail_bytes += bytes;
        if self.tail_bytes == BLOCK_BYTES {
            self.full.push(self.tail);
            self.tail = Crc32::EMPTY;
            self.tail_bytes = 0;
        }
        Ok(())
    }

    /// The CRC of everything covered.
    #[must_use]
    pub fn combined(&self) -> Crc32 {
        let full = self.full.iter().fold(Crc32::EMPTY, |all, block| all.combine_block(*block));
        full.combine(self.tail, self.tail_bytes)
    }
}

/// The lengths of the pieces into which block boundaries cut `bytes` bytes at chunk offset `offset`: what a packet
/// carries one CRC each for.
pub fn pieces(offset: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let end = offset.saturating_add(bytes);
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let next = (at - at % BLOCK_BYTES).saturating_add(BLOCK_BYTES).min(end);
            let piece = next - at;
            at = next;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn s3_sums_of_any_packets_equal_the_crc_of_the_data(cuts in proptest::collection::vec(1usize..200_000, 1..8)) {
            let data: Vec<u8> = (0..cuts.iter().sum::<usize>()).map(|i| (i * 31 % 251) as u8).collect();
            let mut sums = ChunkSums::default();
            let mut at = 0usize;
            for cut in cuts {
                for piece in pieces(at as u64, cut as u64) {
                    let end = at + piece as usize;
                    sums.push(Crc32::of(&data[at..end]), piece).unwrap();
                    at = end;
                }
            }
            prop_assert_eq!(sums.length(), data.len() as u64);
            prop_assert_eq!(sums.combined(), Crc32::of(&data));
            let blocks: Vec<_> = data.chunks(BLOCK_BYTES as usize).map(Crc32::of).collect();
            prop_assert_eq!(sums.blocks().collect::<Vec<_>>(), blocks.clone());
            prop_assert_eq!(ChunkSums::from_blocks(blocks, data.len() as u64), Some(sums));
        }
    }

    #[test]
    fn a_piece_may_not_cross_a_block_or_the_chunk() {
        let mut sums = ChunkSums::default();
        assert!(sums.push(Crc32(1), 0).is_err());
        assert!(sums.push(Crc32(1), BLOCK_BYTES + 1).is_err());
        for _ in 0..CHUNK_BYTES / BLOCK_BYTES {
            sums.push(Crc32(1), BLOCK_BYTES).unwrap();
        }
        assert!(sums.push(Crc32(1), 1).is_err());
        assert_eq!(ChunkSums::from_blocks(vec![Crc32(1)], BLOCK_BYTES + 1), None);
    }
}
