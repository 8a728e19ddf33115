//! CRC-32 (ISO-HDLC, the one of zlib, gzip and PNG).

use std::{fmt, sync::LazyLock};

use crate::limits::BLOCK_BYTES;

/// A CRC-32. That of no bytes is [`Crc32::EMPTY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Crc32(pub u32);

impl Crc32 {
    /// Of no bytes.
    pub const EMPTY: Crc32 = Crc32(0);

    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Crc32(crc32fast::hash(bytes))
    }

    /// Of `bytes` that follow what `self` covers.
    #[must_use]
    pub fn extend(self, bytes: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        Crc32(hasher.finalize())
    }

    /// Of what `self` covers followed by the `length` bytes that `next` covers. Takes time in the logarithm of
    /// `length` and reads no data.
    #[must_use]
    pub fn combine(self, next: Crc32, length: u64) -> Self {
        let mut first = crc32fast::Hasher::new_with_initial(self.0);
        first.combine(&crc32fast::Hasher::new_with_initial_len(next.0, length));
        Crc32(first.finalize())
    }

    /// [`Crc32::combine`] with the CRC of one whole block, as cheap as a look into a table: every chunk has a thousand of them.
    #[must_use]
    pub fn combine_block(self, block: Crc32) -> Self {
        let shifted = self.0.to_le_bytes().iter().zip(&*BEHIND).fold(0, |sum, (byte, table)| {
            let entry = table.get(usize::from(*byte)).copied().unwrap_or_default();
            sum ^ entry
        });
        Crc32(shifted ^ block.0)
    }
}

/// What each value of each byte of a CRC becomes when a block follows. Combining is linear: the parts are added (xor).
static BEHIND: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    let mut byte = 0;
    [(); 4].map(|()| {
        let shift = 8 * byte;
        byte += 1;
        let mut value = 0;
        [(); 256].map(|()| {
            let crc = Crc32(value << shift).combine(Crc32::EMPTY, BLOCK_BYTES);
            value += 1;
            crc.0
        })
    })
});

impl fmt::Display for Crc32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_the_crc_of_zlib() {
        assert_eq!(Crc32::of(b"123456789"), Crc32(0xcbf4_3926));
        assert_eq!(Crc32::of(b""), Crc32::EMPTY);
    }

    proptest! {
        #[test]
        fn combining_a_block_equals_combining(before: u32, block: u32) {
            let slow = Crc32(before).combine(Crc32(block), BLOCK_BYTES);
            prop_assert_eq!(Crc32(before).combine_block(Crc32(block)), slow);
        }

        #[test]
        fn combining_equals_computing(a: Vec<u8>, b: Vec<u8>) {
            let whole = [a.clone(), b.clone()].concat();
            prop_assert_eq!(Crc32::of(&a).combine(Crc32::of(&b), b.len() as u64), Crc32::of(&whole));
            prop_assert_eq!(Crc32::of(&a).extend(&b), Crc32::of(&whole));
        }
    }
}
