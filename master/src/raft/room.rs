//! Keeping room on the disk, so that the log never fails half-way.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quarry_env::{Instant, World};
use quarry_master_core::command::Kind;

use super::ProposeError;

/// How long a measurement of the room holds. Even at full speed the log grows by less than the reserve meanwhile.
const MEASURE_EVERY: Duration = Duration::from_millis(200);

/// The room on the disk of the log, as last measured.
pub(crate) struct Room {
    world: World,
    dir: PathBuf,
    reserve: u64,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Room {
    pub(crate) fn new(world: &World, dir: &Path, reserve: u64) -> Self {
        Room { world: world.clone(), dir: dir.to_owned(), reserve, last: Mutex::new(None) }
    }

    /// Refuses a command that would use up the reserve. What clients want is refused first; what the leader needs for
    /// its own upkeep may use one half of the reserve, and the other half is left to the log and its tables.
    pub(crate) async fn check(&self, kind: &Kind) -> Result<(), ProposeError> {
        let needed = match kind {
            Kind::Client(_) | Kind::OpenSession(_) => self.reserve,
            _ => self.reserve / 2,
        };
        let available = self.available().await;
        if available >= needed {
            return Ok(());
        }
        Err(ProposeError::Full(format!(
            "the disk of the master at {} has {} MiB left, changes need {} MiB: free some room there",
            self.dir.display(),
            available >> 20,
            needed >> 20
        )))
    }

    /// Whether what clients want is refused.
    pub(crate) async fn is_short(&self) -> bool {
        self.available().await < self.reserve
    }

    /// The same by the last measurement, without making one.
    pub(crate) fn was_short(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|(_, available)| available < self.reserve)
    }

    async fn available(&self) -> u64 {
        let now = self.world.clock.now();
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, available)) = last
            && now.since(at) < MEASURE_EVERY
        {
            return available;
        }
        let (disk, dir) = (self.world.disk.clone(), self.dir.clone());
        let space = self.world.blocking.run(move || disk.space(&dir)).await;
        // A disk that cannot be measured is not thereby full; writing to it will tell.
        let available = space.ok().and_then(Result::ok).map_or(u64::MAX, |space| space.available);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, available));
        available
    }
}
