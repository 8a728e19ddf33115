//! Randomness from a seed.

use std::sync::{Mutex, PoisonError};

use quarry_env::Random;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// ChaCha8 from a seed: the same calls give the same numbers.
#[derive(Debug)]
pub struct SimRandom(Mutex<ChaCha8Rng>);

impl SimRandom {
    /// A source that depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SimRandom(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    /// A source of its own for `who` in its `boot`th life, so that one machine's draws do not shift another's.
    #[must_use]
    pub fn of(seed: u64, who: &str, boot: u64) -> Self {
        SimRandom(Mutex::new(derived(seed, who, boot)))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

/// A generator that depends on all three, and on nothing else.
pub(crate) fn derived(seed: u64, who: &str, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    let parts = [seed, number, u64::from(crc32fast::hash(who.as_bytes())), who.len() as u64];
    for (to, from) in key.iter_mut().zip(parts.iter().flat_map(|part| part.to_le_bytes())) {
        *to = from;
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(source: &SimRandom) -> Vec<u64> {
        (0..8).map(|_| source.next_u64()).collect()
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(draws(&SimRandom::new(1)), draws(&SimRandom::new(1)));
        assert_ne!(draws(&SimRandom::new(1)), draws(&SimRandom::new(2)));
        assert_eq!(draws(&SimRandom::of(1, "a", 0)), draws(&SimRandom::of(1, "a", 0)));
        assert_ne!(draws(&SimRandom::of(1, "a", 0)), draws(&SimRandom::of(1, "b", 0)));
        assert_ne!(draws(&SimRandom::of(1, "a", 0)), draws(&SimRandom::of(1, "a", 1)));
    }
}
