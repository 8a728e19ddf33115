//! No faster than ordered.

use std::time::Duration;

use quarry_env::{Clock, Instant};
use quarry_types::limits::{BLOCK_BYTES, PACKET_BYTES};

/// Bytes asked for at once when nothing slows a copy down.
const PIECE_BYTES: u64 = 4 * PACKET_BYTES;
/// A paced copy asks for its bytes in this many pieces per second, if a piece stays a block at least.
const PIECES_PER_SECOND: u64 = 4;
const NANOS: u128 = 1_000_000_000;

/// Lets bytes through at a rate: a piece goes when the time of the one before has passed.
pub(super) struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

impl Pace {
    /// `bytes_per_second` of 0 is no limit.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Pace { bytes_per_second, next: now }
    }

    /// Bytes to ask for at once: whole blocks.
    pub(super) fn piece(&self) -> u64 {
        match self.bytes_per_second {
            0 => PIECE_BYTES,
            rate => {
                let bytes = (rate / PIECES_PER_SECOND).clamp(BLOCK_BYTES, PIECE_BYTES);
                bytes - bytes % BLOCK_BYTES
            }
        }
    }

    /// How long to wait before the next `bytes` are asked for.
    fn wait(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let start = self.next.max(now);
        let nanos = u128::from(bytes) * NANOS / u128::from(self.bytes_per_second);
        self.next = start.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start.since(now)
    }

    /// Waits until the next `bytes` may be asked for.
    pub(super) async fn pass(&mut self, clock: &dyn Clock, bytes: u64) {
        let wait = self.wait(bytes, clock.now());
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_at_the_rate_and_time_without_any_is_not_saved_up() {
        let at = |seconds| Instant(Duration::from_secs(seconds));
        let mut pace = Pace::new(1 << 20, at(0));
        assert_eq!(pace.piece(), 1 << 18);
        let waits: Vec<_> = (0..4).map(|_| pace.wait(1 << 20, at(0)).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 3]);
        assert_eq!((pace.wait(1, at(100)).as_secs(), pace.wait(1 << 20, at(100)).as_secs()), (0, 0));
        assert!(pace.wait(1, at(100)) >= Duration::from_secs(1));
        assert_eq!(Pace::new(0, at(0)).wait(u64::MAX, at(0)), Duration::ZERO);
        assert_eq!((Pace::new(1, at(0)).piece(), Pace::new(u64::MAX, at(0)).piece()), (BLOCK_BYTES, PIECE_BYTES));
    }
}
