//! How many chunks have too few replicas that can be read now: as it is, not as the master believes.

use super::{histogram::Histogram, series::Series};
use crate::units::Micros;

/// A stretch of time in which some chunk was in a state.
#[derive(Clone, Debug)]
pub struct State {
    /// How many chunks are in it.
    pub chunks: Series,
    count: u64,
    began: Option<Micros>,
    /// How long it took from the first chunk until none was left.
    pub episodes: Histogram,
    /// When the last such time began and ended.
    pub last: Option<(Micros, Micros)>,
    /// The most chunks at once in the present or last such time.
    pub peak: u64,
}

impl State {
    fn new(lasts: Micros) -> Self {
        let chunks = Series::new(lasts);
        State { chunks, count: 0, began: None, episodes: Histogram::default(), last: None, peak: 0 }
    }

    fn change(&mut self, before: bool, after: bool) {
        self.count = self.count + u64::from(after) - u64::from(before);
    }

    fn settle(&mut self, now: Micros) {
        self.chunks.set(self.count as f64, now);
        match self.began {
            None if self.count > 0 => (self.began, self.peak) = (Some(now), self.count),
            Some(began) if self.count == 0 => {
                self.began = None;
                self.episodes.add(now - began);
                self.last = Some((began, now));
            }
            _ => self.peak = self.peak.max(self.count),
        }
    }

    /// How many chunks are in it now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Chunk-hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.chunks.integral_seconds() / 3600.0
    }
}

/// How many chunks have too few replicas.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Fewer can be read than are wanted.
    pub endangered: State,
    /// One can be read, of more that are wanted.
    pub single: State,
    /// None can be read now.
    pub unavailable: State,
    /// Chunks of which no whole replica is left anywhere.
    pub lost: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// When the first was lost.
    pub first_lost: Option<Micros>,
}

impl Truth {
    /// Of a run of this length.
    #[must_use]
    pub fn new(lasts: Micros) -> Self {
        let state = || State::new(lasts);
        let (endangered, single, unavailable) = (state(), state(), state());
        Truth { endangered, single, unavailable, lost: 0, lost_bytes: 0, first_lost: None }
    }

    /// A chunk that wants so many replicas can be read from `after` servers instead of `before`. [`Truth::settle`] follows.
    pub fn change(&mut self, wanted: u32, before: u32, after: u32) {
        self.endangered.change(before < wanted, after < wanted);
        self.single.change(before == 1 && wanted > 1, after == 1 && wanted > 1);
        self.unavailable.change(before == 0, after == 0);
    }

    /// All changes of this moment were told.
    pub fn settle(&mut self, now: Micros) {
        self.endangered.settle(now);
        self.single.settle(now);
        self.unavailable.settle(now);
    }

    /// A chunk is lost.
    pub fn lose(&mut self, bytes: u64, now: Micros) {
        self.lost += 1;
        self.lost_bytes += bytes;
        self.first_lost.get_or_insert(now);
    }

    pub(super) fn finish(&mut self, now: Micros) {
        for state in [&mut self.endangered, &mut self.single, &mut self.unavailable] {
            state.chunks.hold(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_hours_and_episodes_add_up() {
        let (hour, mut truth) = (3_600_000_000, Truth::new(36_000_000_000));
        truth.change(3, 3, 2);
        truth.change(3, 3, 1);
        truth.settle(hour);
        truth.change(3, 1, 3);
        truth.settle(2 * hour);
        truth.change(3, 2, 3);
        truth.settle(4 * hour);
        truth.finish(10 * hour);
        assert!((truth.endangered.hours() - 4.0).abs() < 1e-6 && (truth.single.hours() - 1.0).abs() < 1e-6);
        assert_eq!((truth.endangered.last, truth.endangered.peak), (Some((hour, 4 * hour)), 2));
        assert_eq!((truth.single.episodes.max(), truth.unavailable.count()), (hour, 0));
    }
}
