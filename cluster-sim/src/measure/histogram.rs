//! A distribution of times, in classes that grow by a third of an octave: exact to about a tenth, in a few hundred numbers.

use crate::units::Micros;

/// Classes in each doubling.
const PER_OCTAVE: f64 = 8.0;
/// Classes: the last one is beyond a thousand years.
const CLASSES: usize = 56 * PER_OCTAVE as usize;

/// A distribution.
#[derive(Clone, Debug)]
pub struct Histogram {
    classes: Vec<u64>,
    count: u64,
    sum: u128,
    min: Micros,
    max: Micros,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { classes: vec![0; CLASSES], count: 0, sum: 0, min: Micros::MAX, max: 0 }
    }
}

fn class_of(value: Micros) -> usize {
    ((value.max(1) as f64).log2() * PER_OCTAVE) as usize
}

/// The middle of a class.
fn middle(class: usize) -> Micros {
    ((class as f64 + 0.5) / PER_OCTAVE).exp2() as Micros
}

impl Histogram {
    /// Adds a time.
    pub fn add(&mut self, value: Micros) {
        if let Some(class) = self.classes.get_mut(class_of(value).min(CLASSES - 1)) {
            *class += 1;
        }
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; 0 without any.
    #[must_use]
    pub fn mean(&self) -> Micros {
        u64::try_from(self.sum / u128::from(self.count.max(1))).unwrap_or(u64::MAX)
    }

    /// The least; 0 without any.
    #[must_use]
    pub fn min(&self) -> Micros {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest; 0 without any.
    #[must_use]
    pub fn max(&self) -> Micros {
        self.max
    }

    /// The time that this share of all are not above, 0 to 1, to about a tenth; 0 without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Micros {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (class, count) in self.classes.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(class).clamp(self.min(), self.max);
            }
        }
        0
    }

    /// Classes that are not empty, from the first to the last: the middle, and how many.
    #[must_use]
    pub fn bars(&self) -> Vec<(Micros, u64)> {
        let first = self.classes.iter().position(|count| *count > 0).unwrap_or(0);
        let last = self.classes.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let bars = self.classes.iter().enumerate().take(last).skip(first);
        bars.map(|(class, count)| (middle(class), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_tenth() {
        let mut times = Histogram::default();
        assert_eq!((times.quantile(0.5), times.min(), times.mean()), (0, 0, 0));
        (1..=1000u64).for_each(|n| times.add(n * 1000));
        for (share, expected) in [(0.5, 500_000.0), (0.9, 900_000.0), (0.99, 990_000.0)] {
            let found = times.quantile(share) as f64;
            assert!((found / expected - 1.0).abs() < 0.1, "{share}: {found}");
        }
        assert_eq!((times.min(), times.max(), times.mean(), times.count()), (1000, 1_000_000, 500_500, 1000));
        times.add(u64::MAX);
        assert_eq!(times.quantile(1.0).max(times.max()), u64::MAX);
        assert_eq!(times.bars().iter().map(|bar| bar.1).sum::<u64>(), 1001);
    }
}
