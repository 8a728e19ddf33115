//! Whether the blocks of a chunk that was read from its start to its end make the chunk that the master recorded. Pure.
//!
//! Each block is checked against the CRC that came with it, but that CRC came from the same server. Only all block
//! CRCs together can be compared with replicated metadata (S3).

use quarry_types::{Crc32, limits::BLOCK_BYTES};

/// The verdict at the end of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything handed out is right, and so is the rest.
    Right,
    /// The replica does not have the recorded chunk.
    WrongReplica,
    /// The replica has the recorded chunk, and something else was handed out before.
    WrongBefore,
}

/// The CRCs of a chunk's blocks, as far as they were received in order from the start.
#[derive(Clone, Debug, Default)]
pub(super) struct WholeCheck {
    blocks: Vec<Crc32>,
    bytes: u64,
    /// From an earlier round: what was handed out, when that round did not end well.
    before: Vec<Crc32>,
}

impl WholeCheck {
    /// Notes received blocks; they must follow those before.
    pub(super) fn push(&mut self, crcs: &[Crc32], bytes: u64) {
        self.blocks.extend_from_slice(crcs);
        self.bytes += bytes;
    }

    /// Bytes received in order.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins again from the start of the chunk; the first `delivered` bytes were handed out.
    pub(super) fn restart(&mut self, delivered: u64) {
        // Delivery ends where packets end, which is at the end of a block.
        let blocks = delivered.div_ceil(BLOCK_BYTES) as usize;
        if self.before.is_empty() {
            self.before = self.blocks.get(..blocks).map(<[Crc32]>::to_vec).unwrap_or_default();
        }
        self.blocks.clear();
        self.bytes = 0;
    }

    /// Judges a whole chunk of `length` bytes that the master recorded with `crc`.
    pub(super) fn judge(&self, length: u64, crc: Crc32) -> Verdict {
        let mut left = length;
        let combined = self.blocks.iter().fold(Crc32::EMPTY, |all, block| {
            let bytes = left.min(BLOCK_BYTES);
            left -= bytes;
            if bytes == BLOCK_BYTES { all.combine_block(*block) } else { all.combine(*block, bytes) }
        });
        if self.bytes != length || combined != crc {
            return Verdict::WrongReplica;
        }
        if self.blocks.starts_with(&self.before) { Verdict::Right } else { Verdict::WrongBefore }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(data: &[u8]) -> Vec<Crc32> {
        data.chunks(BLOCK_BYTES as usize).map(Crc32::of).collect()
    }

    #[test]
    fn s3_a_whole_chunk_is_judged_by_its_recorded_crc() {
        let good: Vec<u8> = (0..200_000).map(|i| (i % 253) as u8).collect();
        let mut bad = good.clone();
        bad[70_000] ^= 1;
        let (length, crc) = (good.len() as u64, Crc32::of(&good));

        let mut check = WholeCheck::default();
        check.push(&blocks(&good), length);
        assert_eq!(check.judge(length, crc), Verdict::Right);

        // A replica that differs but agrees with itself; then a good one shows what was handed out.
        let mut check = WholeCheck::default();
        check.push(&blocks(&bad), length);
        assert_eq!(check.judge(length, crc), Verdict::WrongReplica);
        let mut early = check.clone();
        early.restart(BLOCK_BYTES);
        early.push(&blocks(&good), length);
        assert_eq!(early.judge(length, crc), Verdict::Right);
        check.restart(2 * BLOCK_BYTES);
        check.push(&blocks(&good), length);
        assert_eq!(check.judge(length, crc), Verdict::WrongBefore);
    }

    #[test]
    fn a_short_chunk_is_not_whole() {
        let mut check = WholeCheck::default();
        check.push(&blocks(b"abc"), 3);
        assert_eq!(check.judge(4, Crc32::of(b"abcd")), Verdict::WrongReplica);
    }
}
