//! The newest entries of the log, in memory: what was appended a moment ago is applied and sent to the others next, and need not be
//! read back from the store for that. It holds nothing that the store has not.

use std::collections::VecDeque;

use super::types::Entry;

/// Entries kept, and what they may take as they are stored, in bytes: at least one command, however long.
const ENTRIES_MAX: usize = 4096;
const BYTES_MAX: usize = 4 << 20;

/// Entries without a gap, up to the end of the log.
#[derive(Default)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Recent {
    /// An entry was stored at the end of the log, in so many bytes.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        if self.end().is_some_and(|end| end != entry.log_id.index) {
            self.clear();
        }
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        while self.entries.len() > ENTRIES_MAX || (self.bytes > BYTES_MAX && self.entries.len() > 1) {
            self.pop_front();
        }
    }

    /// The log ends before `index` now.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= index) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// The log begins at `index` now.
    pub(super) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|(entry, _)| entry.log_id.index < index) {
            self.pop_front();
        }
    }

    /// Nothing is known of the end of the log.
    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }

    /// Entries of `from..to`, fewer once they have taken more than `bytes_max`; `None` when not all of them are here.
    pub(super) fn get(&self, from: u64, to: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let start = self.entries.front()?.0.log_id.index;
        if from < start || from >= to || self.end()? < to {
            return None;
        }
        let (mut found, mut bytes) = (Vec::new(), 0usize);
        // Both lie within what is in memory.
        for (entry, size) in self.entries.range((from - start) as usize..(to - start) as usize) {
            found.push(entry.clone());
            bytes += size;
            if bytes > bytes_max {
                break;
            }
        }
        Some(found)
    }

    /// Behind the last entry.
    fn end(&self) -> Option<u64> {
        self.entries.back().map(|(entry, _)| entry.log_id.index + 1)
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId as _;

    use super::{
        super::types::{LeaderId, LogId, Payload, Proposal},
        *,
    };

    fn entry(index: u64) -> Entry {
        let log_id = LogId::new(LeaderId::new(1, 1).to_committed(), index);
        Entry { log_id, payload: Payload::Normal(Proposal(index.to_be_bytes().to_vec().into())) }
    }

    fn of(range: std::ops::Range<u64>) -> Recent {
        let mut recent = Recent::default();
        range.for_each(|index| recent.push(entry(index), 10));
        recent
    }

    fn indexes(found: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        found.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn only_what_is_here_in_whole_is_given() {
        let recent = of(5..9);
        assert_eq!(indexes(recent.get(5, 9, 1000)), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(recent.get(6, 8, 1000)), Some(vec![6, 7]));
        assert_eq!(indexes(recent.get(6, 9, 10)), Some(vec![6, 7]), "it stops behind the one that was too much");
        for (from, to) in [(4, 6), (5, 10), (9, 10), (6, 6), (7, 6)] {
            assert_eq!(indexes(recent.get(from, to, 1000)), None, "{from}..{to}");
        }
        assert_eq!(indexes(Recent::default().get(0, 1, 1000)), None);
    }

    #[test]
    fn it_follows_what_happens_to_the_log() {
        let mut recent = of(5..9);
        recent.truncate(7);
        assert_eq!(indexes(recent.get(5, 7, 1000)), Some(vec![5, 6]));
        assert_eq!(indexes(recent.get(5, 8, 1000)), None);
        recent.push(entry(7), 10);
        recent.purge(6);
        assert_eq!((indexes(recent.get(5, 8, 1000)), indexes(recent.get(6, 8, 1000))), (None, Some(vec![6, 7])));
        // A gap, as behind an installed snapshot.
        recent.push(entry(20), 10);
        assert_eq!((indexes(recent.get(6, 8, 1000)), indexes(recent.get(20, 21, 1000))), (None, Some(vec![20])));
        recent.truncate(0);
        assert_eq!((recent.bytes, recent.entries.len()), (0, 0));
    }

    #[test]
    fn s9_it_is_bounded() {
        let mut recent = of(0..2 * ENTRIES_MAX as u64);
        assert_eq!(recent.entries.len(), ENTRIES_MAX);
        recent.push(entry(2 * ENTRIES_MAX as u64), BYTES_MAX + 1);
        assert_eq!((recent.entries.len(), recent.bytes), (1, BYTES_MAX + 1));
        recent.push(entry(2 * ENTRIES_MAX as u64 + 1), 1);
        assert_eq!((recent.entries.len(), recent.bytes), (1, 1));
    }
}
