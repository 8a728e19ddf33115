//! Reads a cached file from start to end and checksums it.

use std::{os::unix::fs::FileExt as _, path::Path};

use quarry_types::limits::BLOCK_BYTES;

use super::ring;
use crate::{
    error::{During as _, Outcome},
    measured::{Latencies, Measured, Meter},
};

/// Reads it once so that it is cached, then once more.
pub fn run(path: &Path, bytes: u64) -> Outcome<Measured> {
    let file = ring::file(path, bytes)?;
    let mut buffer = vec![0; ring::PIECE_BYTES];
    let mut pass = || -> std::io::Result<()> {
        let (mut offset, mut sum) = (0, 0_u32);
        while offset < bytes {
            let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ring::PIECE_BYTES);
            file.read_exact_at(&mut buffer[..part], offset)?;
            for block in buffer[..part].chunks(BLOCK_BYTES as usize) {
                sum ^= crc32fast::hash(block);
            }
            offset += part as u64;
        }
        std::hint::black_box(sum);
        Ok(())
    };
    pass().during("reading a file")?;
    let (mut latencies, meter) = (Latencies::new()?, Meter::begin()?);
    pass().during("reading a file")?;
    latencies.add(meter.elapsed());
    meter.end("read", 1, bytes, &latencies, 0.0)
}
