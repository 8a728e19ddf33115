//! Reads at random offsets of a cached file, with a checksum.

use std::{os::unix::fs::FileExt as _, path::Path, time::Instant};

use quarry_types::limits::BLOCK_BYTES;

use super::ring;
use crate::{
    error::{During as _, Outcome},
    measured::{Latencies, Measured, Meter},
};

/// Multiplier and increment of a 64-bit linear congruential generator (Knuth's MMIX): where the next read is.
const NEXT: (u64, u64) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);

/// Reads `size` bytes `operations` times.
pub fn run(path: &Path, bytes: u64, size: usize, operations: u64) -> Outcome<Measured> {
    let file = ring::file(path, bytes)?;
    let mut buffer = vec![0; size];
    let places = bytes.saturating_sub(size as u64) + 1;
    let mut random = 1_u64;
    let mut read = || -> std::io::Result<()> {
        random = random.wrapping_mul(NEXT.0).wrapping_add(NEXT.1);
        file.read_exact_at(&mut buffer, (random >> 16) % places)?;
        let sum = buffer.chunks(BLOCK_BYTES as usize).fold(0, |sum, block| sum ^ crc32fast::hash(block));
        std::hint::black_box(sum);
        Ok(())
    };
    for _ in 0..operations / 10 {
        read().during("reading a file")?;
    }
    let (mut latencies, meter) = (Latencies::new()?, Meter::begin()?);
    for _ in 0..operations {
        let began = Instant::now();
        read().during("reading a file")?;
        latencies.add(began.elapsed());
    }
    meter.end("pread", 1, operations * size as u64, &latencies, 0.0)
}
