//! Time.

use std::{future::Future, pin::Pin, time::Duration};

/// A monotonic instant: the time since an arbitrary start of this process's clock.
///
/// Not comparable between processes, and never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub Duration);

impl Instant {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` moved on by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(by))
    }
}

/// An instant of [`Clock::boot`]: time since an arbitrary start. A type of its own, because [`Instant`]s stand still while
/// the machine sleeps and the two must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(pub Duration);

impl BootInstant {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: BootInstant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A boxed sleep.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The clock of one process.
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Monotonic time that also passes while the machine sleeps, and, as [`Clock::now`] does, while the process is stopped.
    /// For saying that something is not older than so much: there a pause that is not counted would be a lie.
    fn boot(&self) -> BootInstant;
    /// Milliseconds since the Unix epoch. For display only: nothing may depend on it (S10).
    fn wall_ms(&self) -> u64;
    /// Completes after `by`. Dropping it cancels it.
    fn sleep(&self, by: Duration) -> Sleep;
}

/// The future did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

/// Runs `future` for at most `limit`. Cancel-safe exactly when `future` is: on a timeout it is dropped.
pub async fn timeout<F: Future>(clock: &dyn Clock, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        out = future => Ok(out),
        () = clock.sleep(limit) => Err(Elapsed(limit)),
    }
}
