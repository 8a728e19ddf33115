//! Servers that keep coming and going.

use std::{collections::VecDeque, time::Duration};

/// Deaths within this time count together.
const WITHIN: Duration = Duration::from_secs(600);
/// So many times a server may come back and counts at once.
const FREE: u32 = 2;
/// The next time it has to be back this long, and twice as long each time after that. Until then nothing is dropped in favour
/// of its replicas, so that their chunks are not copied again when it goes once more.
const FIRST: Duration = Duration::from_secs(30);
/// But never longer.
const LONGEST: Duration = Duration::from_secs(300);
/// Deaths remembered: by then the time has long reached [`LONGEST`].
const KEPT: usize = 16;

/// When a server came back from the dead.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    returns: VecDeque<Duration>,
    steady_from: Option<Duration>,
}

impl Flaps {
    /// It beats again after it had been dead.
    pub fn came_back(&mut self, now: Duration) {
        self.returns.push_back(now);
        while self.returns.len() > KEPT || self.returns.front().is_some_and(|at| now.saturating_sub(*at) >= WITHIN) {
            self.returns.pop_front();
        }
        let beyond = u32::try_from(self.returns.len()).unwrap_or(u32::MAX).checked_sub(FREE + 1);
        self.steady_from =
            beyond.map(|n| now.saturating_add(FIRST.saturating_mul(1 << n.min(KEPT as u32)).min(LONGEST)));
    }

    /// From then on it counts as alive while it beats; `None`: it always does.
    pub fn steady_from(&self) -> Option<Duration> {
        self.steady_from
    }

    /// It has been back for long enough.
    pub fn is_steady(&self, now: Duration) -> bool {
        self.steady_from.is_none_or(|from| now >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_too_often_has_to_stay_for_a_growing_and_bounded_time() {
        let mut flaps = Flaps::default();
        let waits: Vec<u64> = (0..10u64)
            .map(|n| {
                let now = Duration::from_secs(20 * n);
                flaps.came_back(now);
                flaps.steady_from().map_or(0, |from| (from - now).as_secs())
            })
            .collect();
        assert_eq!(waits, [0, 0, 30, 60, 120, 240, 300, 300, 300, 300]);
        assert!(!flaps.is_steady(Duration::from_secs(479)) && flaps.is_steady(Duration::from_secs(480)));
        flaps.came_back(Duration::from_secs(1000));
        assert!(flaps.is_steady(Duration::from_secs(1000)), "that was long ago");
        (0..100).for_each(|_| flaps.came_back(Duration::from_secs(1000)));
        assert_eq!(flaps.returns.len(), KEPT);
    }
}
