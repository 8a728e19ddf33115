//! One process that copies the same bytes to three files and checksums them once.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use quarry_types::limits::{BLOCK_BYTES, CHUNK_BYTES};

use super::{Sync, ring};
use crate::{
    error::{During as _, Outcome},
    measured::{Latencies, Measured, Meter},
};

/// Copies.
const COPIES: usize = 3;

/// Writes `bytes` bytes three times.
pub fn run(dir: &Path, bytes: u64, sync: Sync) -> Outcome<Measured> {
    std::fs::create_dir_all(dir).during(format!("making {}", dir.display()))?;
    let ring = ring::ring()?;
    let paths: Vec<_> = (0..COPIES).map(|n| dir.join(format!("copy-{n}"))).collect();
    let files = paths.iter().map(File::create).collect::<Result<Vec<_>, _>>().during("making the copies")?;
    let (mut latencies, meter) = (Latencies::new()?, Meter::begin()?);
    copy(&ring, &files, bytes, sync).during("writing the copies")?;
    latencies.add(meter.elapsed());
    let measured = meter.end("write", 1, bytes, &latencies, 0.0)?;
    for path in paths {
        std::fs::remove_file(path).during("removing the copies")?;
    }
    Ok(measured)
}

fn copy(ring: &[u8], files: &[File], bytes: u64, sync: Sync) -> std::io::Result<()> {
    let (mut offset, mut sum) = (0, 0_u32);
    while offset < bytes {
        let at = usize::try_from(offset).unwrap_or_default() % ring.len();
        let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(ring::PIECE_BYTES);
        let piece = &ring[at..at + part];
        for block in piece.chunks(BLOCK_BYTES as usize) {
            sum ^= crc32fast::hash(block);
        }
        for file in files {
            file.write_all_at(piece, offset)?;
        }
        offset += part as u64;
        let due = match sync {
            Sync::None => false,
            Sync::Chunk => offset.is_multiple_of(CHUNK_BYTES) || offset == bytes,
            Sync::End => offset == bytes,
        };
        if due {
            files.iter().try_for_each(File::sync_data)?;
        }
    }
    std::hint::black_box(sum);
    Ok(())
}
