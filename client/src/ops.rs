//! The numbers that make retries safe. Pure.

use std::collections::BTreeSet;

/// Operations of one session that may be spread over unfinished numbers: the master keeps results of no more.
const SPREAD_MAX: u64 = quarry_types::limits::SESSION_RESULTS_MAX as u64 / 2;

/// Hands out the sequence numbers of a session and knows which are still under way.
#[derive(Debug, Default)]
pub(crate) struct OpBook {
    begun: u64,
    unfinished: BTreeSet<u64>,
}

impl OpBook {
    /// The next sequence number, from 1; `None` while an old operation is still under way and too many came after it.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let next = self.begun + 1;
        if next - self.acknowledged_below() >= SPREAD_MAX {
            return None;
        }
        self.begun = next;
        self.unfinished.insert(next);
        Some(next)
    }

    /// The operation will not be sent again.
    pub(crate) fn finish(&mut self, sequence: u64) {
        self.unfinished.remove(&sequence);
    }

    /// No sequence number below this will ever be sent again.
    pub(crate) fn acknowledged_below(&self) -> u64 {
        self.unfinished.first().copied().unwrap_or(self.begun + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s4_acknowledged_below_is_the_smallest_unfinished() {
        let mut book = OpBook::default();
        assert_eq!(book.acknowledged_below(), 1);
        assert_eq!((book.begin(), book.begin(), book.begin()), (Some(1), Some(2), Some(3)));
        assert_eq!(book.acknowledged_below(), 1);
        book.finish(2);
        assert_eq!(book.acknowledged_below(), 1);
        book.finish(1);
        assert_eq!(book.acknowledged_below(), 3);
        book.finish(3);
        assert_eq!(book.acknowledged_below(), 4);
    }

    #[test]
    fn s9_a_stuck_operation_holds_the_others_back() {
        let mut book = OpBook::default();
        let stuck = book.begin().unwrap();
        let mut last = stuck;
        while let Some(next) = book.begin() {
            last = next;
            book.finish(next);
        }
        assert_eq!(last - stuck, SPREAD_MAX - 1);
        book.finish(stuck);
        assert!(book.begin().is_some());
    }

    proptest! {
        #[test]
        fn s4_nothing_unfinished_is_ever_acknowledged(finishes in proptest::collection::vec(any::<bool>(), 1..300)) {
            let mut book = OpBook::default();
            let mut running = BTreeSet::new();
            for finish in finishes {
                if finish && let Some(one) = running.pop_last() {
                    book.finish(one);
                } else if let Some(one) = book.begin() {
                    prop_assert!(running.insert(one));
                }
                let below = book.acknowledged_below();
                prop_assert!(running.iter().all(|one| *one >= below));
            }
        }
    }
}
