//! Damage to chunk files, behind the servers' backs.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

/// Where a chunk's bytes begin in its file.
pub const DATA_AT: u64 = 8192;

/// Flips a bit of the chunk's byte at `offset`.
///
/// # Panics
/// When the file is not that long, or cannot be written.
pub fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a chunk file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, DATA_AT + offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], DATA_AT + offset).expect("a chunk file");
}
