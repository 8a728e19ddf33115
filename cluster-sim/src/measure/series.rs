//! A figure over time, in as many equal parts of the run as a plot has points: of each part its largest value and its mean.

use crate::{limits::POINTS, units::Micros};

/// A figure over time.
#[derive(Clone, Debug)]
pub struct Series {
    part: Micros,
    most: Vec<f64>,
    sums: Vec<f64>,
    value: f64,
    at: Micros,
    max: f64,
    total: f64,
}

impl Series {
    /// Of a run of this length. It begins at zero.
    #[must_use]
    pub fn new(lasts: Micros) -> Self {
        let part = (lasts / POINTS as u64).max(1) + 1;
        Series { part, most: vec![0.0; POINTS], sums: vec![0.0; POINTS], value: 0.0, at: 0, max: 0.0, total: 0.0 }
    }

    /// The figure is still what it was.
    pub fn hold(&mut self, now: Micros) {
        while self.at < now {
            let index = (self.at / self.part) as usize;
            let end = ((index as u64 + 1) * self.part).min(now);
            let area = self.value * (end - self.at) as f64;
            if let (Some(most), Some(sum)) = (self.most.get_mut(index), self.sums.get_mut(index)) {
                *most = most.max(self.value);
                *sum += area;
            }
            self.total += area;
            self.at = end;
        }
    }

    /// The figure is this from now on.
    pub fn set(&mut self, value: f64, now: Micros) {
        self.hold(now);
        self.value = value;
        self.max = self.max.max(value);
        // Also what lasts no time shows.
        if let Some(most) = self.most.get_mut((now / self.part) as usize) {
            *most = most.max(value);
        }
    }

    /// What it is now.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.value
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The value times the time, in units of the value and seconds.
    #[must_use]
    pub fn integral_seconds(&self) -> f64 {
        self.total / 1e6
    }

    /// The mean so far.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.at == 0 { 0.0 } else { self.total / self.at as f64 }
    }

    /// The beginning of each part in seconds, and the largest value in it.
    #[must_use]
    pub fn points(&self) -> Vec<(f64, f64)> {
        let seconds = |index: usize| index as f64 * self.part as f64 / 1e6;
        let used = (self.at / self.part) as usize + 1;
        self.most.iter().take(used).enumerate().map(|(index, most)| (seconds(index), *most)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_and_peaks_are_kept() {
        let mut series = Series::new(4_000_000_000);
        series.set(2.0, 1_000_000_000);
        series.set(7.0, 2_000_000_000);
        series.set(0.0, 2_000_000_000);
        series.hold(4_000_000_000);
        assert!((series.integral_seconds() - 2000.0).abs() < 1e-6);
        assert!((series.mean() - 0.5).abs() < 1e-9 && (series.max() - 7.0).abs() < 1e-9);
        let points = series.points();
        assert_eq!(points.len(), POINTS);
        assert!(points.iter().any(|point| (point.1 - 7.0).abs() < 1e-9), "a peak of no length shows");
    }
}
