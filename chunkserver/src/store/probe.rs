//! Touching the disks, for whoever asks whether this server is there.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use quarry_env::OpenMode;
use quarry_types::ErrorCode;

use super::{
    StoreError,
    dir::{Dir, lock},
    shared::Shared,
    sync_points,
};

/// The file that a probe writes. What it holds means nothing.
const PROBE: &str = "PROBE";

/// Probes of one disk at once. Past them it counts as not answering: one that hangs holds as many threads and no more.
const PROBES_AT_ONCE: usize = 8;

/// How many probes wait for each directory.
#[derive(Default)]
pub(super) struct Probes(Mutex<BTreeMap<PathBuf, usize>>);

impl Probes {
    pub(super) fn begin(&self, dir: &Dir) -> Result<(), StoreError> {
        let mut probes = lock(&self.0);
        let waiting = probes.entry(dir.path.clone()).or_default();
        if *waiting >= PROBES_AT_ONCE {
            let message =
                format!("data directory {}: {waiting} probes wait for it; check that disk", dir.path.display());
            return Err(StoreError::new(ErrorCode::DiskFailed, message));
        }
        *waiting += 1;
        Ok(())
    }

    pub(super) fn end(&self, dir: &Dir) {
        if let Some(waiting) = lock(&self.0).get_mut(&dir.path) {
            *waiting = waiting.saturating_sub(1);
        }
    }
}

impl Shared {
    /// Reaches the disk itself: what is only read may come from memory, so a byte is written and synced. A full disk
    /// answers, too.
    pub(super) fn probe(&self, dir: &Arc<Dir>) -> Result<(), StoreError> {
        let index = dir.index()?;
        if let Err(error) = index.meta() {
            self.fail_dir(dir, &error.to_string());
            return Err(error.into());
        }
        let (disk, path) = (&*self.world.disk, dir.path.join(PROBE));
        let touch = || {
            let file = match disk.open(&path, OpenMode::Write) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(&path, OpenMode::CreateNew)?,
                opened => opened?,
            };
            file.write_all_at(&[self.start_counter as u8], 0)?;
            file.sync_data(sync_points::PROBE)
        };
        match touch() {
            // Two probes made it at once, or there is no room for it: the disk has answered.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Err(StoreError::io(&path, "write", &error))
            }
            _ => Ok(()),
        }
    }
}
