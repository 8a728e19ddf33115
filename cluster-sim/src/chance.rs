//! Chance, from one seed. Each use has a stream of its own, so that a change of one (another repair bandwidth, say) leaves the
//! draws of the others alone: two runs of a sweep meet the same faults.

use rand::{Rng, RngCore};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use crate::units::Micros;

/// What draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Where the first chunks are.
    Layout,
    /// What goes wrong and when; one stream for each kind follows.
    Faults = 16,
    /// What the master draws.
    Decisions = 1,
    /// What clients do.
    Clients = 2,
    /// Everything else in the world: phases of beats and the like.
    World = 3,
}

/// The draws of one stream.
#[must_use]
pub fn stream(seed: u64, of: Stream, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(of as u64 + number);
    rng
}

/// An exponentially distributed time with this mean, at least 1 µs.
pub fn exponential(rng: &mut dyn RngCore, mean: Micros) -> Micros {
    // Never 0, whose logarithm is infinite.
    let uniform: f64 = 1.0 - rng.random::<f64>();
    ((-uniform.ln() * mean as f64) as Micros).max(1)
}

/// A number below `limit` that depends on nothing but two others: a phase.
#[must_use]
pub fn mixed(a: u64, b: u64, limit: u64) -> u64 {
    let n = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (n ^ (n >> 31)) % limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_times_have_their_mean() {
        let mut rng = stream(1, Stream::World, 0);
        let sum: u64 = (0..20_000).map(|_| exponential(&mut rng, 1_000_000)).sum();
        let mean = sum / 20_000;
        assert!((970_000..1_030_000).contains(&mean), "{mean}");
    }

    #[test]
    fn streams_differ_and_repeat() {
        let draw = |seed, of, number| stream(seed, of, number).next_u64();
        assert_eq!(draw(1, Stream::Faults, 2), draw(1, Stream::Faults, 2));
        assert_ne!(draw(1, Stream::Faults, 2), draw(1, Stream::Faults, 3));
        assert_ne!(draw(1, Stream::World, 0), draw(2, Stream::World, 0));
    }
}
