//! How long a server may be silent, by its past beats: the phi accrual failure detector of Hayashibara, Défago, Yared and
//! Katayama (2004). Phi is the negative decimal logarithm of the probability that a beat comes even later than now, when
//! intervals are normally distributed as the last ones were.

use std::{collections::VecDeque, time::Duration};

use quarry_types::limits::{BEAT_INTERVAL, DEAD_AFTER, SUSPECT_AFTER};

/// Intervals that are looked at.
const WINDOW: usize = 100;
/// With fewer the fixed times hold.
const ENOUGH: usize = 10;
/// The deviation counts as at least the jitter of the beats: a phase of calm must not make the detector nervous.
const DEVIATION_MIN: Duration = Duration::from_millis(BEAT_INTERVAL.as_millis() as u64 / 10);
/// A server is dead at so many times the phi at which it is suspect.
const DEAD_PHI: f64 = 2.0;
/// However its beats came, no server has more than so many times the fixed times.
const LONGEST: u32 = 10;

/// How long a server may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Then it is suspect.
    pub suspect: Duration,
    /// Then it is dead, or partitioned.
    pub dead: Duration,
}

impl Patience {
    /// The fixed times.
    pub const FIXED: Patience = Patience { suspect: SUSPECT_AFTER, dead: DEAD_AFTER };
}

/// The last intervals between beats.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals(VecDeque<Duration>);

impl Intervals {
    /// A beat came so long after the one before.
    pub fn add(&mut self, interval: Duration) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(interval);
    }

    /// So many beats came one after the other, each after the same interval.
    pub fn add_regular(&mut self, interval: Duration, count: usize) {
        (0..count.min(WINDOW)).for_each(|_| self.add(interval));
    }

    /// What they allow at `phi`, in thousandths; 0: the fixed times. A server is dead never earlier than after the fixed time,
    /// so that its peers have theirs to look for it, and suspect never earlier than a beat can come.
    pub fn patience(&self, phi: u64) -> Patience {
        if phi == 0 || self.0.len() < ENOUGH {
            return Patience::FIXED;
        }
        let count = self.0.len() as f64;
        let mean = self.0.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
        let variance = self.0.iter().map(|i| (i.as_secs_f64() - mean).powi(2)).sum::<f64>() / count;
        let deviation = variance.sqrt().max(DEVIATION_MIN.as_secs_f64());
        let phi = phi as f64 / 1000.0;
        let after = |phi: f64, least: Duration, most: Duration| {
            let seconds = mean + deviations(phi) * deviation;
            Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(most).clamp(least, most)
        };
        Patience {
            suspect: after(phi, BEAT_INTERVAL + DEVIATION_MIN, SUSPECT_AFTER * LONGEST),
            dead: after(DEAD_PHI * phi, DEAD_AFTER, DEAD_AFTER * LONGEST),
        }
    }
}

/// By how many deviations a beat is late when its phi is this. The normal distribution is approximated by the logistic of
/// `1.5976 y + 0.070566 y³`, which is wrong by less than a
/// tenth of a deviation where it matters here; this solves that cubic for y. Phi below that of a beat in time
/// (about 0.3) counts as that.
fn deviations(phi: f64) -> f64 {
    const LINEAR: f64 = 1.5976;
    const CUBIC: f64 = 0.070_566;
    // ln(10^phi - 1); the 1 is lost where phi is large.
    let odds = if phi > 15.0 { phi * std::f64::consts::LN_10 } else { (10f64.powf(phi) - 1.0).max(1.0).ln() };
    let (p, q) = (LINEAR / CUBIC, odds / CUBIC);
    let root = (p / 3.0).sqrt();
    2.0 * root * ((q / (2.0 * root.powi(3))).asinh() / 3.0).sinh()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(intervals: &[u64], phi: u64) -> Patience {
        let mut past = Intervals::default();
        intervals.iter().for_each(|ms| past.add(Duration::from_millis(*ms)));
        past.patience(phi)
    }

    /// Quantiles of the normal distribution, from a table.
    #[test]
    fn phi_is_the_probability_of_a_later_beat() {
        for (phi, expected) in [(1.0, 1.2816), (2.0, 2.3263), (3.0, 3.0902), (4.0, 3.7190)] {
            assert!((deviations(phi) - expected).abs() < 0.1, "phi {phi}: {}", deviations(phi));
        }
        assert!(deviations(0.0).abs() < 1e-9);
        assert!((deviations(15.0) - deviations(15.001)).abs() < 0.01);
    }

    #[test]
    fn calm_beats_are_missed_soon_and_restless_ones_late() {
        assert_eq!(after(&[1000; 100], 0), Patience::FIXED);
        assert_eq!(after(&[1000; 9], 8000), Patience::FIXED, "too few to say");
        let calm = after(&[1000; 100], 8000);
        assert!(calm.suspect > Duration::from_millis(1400) && calm.suspect < Duration::from_millis(1700), "{calm:?}");
        assert_eq!(calm.dead, DEAD_AFTER);
        let restless = after(&[500, 2500].repeat(50), 8000);
        assert!(restless.suspect > Duration::from_secs(5) && restless.dead > restless.suspect, "{restless:?}");
    }

    proptest! {
        #[test]
        fn no_past_makes_a_server_dead_early_or_immortal(
            intervals in proptest::collection::vec(0u64..100_000, 0..200),
            phi in 0u64..=20_000,
        ) {
            let patience = after(&intervals, phi);
            prop_assert!(patience.suspect >= BEAT_INTERVAL + DEVIATION_MIN && patience.suspect <= SUSPECT_AFTER * LONGEST);
            prop_assert!(patience.dead >= DEAD_AFTER && patience.dead <= DEAD_AFTER * LONGEST);
            prop_assert!(patience.suspect <= patience.dead);
        }

        #[test]
        fn more_patience_is_never_less(
            intervals in proptest::collection::vec(500u64..5000, 10..100),
            phi in 1u64..20_000,
        ) {
            let (one, more) = (after(&intervals, phi), after(&intervals, phi + 1));
            prop_assert!(one.suspect <= more.suspect && one.dead <= more.dead);
        }
    }
}
