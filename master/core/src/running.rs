//! Time during which a leader really ran.

use std::time::Duration;

/// A look at the clock that comes later than this after the one before means that the process stood still.
pub const LOOK_MAX: Duration = Duration::from_secs(1);

/// The leader's monotonic clock without the time in which its process was stopped or starved.
///
/// What it judges by silence, beats and renewals, could not reach it then: that time speaks against nobody (S10). It holds
/// only while someone looks more often than every [`LOOK_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct RunningClock {
    looked: Duration,
    running: Duration,
}

impl RunningClock {
    /// Agrees with the monotonic clock at `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        RunningClock { looked: now, running: now }
    }

    /// The time of this clock when the monotonic one says `now`. Neither ever turns back.
    pub fn look(&mut self, now: Duration) -> Duration {
        self.running += now.saturating_sub(self.looked).min(LOOK_MAX);
        self.looked = self.looked.max(now);
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn s10_the_time_in_which_a_leader_was_stopped_speaks_against_nobody() {
        let mut clock = RunningClock::new(ms(5000));
        assert_eq!(clock.look(ms(5400)), ms(5400));
        assert_eq!(clock.look(ms(6400)), ms(6400));
        assert_eq!(clock.look(ms(66_400)), ms(7400), "a minute of standing still counts as one look");
        assert_eq!(clock.look(ms(66_500)), ms(7500));
        assert_eq!(clock.look(ms(66_000)), ms(7500), "it does not turn back");
        assert_eq!(clock.look(ms(66_600)), ms(7600));
    }
}
