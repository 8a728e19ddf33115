use std::{collections::VecDeque, time::Duration};

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(30);
/// Bytes of this time are one sample.
const SAMPLE: Duration = Duration::from_secs(1);

/// Measures bytes per second over the last half minute.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<(Duration, u64)>,
    began: Option<Duration>,
}

impl Meter {
    pub fn add(&mut self, bytes: u64, now: Duration) {
        while self.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.samples.pop_front();
        }
        if self.samples.is_empty() {
            // After a pause the measuring begins anew: the time without work says nothing about its speed.
            self.began = Some(now);
        }
        match self.samples.back_mut() {
            Some((at, sum)) if now.saturating_sub(*at) < SAMPLE => *sum = sum.saturating_add(bytes),
            _ => self.samples.push_back((now, bytes)),
        }
    }

    pub fn rate(&self, now: Duration) -> Option<u64> {
        let fresh = || self.samples.iter().filter(|(at, _)| now.saturating_sub(*at) <= WINDOW);
        let sum = fresh().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let took = now.saturating_sub(self.began?).min(WINDOW).max(SAMPLE);
        (sum > 0).then(|| u64::try_from(u128::from(sum) * 1000 / took.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let (mut meter, at) = (Meter::default(), Duration::from_secs);
        assert_eq!(meter.rate(at(0)), None);
        for second in 0..100 {
            meter.add(1000, at(second));
        }
        let rate = meter.rate(at(99)).unwrap();
        assert!((950..=1050).contains(&rate), "{rate}");
        assert_eq!(meter.rate(at(200)), None, "nothing is known any more");
        meter.add(5000, at(300));
        assert_eq!(meter.rate(at(301)), Some(5000));
        assert!(meter.samples.len() <= 32);
    }
}
