//! Time of a simulated machine.
//!
//! Monotonic time is tokio's, paused: it moves when the simulation says so. The wall clock is a fixed date plus the
//! time the simulation has run plus this machine's skew, which a test may move in either direction at any moment,
//! as an operator or NTP would. Nothing may depend on it (S10).
#![expect(clippy::disallowed_methods, reason = "this is one of the two places that the ban points to")]

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use quarry_env::{BootInstant, Clock, Instant, clock::Sleep};

/// 2030-01-01T00:00:00Z, when every simulation starts.
const EPOCH_MS: u64 = 1_893_456_000_000;

/// The clock of one process. Make one per life of the process.
#[derive(Debug, Default)]
pub struct SimClock {
    /// Taken at first use, which is inside the runtime whose time it is.
    start: OnceLock<tokio::time::Instant>,
    skew_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock whose wall time is off by what `skew_ms` holds, now and later.
    #[must_use]
    pub fn new(skew_ms: Arc<AtomicI64>) -> Self {
        SimClock { start: OnceLock::new(), skew_ms }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(self.start.get_or_init(tokio::time::Instant::now).elapsed())
    }

    /// Simulated machines do not sleep.
    fn boot(&self) -> BootInstant {
        BootInstant(self.now().0)
    }

    fn wall_ms(&self) -> u64 {
        let run = turmoil::sim_elapsed().unwrap_or_else(|| self.now().0);
        let run_ms = u64::try_from(run.as_millis()).unwrap_or(u64::MAX);
        EPOCH_MS.saturating_add(run_ms).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }

    fn sleep(&self, by: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn time_moves_only_when_slept() {
        tokio::time::pause();
        let skew = Arc::new(AtomicI64::new(0));
        let clock = SimClock::new(Arc::clone(&skew));
        let (from, wall) = (clock.now(), clock.wall_ms());
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().since(from).as_secs(), 3600);
        skew.store(-7_200_000, Ordering::Relaxed);
        assert_eq!(clock.wall_ms() / 1000, (wall - 3_600_000) / 1000);
    }
}
