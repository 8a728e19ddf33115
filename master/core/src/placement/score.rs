//! The terms of a score and their weights.

use serde::{Deserialize, Serialize};

use crate::{
    command::Settings,
    settings::{WEIGHT_AFFINITY, WEIGHT_CAPACITY, WEIGHT_LATENCY, WEIGHT_LOAD},
};

use super::Candidate;

/// The load at which half of its term is gone, in writes, reads and copies under way.
const LOAD_HALF: f64 = 8.0;
/// The latency at which half of its term is gone, in microseconds.
const LATENCY_HALF_US: f64 = 5000.0;

/// The weights of the terms, in thousandths. Source: the project's design, section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Of free room.
    pub capacity: u64,
    /// Of an idle server.
    pub load: u64,
    /// Of a quick one.
    pub latency: u64,
    /// Of nearness.
    pub affinity: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Weights::of(&Settings::default())
    }
}

impl Weights {
    /// As an operator set them.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Weights {
            capacity: settings.get(&WEIGHT_CAPACITY),
            load: settings.get(&WEIGHT_LOAD),
            latency: settings.get(&WEIGHT_LATENCY),
            affinity: settings.get(&WEIGHT_AFFINITY),
        }
    }
}

/// The terms of a score, each between 0 and 1 before its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Free share of the capacity.
    pub capacity: f64,
    /// How idle: 1 without load, and the less of it the busier the processors are.
    pub load: f64,
    /// How quick.
    pub latency: f64,
    /// 1: near.
    pub affinity: f64,
    /// The weighted sum, at most the sum of the weights / 1000.
    pub total: f64,
}

/// Scores a candidate. Monotone in each term: more room, less load, less latency never score less.
#[must_use]
pub fn score(candidate: &Candidate, weights: &Weights) -> Score {
    let all = candidate.capacity_bytes.max(1) as f64;
    let capacity = (candidate.free_bytes as f64 / all).clamp(0.0, 1.0);
    let under_way = f64::from(candidate.active_writes)
        + f64::from(candidate.active_reads)
        + f64::from(candidate.copies_in)
        + f64::from(candidate.copies_out);
    let idle_processors = 1.0 - f64::from(candidate.cpu_percent.min(100)) / 100.0;
    // Even a machine that computes all the time can write: half of the term is for what is under way.
    let load = LOAD_HALF / (LOAD_HALF + under_way) * f64::midpoint(1.0, idle_processors);
    let latency = LATENCY_HALF_US / (LATENCY_HALF_US + candidate.latency_us as f64);
    let affinity = if candidate.near { 1.0 } else { 0.0 };
    let weighted = |weight: u64, term: f64| weight as f64 / 1000.0 * term;
    let total = weighted(weights.capacity, capacity)
        + weighted(weights.load, load)
        + weighted(weights.latency, latency)
        + weighted(weights.affinity, affinity);
    Score { capacity, load, latency, affinity, total }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quarry_types::ServerId;

    use super::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        (0u64..1000, 0u32..100, 0u32..100, 0u32..=100, 0u64..1_000_000, any::<bool>()).prop_map(
            |(free, writes, reads, cpu, latency, near)| Candidate {
                active_writes: writes,
                active_reads: reads,
                cpu_percent: cpu,
                latency_us: latency,
                near,
                ..Candidate::idle(ServerId::default(), "r", 1000, free)
            },
        )
    }

    fn with(candidate: &Candidate, change: impl FnOnce(&mut Candidate)) -> Candidate {
        let mut changed = candidate.clone();
        change(&mut changed);
        changed
    }

    proptest! {
        #[test]
        fn the_score_is_monotone_in_each_term(c in candidate(), more in 1u32..1000) {
            let weights = Weights::default();
            let plain = score(&c, &weights).total;
            let of = |changed: Candidate| score(&changed, &weights).total;
            let roomier = Candidate { free_bytes: c.free_bytes + u64::from(more), ..c.clone() };
            prop_assert!(of(roomier) >= plain);
            prop_assert!(of(with(&c, |c| c.near = true)) >= plain);
            let worse: [fn(&mut Candidate, u32); 6] = [
                |c, more| c.active_writes += more,
                |c, more| c.active_reads += more,
                |c, more| c.copies_in += more,
                |c, more| c.copies_out += more,
                |c, more| c.cpu_percent += more,
                |c, more| c.latency_us += u64::from(more),
            ];
            for change in worse {
                prop_assert!(of(with(&c, |c| change(c, more))) <= plain);
            }
            prop_assert!((0.0..=1.0).contains(&plain));
        }
    }

    #[test]
    fn each_term_counts_by_its_weight() {
        let best = Candidate { near: true, ..Candidate::idle(ServerId::default(), "r", 1000, 1000) };
        let only = |pick: fn(&mut Weights)| {
            let mut weights = Weights { capacity: 0, load: 0, latency: 0, affinity: 0 };
            pick(&mut weights);
            score(&best, &weights).total
        };
        assert!((only(|w| w.capacity = 400) - 0.4).abs() < 1e-9);
        assert!((only(|w| w.load = 300) - 0.3).abs() < 1e-9);
        assert!((only(|w| w.latency = 200) - 0.2).abs() < 1e-9);
        assert!((only(|w| w.affinity = 100) - 0.1).abs() < 1e-9);
        let nothing = Candidate::idle(ServerId::default(), "r", 0, 0);
        assert!(score(&nothing, &Weights::default()).total.is_finite());
    }
}
