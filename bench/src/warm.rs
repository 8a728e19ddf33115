//! Memory that the machine has not touched lately is slow to touch: on a virtual machine it was handed back to the host.
//!
//! Free memory goes back within about a second; clean page cache does not, and is reclaimed at once when somebody wants
//! memory. So before each run what is free is filled with the cache of a sparse file.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    error::{During as _, Outcome},
    proc::machine_memory,
};

/// So much may stay free: the kernel keeps some.
const LEFT_FREE_BYTES: u64 = 1 << 30;
/// Looked at so often.
const STEP_BYTES: usize = 64 << 20;
/// Filling takes at most so long; then the run begins with what is warm.
const PATIENCE: Duration = Duration::from_secs(90);

/// A sparse file whose pages fill the memory.
pub struct Warmth {
    cold: bool,
    file: File,
    bytes: u64,
    at: u64,
}

impl Warmth {
    /// Makes the file, which takes no room on the disk. `cold`: nothing will be filled.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(dir: &Path, cold: bool) -> Outcome<Self> {
        let path = dir.join("warmth");
        let bytes = machine_memory("MemTotal").unwrap_or_default().max(STEP_BYTES as u64);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let file = file.during(format!("making {}", path.display()))?;
        file.set_len(bytes).during(format!("making {}", path.display()))?;
        Ok(Warmth { cold, file, bytes, at: 0 })
    }

    /// Fills what is free.
    ///
    /// # Errors
    /// As the system says.
    pub fn fill(&mut self) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 1 << 20];
        while !self.cold && machine_memory("MemFree").unwrap_or_default() > LEFT_FREE_BYTES && Instant::now() < until {
            if self.at + STEP_BYTES as u64 > self.bytes {
                self.at = 0;
            }
            self.file.seek(SeekFrom::Start(self.at)).during("warming memory")?;
            for _ in 0..STEP_BYTES / buffer.len() {
                self.file.read_exact(&mut buffer).during("warming memory")?;
            }
            self.at += STEP_BYTES as u64;
        }
        Ok(())
    }
}
