//! Reads of the state: everything that was acknowledged, by the leader; or a little old, by any master.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use quarry_env::BootInstant;
use quarry_master_core::{query, staleness::Allowed, tables::ReadTables};
use quarry_proto::v1;

use crate::{
    error::{Fault, job_lost, query_fault},
    shared::Shared,
};

/// How one request is to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When it came.
    pub came: BootInstant,
    /// How long it may wait.
    pub patience: Duration,
    /// How old the answer may be; `None`: it shows everything that was acknowledged before it was asked for.
    pub allowed: Option<Allowed>,
}

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// What it lacks was acknowledged within this time before it was made.
    pub age: Duration,
    /// The index of the log that it shows the state of.
    pub applied: u64,
}

impl From<Age> for v1::Staleness {
    fn from(from: Age) -> Self {
        let ms = from.age.as_nanos().div_ceil(1_000_000);
        v1::Staleness { ms: u64::try_from(ms).unwrap_or(u64::MAX), applied: from.applied }
    }
}

/// Reads that were allowed to be old, since the process started.
#[derive(Debug, Default)]
pub struct StaleReads {
    /// Those that were answered.
    pub answered: AtomicU64,
    /// Those that were not, because the state may have been older than allowed.
    pub refused: AtomicU64,
}

impl Shared {
    /// Reads the state as `reading` says; and how old that may be, when it may be old. `read` may be called again.
    pub async fn read_as<T: Send + 'static>(
        &self,
        reading: &Reading,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Clone + Send + 'static,
    ) -> Result<(T, Option<Age>), Fault> {
        let Some(allowed) = reading.allowed else {
            self.leading()?;
            return Ok((self.read(read).await?, None));
        };
        let found = self.read_within(reading, allowed, read).await;
        let count = if found.is_ok() { &self.stale_reads.answered } else { &self.stale_reads.refused };
        count.fetch_add(1, Ordering::Relaxed);
        let (found, age) = found?;
        Ok((found.map_err(query_fault)?, Some(age)))
    }

    async fn read_within<T: Send + 'static>(
        &self,
        reading: &Reading,
        allowed: Allowed,
        read: impl FnOnce(&dyn ReadTables) -> Result<T, query::Fault> + Clone + Send + 'static,
    ) -> Result<(Result<T, query::Fault>, Age), Fault> {
        let (group, clock) = (&self.group, &self.world.clock);
        let begun = clock.now();
        loop {
            let left = reading.patience.saturating_sub(clock.now().since(begun));
            let proof = group.within(allowed, reading.came, left).await?;
            let (view, read) = (group.view(), read.clone());
            let looked = self.world.blocking.run(move || view.at_once_applied(read)).await.map_err(job_lost)?;
            let (found, applied) = looked.map_err(|error| query_fault(query::Fault::Table(error)))?;
            // This process may have been stopped since the proof was found good.
            if let Some(age) = group.is_within(allowed, reading.came, proof, applied) {
                return Ok((found, Age { age, applied }));
            }
            if left.is_zero() {
                return Err(group.too_stale(allowed, None));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_said_to_be_younger_than_it_is() {
        let ms = |micros| v1::Staleness::from(Age { age: Duration::from_micros(micros), applied: 7 }).ms;
        assert_eq!((ms(0), ms(1), ms(1000), ms(1001)), (0, 1, 1, 2));
    }
}
