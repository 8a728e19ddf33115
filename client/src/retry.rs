//! When to try again: pure, so that its schedule can be tested without waiting.

use std::time::Duration;

/// First pause.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest of the first pauses: another master leads after a second or two, and nobody is to wait for much longer than that.
const PAUSE_SOON: Duration = Duration::from_millis(320);
/// How many are first.
const SOON: u32 = 16;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Pauses that double from [`PAUSE_FIRST`] to [`PAUSE_SOON`], and after [`SOON`] of them to [`PAUSE_MAX`], each drawn from its upper half.
///
/// Without the draw, clients that failed together would come back together, again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next attempt; `random` is any number.
    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let longest = if self.failures < SOON { PAUSE_SOON } else { PAUSE_MAX };
        let full = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_nanos(random % span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..20).map(|_| backoff.pause(u64::MAX / 2).as_millis()).collect();
        let uppers: Vec<u128> = (0..20).map(|n| (20u128 << n).min(if n < 16 { 320 } else { 2000 })).collect();
        for (pause, upper) in pauses.iter().zip(&uppers) {
            assert!(pause * 2 >= *upper && pause <= upper, "{pauses:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_zero_nor_longer_than_the_longest(failures in 0usize..200, random: u64) {
            let mut backoff = Backoff::default();
            for _ in 0..failures {
                backoff.pause(random);
            }
            let pause = backoff.pause(random);
            prop_assert!(pause >= PAUSE_FIRST / 2 && pause <= PAUSE_MAX);
        }
    }
}
