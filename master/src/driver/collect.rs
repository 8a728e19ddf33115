//! Replicated time, and taking apart what was removed.

use std::sync::{Mutex, PoisonError};

use quarry_env::Instant;
use quarry_master_core::{
    command::{CollectRemoved, Kind, Tick},
    limits::COLLECT_MAX,
    query,
    reply::Reply,
    tables::ReadTables,
};
use quarry_types::{limits::TICK, planted};

use crate::{
    error::Fault,
    lookups,
    shared::{Leading, Shared},
};

pub(super) struct Collection<'a> {
    shared: &'a Shared,
    leading: &'a Leading,
    /// Up to where the leader's time has gone into ticks. What a failed tick did not bring the next one does; what a
    /// lost leadership did not, is lost: waiting longer is safe (S10).
    ticked: Mutex<Instant>,
    /// What the wall clock said at the last tick: only a planted bug looks at it.
    wall_ms: Mutex<u64>,
}

impl<'a> Collection<'a> {
    pub fn new(shared: &'a Shared, leading: &'a Leading) -> Self {
        let wall_ms = Mutex::new(shared.world.clock.wall_ms());
        Collection { shared, leading, ticked: Mutex::new(shared.now()), wall_ms }
    }

    pub fn stepper(self) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + 'a>> {
        let this = std::sync::Arc::new(self);
        move || {
            let this = this.clone();
            Box::pin(async move { this.step().await })
        }
    }

    async fn step(&self) -> Result<bool, Fault> {
        // Time stands still as well: there is nothing to tick for.
        if self.leading.is_held() {
            *self.ticked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.shared.now();
            return Ok(false);
        }
        if self.shared.peek(lookups::removed_is_due).await? {
            let collect = CollectRemoved { limit: COLLECT_MAX };
            return match self.shared.propose(Kind::CollectRemoved(collect)).await? {
                Reply::Collected(collected) => Ok(collected.more),
                _ => Ok(false),
            };
        }
        self.tick().await?;
        Ok(false)
    }

    /// Moves replicated time on, while anything waits for it: what was removed, or a server in maintenance.
    async fn tick(&self) -> Result<(), Fault> {
        let now = self.shared.now();
        let last = *self.ticked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = now.since(last);
        if elapsed < TICK {
            return Ok(());
        }
        let waits =
            |tables: &dyn ReadTables| Ok(query::totals(tables)?.removed > 0 || query::is_in_maintenance(tables)?);
        if self.shared.peek(waits).await? {
            let mut elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            if planted!("trust-wall-clock") {
                let wall_ms = self.shared.world.clock.wall_ms();
                let before =
                    std::mem::replace(&mut *self.wall_ms.lock().unwrap_or_else(PoisonError::into_inner), wall_ms);
                elapsed_ms = wall_ms.saturating_sub(before);
            }
            self.shared.propose(Kind::Tick(Tick { elapsed_ms })).await?;
        }
        *self.ticked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
        Ok(())
    }
}
