//! Bytes to write, as `quarry bench` has them: 8 MiB that repeat.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

use crate::error::{During as _, Outcome};

/// Bytes of a piece.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces before they repeat.
pub const PIECES: usize = 8;

/// Random bytes.
///
/// # Errors
/// When the system has none.
pub fn ring() -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; PIECE_BYTES * PIECES];
    File::open("/dev/urandom").and_then(|mut from| from.read_exact(&mut bytes)).during("reading random bytes")?;
    Ok(bytes)
}

/// Makes a file of `bytes` bytes, unless it is there.
///
/// # Errors
/// As the system says.
pub fn file(path: &Path, bytes: u64) -> Outcome<File> {
    let doing = format!("making {}", path.display());
    if !std::fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
        let mut to = File::create(path).during(&doing)?;
        let ring = ring()?;
        let mut left = bytes;
        for piece in ring.chunks(PIECE_BYTES).cycle() {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            to.write_all(&piece[..part]).during(&doing)?;
            left -= part as u64;
            if left == 0 {
                break;
            }
        }
        to.sync_data().during(&doing)?;
    }
    File::open(path).during(doing)
}
