//! Pauses between attempts: longer each time, and never the same for two servers.

use std::time::Duration;

use quarry_env::Random;

const FIRST: Duration = Duration::from_millis(100);
/// Longest of the first pauses: another master leads after a second or two, and this server is missed by then.
const SOON_LONGEST: Duration = Duration::from_millis(400);
/// How many are first.
const SOON: u32 = 16;
const LONGEST: Duration = Duration::from_secs(3);
/// What held this long was no failure to begin with.
const GOOD: Duration = Duration::from_secs(10);

/// Exponential, with jitter.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: between half of what is due and all of it.
    pub(super) fn next(&mut self, random: &dyn Random) -> Duration {
        let longest = if self.failures < SOON { SOON_LONGEST } else { LONGEST };
        let due = FIRST.saturating_mul(1 << self.failures.min(10)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let half = due / 2;
        half + Duration::from_micros(random.below(u64::try_from(half.as_micros()).unwrap_or(u64::MAX)))
    }

    /// An attempt succeeded and its success lasted so long.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time >= GOOD {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Half;
    impl Random for Half {
        fn next_u64(&self) -> u64 {
            u64::MAX / 2
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..24).map(|_| backoff.next(&Half)).collect();
        assert!(pauses[0] < FIRST && pauses.windows(2).all(|two| two[0] <= two[1]));
        assert!(pauses[15] <= SOON_LONGEST && pauses[23] > SOON_LONGEST && pauses[23] <= LONGEST);
        backoff.lasted(GOOD);
        assert!(backoff.next(&Half) < FIRST);
    }
}
