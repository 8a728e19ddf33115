//! Where a store has no keys although it had many.
//!
//! A removed key stays behind as a tombstone until a compaction comes by. Whoever scans a space that is used as a queue
//! walks over the tombstones of all that went through it, each time: the work of n removals grows with n². So the places
//! where a scan had to walk far are remembered, and later scans begin behind them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use quarry_env::{Space, kv::Change};

/// A scan that walked over fewer tombstones is not worth remembering.
const WORTHWHILE: u64 = 100;
/// Gaps that are remembered of one space; the one that was used least recently gives way.
const GAPS_MAX: usize = 16;

/// No key is at or behind `from` and before `to`; without `to`, none is behind `from` at all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gap {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Gap {
    fn has(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && self.to.as_deref().is_none_or(|to| key < to)
    }
}

#[derive(Default)]
struct Known {
    /// Most recently used last.
    gaps: BTreeMap<Space, Vec<Gap>>,
    /// Batches that are being written.
    writing: u32,
    /// Batches that have been written.
    written: u64,
}

/// The gaps of a store that are known. A batch cuts them before it is written, so that none ever hides a key.
#[derive(Default)]
pub(crate) struct Gaps {
    known: Mutex<Known>,
}

/// Where a scan begins, and whether anything was written since.
pub(crate) struct Begin {
    /// Behind a gap that is known; `None`: nothing is there.
    pub(crate) key: Option<Vec<u8>>,
    /// That key is not the one that was asked for.
    jumped: bool,
    /// `None` while a batch is written: what the scan finds may be older.
    written: Option<u64>,
}

impl Gaps {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a scan from `from` may begin.
    pub(crate) fn begin(&self, space: Space, from: &[u8]) -> Begin {
        let mut known = self.known();
        let written = (known.writing == 0).then_some(known.written);
        let gaps = known.gaps.get_mut(&space);
        let found = gaps.and_then(|gaps| {
            let at = gaps.iter().position(|gap| gap.has(from))?;
            let gap = gaps.remove(at);
            gaps.push(gap.clone());
            Some(gap.to)
        });
        match found {
            Some(to) => Begin { key: to, jumped: true, written },
            None => Begin { key: Some(from.to_vec()), jumped: false, written },
        }
    }

    /// A scan from `from`, which began at `begin`, walked over so many tombstones to the first key, or found none before
    /// `first`, its end.
    pub(crate) fn walked(&self, space: Space, from: &[u8], begin: &Begin, tombstones: u64, first: Option<&[u8]>) {
        if (tombstones < WORTHWHILE && !begin.jumped) || first.is_some_and(|first| first <= from) {
            return;
        }
        let mut known = self.known();
        // Nothing was written while it looked: what it saw is what is there now.
        if known.writing > 0 || begin.written != Some(known.written) {
            return;
        }
        let gaps = known.gaps.entry(space).or_default();
        let at = gaps.iter().position(|gap| gap.has(from));
        // It begins where the known one does, which may be before `from`.
        let begin = at.map_or_else(|| from.to_vec(), |at| gaps.remove(at).from);
        if gaps.len() == GAPS_MAX {
            gaps.remove(0);
        }
        gaps.push(Gap { from: begin, to: first.map(<[u8]>::to_vec) });
    }

