//! How long to wait for the first byte of a range before a second replica is asked.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Never sooner than this: asking twice costs a server work.
const PATIENCE_MIN: Duration = Duration::from_millis(50);
/// A first byte that takes this many times the usual is late.
const USUAL_TIMES: u32 = 4;
/// Weight of the newest measurement, as a divisor.
const NEWEST: u64 = 8;

/// What first bytes have been taking, as a moving average, and the patience that follows from it.
pub(crate) struct FirstByte {
    /// Microseconds; 0: nothing measured yet.
    usual_us: AtomicU64,
    patience_max: Duration,
}

impl FirstByte {
    pub(crate) fn new(patience_max: Duration) -> Self {
        FirstByte { usual_us: AtomicU64::new(0), patience_max }
    }

    /// A first byte took `time`.
    pub(crate) fn took(&self, time: Duration) {
        let new = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        // A lost update of an average does no harm.
        let old = self.usual_us.load(Ordering::Relaxed);
        let usual = if old == 0 { new } else { (old * (NEWEST - 1) + new).div_ceil(NEWEST) };
        self.usual_us.store(usual, Ordering::Relaxed);
    }

    /// How long to wait for the next one.
    pub(crate) fn patience(&self) -> Duration {
        match self.usual_us.load(Ordering::Relaxed) {
            0 => self.patience_max,
            usual => (Duration::from_micros(usual) * USUAL_TIMES).max(PATIENCE_MIN).min(self.patience_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_is_usual_within_its_limits() {
        let ms = Duration::from_millis;
        let first = FirstByte::new(ms(500));
        assert_eq!(first.patience(), ms(500));
        first.took(ms(1));
        assert_eq!(first.patience(), PATIENCE_MIN);
        for _ in 0..200 {
            first.took(ms(40));
        }
        assert!(first.patience() > ms(150) && first.patience() <= ms(161), "{:?}", first.patience());
        for _ in 0..200 {
            first.took(Duration::MAX);
        }
        assert_eq!(first.patience(), ms(500));
    }
}
