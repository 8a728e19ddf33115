//! Which chunk comes first.

use std::{cmp::Reverse, time::Duration};

use quarry_types::ChunkId;

use super::Need;

/// Which chunk comes first: more missing replicas (see [`Need::danger`]), then lost rack diversity, then what is to move, then the oldest; the
/// chunk id makes it total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    danger: Reverse<u32>,
    rack_short: Reverse<bool>,
    moving: Reverse<bool>,
    since: Duration,
    /// The chunk.
    pub chunk: ChunkId,
}

impl Rank {
    /// Of a chunk that is not as it should be since `since`.
    #[must_use]
    pub fn new(need: &Need, since: Duration, chunk: ChunkId) -> Self {
        Rank {
            danger: Reverse(need.danger()),
            rack_short: Reverse(need.rack_short),
            moving: Reverse(need.moving > 0),
            since,
            chunk,
        }
    }

    /// See [`Need::danger`].
    #[must_use]
    pub fn danger(&self) -> u32 {
        self.danger.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(missing: u32, rack_short: bool, moving: u32) -> Need {
        Need { missing, rack_short, moving, ..Need::default() }
    }

    #[test]
    fn more_missing_comes_first_then_racks_then_age() {
        let at = Duration::from_secs;
        let mut ranks = [
            Rank::new(&need(0, false, 1), at(1), ChunkId(1)),
            Rank::new(&need(1, false, 0), at(9), ChunkId(2)),
            Rank::new(&need(2, false, 0), at(9), ChunkId(3)),
            Rank::new(&need(1, false, 0), at(8), ChunkId(4)),
            Rank::new(&need(1, true, 0), at(9), ChunkId(5)),
            Rank::new(&need(0, false, 0), at(0), ChunkId(6)),
        ];
        ranks.sort();
        assert_eq!(ranks.map(|rank| rank.chunk.0), [3, 5, 4, 2, 1, 6]);
    }

    #[test]
    fn a_last_replica_comes_before_what_misses_as_many_and_has_more_left() {
        let rank = |missing, good, chunk| {
            Rank::new(&Need { missing, good, ..Need::default() }, Duration::ZERO, ChunkId(chunk))
        };
        let mut ranks = [rank(1, 2, 1), rank(1, 1, 2), rank(1, 0, 3), rank(2, 1, 4), rank(3, 1, 5), rank(0, 1, 6)];
        ranks.sort();
        assert_eq!(ranks.map(|rank| rank.chunk.0), [5, 2, 4, 1, 3, 6], "what is lost cannot get worse");
    }

    prop_compose! {
        fn any_rank()(
            missing in 0u32..3,
            good in 0u32..3,
            short: bool,
            moving in 0u32..2,
            since in 0u64..3,
            chunk in 0u64..4,
        ) -> Rank {
            Rank::new(&Need { good, ..need(missing, short, moving) }, Duration::from_secs(since), ChunkId(chunk))
        }
    }

    proptest! {
        #[test]
        fn ranking_is_a_total_order(a in any_rank(), b in any_rank(), c in any_rank()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            prop_assert!(!(a <= b && b <= c) || a <= c);
            prop_assert!(a.danger() <= b.danger() || a < b);
        }
    }
}