    /// Carries out `write`, which makes these changes, or some of them, or none.
    pub(crate) fn writing<T>(&self, changes: &[Change], write: impl FnOnce() -> T) -> T {
        {
            let mut known = self.known();
            known.writing += 1;
            for change in changes {
                if let Change::Put(space, key, _) = change
                    && let Some(gaps) = known.gaps.get_mut(space)
                {
                    for gap in gaps.iter_mut().filter(|gap| gap.has(key)) {
                        gap.to = Some(key.clone());
                    }
                    gaps.retain(|gap| gap.to.as_ref() != Some(&gap.from));
                }
            }
        }
        let done = write();
        let mut known = self.known();
        known.writing -= 1;
        known.written += 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const QUEUE: Space = Space("queue");

    fn key(n: u8) -> Vec<u8> {
        vec![n]
    }

    fn put(n: u8) -> Change {
        Change::Put(QUEUE, key(n), Vec::new())
    }

    /// What a scan of a store with `keys` would find, begun where the gaps say, and how far it walked.
    fn scan(gaps: &Gaps, keys: &BTreeSet<u8>, from: u8, to: Option<u8>) -> Option<u8> {
        let begin = gaps.begin(QUEUE, &key(from));
        let found = begin.key.as_ref().and_then(|begin| {
            let start = begin[0];
            keys.range(start..).next().copied().filter(|found| to.is_none_or(|to| *found < to))
        });
        let first = found.or(to).map(key);
        gaps.walked(QUEUE, &key(from), &begin, WORTHWHILE, first.as_deref());
        found
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8),
        Delete(u8),
        Scan(u8, Option<u8>),
        /// A batch that is written while somebody scans.
        PutDuringScan(u8, u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let n = 0u8..40;
        prop_oneof![
            n.clone().prop_map(Op::Put),
            n.clone().prop_map(Op::Delete),
            (n.clone(), proptest::option::of(n.clone())).prop_map(|(from, to)| Op::Scan(from, to)),
            (n.clone(), n).prop_map(|(put, from)| Op::PutDuringScan(put, from)),
        ]
    }

    proptest! {
        #[test]
        fn a_gap_never_hides_a_key(ops in proptest::collection::vec(op(), 1..200)) {
            let (gaps, mut keys) = (Gaps::default(), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Put(n) => {
                        let _new = gaps.writing(&[put(n)], || keys.insert(n));
                    }
                    Op::Delete(n) => {
                        let _there = gaps.writing(&[Change::Delete(QUEUE, key(n))], || keys.remove(&n));
                    }
                    Op::Scan(from, to) if to.is_none_or(|to| from < to) => {
                        let wanted = keys.range(from..).next().copied().filter(|n| to.is_none_or(|to| *n < to));
                        prop_assert_eq!(scan(&gaps, &keys, from, to), wanted);
                    }
                    Op::Scan(..) => {}
                    Op::PutDuringScan(n, from) => {
                        let before = keys.clone();
                        // It began before the batch, or amid it, and sees none of it.
                        let early = gaps.begin(QUEUE, &key(from));
                        let seen = |begin: &Begin| begin.key.as_ref().and_then(|b| before.range(b[0]..).next().copied());
                        gaps.writing(&[put(n)], || {
                            let amid = gaps.begin(QUEUE, &key(from));
                            gaps.walked(QUEUE, &key(from), &amid, WORTHWHILE, seen(&amid).map(key).as_deref());
                            keys.insert(n);
                        });
                        gaps.walked(QUEUE, &key(from), &early, WORTHWHILE, seen(&early).map(key).as_deref());
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_walked_over_once_is_not_again() {
        let (gaps, keys) = (Gaps::default(), BTreeSet::from([30]));
        assert_eq!(scan(&gaps, &keys, 0, None), Some(30));
        assert_eq!(gaps.begin(QUEUE, &key(0)).key, Some(key(30)));
        assert_eq!(gaps.begin(QUEUE, &key(7)).key, Some(key(30)));
        assert_eq!(gaps.begin(QUEUE, &key(31)).key, Some(key(31)), "nobody looked there");
        gaps.writing(&[put(20)], || ());
        assert_eq!(gaps.begin(QUEUE, &key(0)).key, Some(key(20)), "a new key cuts it");
        assert_eq!(gaps.begin(QUEUE, &key(20)).key, Some(key(20)));
    }

    #[test]
    fn so_many_gaps_are_known_and_no_more() {
        let gaps = Gaps::default();
        for n in 0..100 {
            let begin = gaps.begin(QUEUE, &key(2 * n));
            gaps.walked(QUEUE, &key(2 * n), &begin, WORTHWHILE, Some(&key(2 * n + 1)));
        }
        assert_eq!(gaps.known().gaps[&QUEUE].len(), GAPS_MAX);
        let begin = gaps.begin(QUEUE, &key(250));
        gaps.walked(QUEUE, &key(250), &begin, WORTHWHILE - 1, Some(&key(251)));
        assert_eq!(gaps.begin(QUEUE, &key(250)).key, Some(key(250)), "a short walk is not remembered");
    }
}
