//! Reproducible bytes and their checksums.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Where the numbers of a random test come from; printed so that a failure can be repeated.
///
/// # Panics
/// When `variable` is set and is no number.
#[must_use]
pub fn seed(variable: &str, default: u64) -> u64 {
    let seed = std::env::var(variable).map_or(default, |v| v.parse().expect("a seed is a number"));
    println!("seed {seed}; repeat with {variable}={seed}");
    seed
}

/// `length` bytes that only depend on `seed`.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

/// Writes a file of `length` bytes that only depend on `seed`; returns its SHA-256.
///
/// # Panics
/// When the file cannot be written.
pub fn file(path: &Path, seed: u64, length: u64) -> String {
    let mut to = BufWriter::new(File::create(path).expect("the file can be made"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let n = usize::try_from(left.min(1 << 20)).expect("at most a MiB");
        rng.fill_bytes(&mut part[..n]);
        hash.update(&part[..n]);
        to.write_all(&part[..n]).expect("the file can be written");
        left -= n as u64;
    }
    to.flush().expect("the file can be written");
    format!("{:x}", hash.finalize())
}

/// SHA-256 and CRC-32 (eight hex digits) of a file.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn sums(path: &Path) -> (String, String) {
    let mut from = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut sha, mut crc) = (Sha256::new(), crc32fast::Hasher::new());
    let mut part = vec![0; 1 << 20];
    loop {
        let n = from.read(&mut part).expect("the file can be read");
        if n == 0 {
            return (format!("{:x}", sha.finalize()), format!("{:08x}", crc.finalize()));
        }
        sha.update(&part[..n]);
        crc.update(&part[..n]);
    }
}

/// A length between 0 and `most` that favours the edges of blocks.
pub fn length(rng: &mut impl Rng, most: u64) -> u64 {
    let block = 64 << 10;
    match rng.random_range(0..4) {
        0 => rng.random_range(0..3),
        1 => (rng.random_range(0..=most / block) * block + rng.random_range(0..3)).saturating_sub(1).min(most),
        _ => rng.random_range(0..=most),
    }
}
