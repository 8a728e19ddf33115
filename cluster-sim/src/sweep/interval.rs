//! The confidence interval of a probability that was seen in so many of so many runs, after Clopper and Pearson (1934): all
//! probabilities under which what was seen, or more, and what was seen, or less, are not too unlikely. It covers at least its
//! level, also where nothing was seen.

use serde::Serialize;

/// From where to where a probability is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
}

/// Halvings: more than a double has bits.
const HALVINGS: usize = 60;

/// The probability of at most `hits` of `runs`.
fn at_most(hits: u64, runs: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return if hits >= runs { 1.0 } else { 0.0 };
    }
    // Term by term in logarithms, which neither overflow nor vanish.
    let (log_odds, n) = (p.ln() - (-p).ln_1p(), runs as f64);
    let mut term = n * (-p).ln_1p();
    let mut sum = term.exp();
    for k in 1..=hits.min(runs) {
        let k = k as f64;
        term += ((n - k + 1.0) / k).ln() + log_odds;
        sum += term.exp();
    }
    sum.min(1.0)
}

/// The `p` at which a falling function is `level`.
fn falling_to(level: f64, of: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if of(middle) > level { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The interval of this level (0.95, say) for `hits` of `runs`.
#[must_use]
pub fn clopper_pearson(hits: u64, runs: u64, level: f64) -> Interval {
    let tail = (1.0 - level) / 2.0;
    let low = if hits == 0 { 0.0 } else { falling_to(1.0 - tail, |p| at_most(hits - 1, runs, p)) };
    let high = if hits >= runs { 1.0 } else { falling_to(tail, |p| at_most(hits, runs, p)) };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a table of the exact interval.
    #[test]
    fn intervals_are_those_of_the_tables() {
        for (hits, runs, low, high) in [
            (0, 10, 0.0, 0.3085),
            (1, 10, 0.0025, 0.4450),
            (5, 10, 0.1871, 0.8129),
            (10, 10, 0.6915, 1.0),
            (0, 200, 0.0, 0.0183),
        ] {
            let found = clopper_pearson(hits, runs, 0.95);
            assert!((found.low - low).abs() < 1e-4 && (found.high - high).abs() < 1e-4, "{hits} of {runs}: {found:?}");
        }
        let many = clopper_pearson(500, 100_000, 0.95);
        assert!(many.low > 0.0045 && many.high < 0.0055, "{many:?}");
    }
}
