//! Reproducible contents of files.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `length` bytes that only depend on `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

/// A length between 0 and `most` bytes that favours the edges of blocks.
pub fn length(rng: &mut impl Rng, most: u64) -> u64 {
    let block = 64 << 10;
    match rng.random_range(0..4) {
        0 => rng.random_range(0..3),
        1 => (rng.random_range(0..=most / block) * block + rng.random_range(0..3)).saturating_sub(1).min(most),
        _ => rng.random_range(0..=most),
    }
}
