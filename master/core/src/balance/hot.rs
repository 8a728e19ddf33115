//! Chunks that are read much more than others: each gets one more replica for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_types::{ChunkId, ServerId};

/// Chunks that have one at the same time.
const CHUNKS_MAX: usize = 1000;
/// What a server says it is read is taken from one report of it.
pub const REPORTED_MAX: usize = 4;
/// Of a server that is busier than the others this share of the readers is enough.
const BUSY_SHARE: u64 = 4;
/// And no fewer.
const READERS_MIN: u64 = 2;

/// The chunks that are read much, as servers say.
#[derive(Clone, Debug, Default)]
pub struct Hot {
    reported: BTreeMap<ServerId, Vec<(ChunkId, u32)>>,
    /// When each was last read so much.
    last: BTreeMap<ChunkId, Duration>,
}

impl Hot {
    /// What a server's beat says: chunks and their readers at once. It replaces what the one before said.
    pub fn report(&mut self, server: ServerId, read: impl Iterator<Item = (ChunkId, u32)>) {
        let read: Vec<_> = read.take(REPORTED_MAX).collect();
        if read.is_empty() {
            self.reported.remove(&server);
        } else {
            self.reported.insert(server, read);
        }
    }

    /// What other servers than these said counts no longer.
    pub fn retain(&mut self, servers: impl Fn(ServerId) -> bool) {
        self.reported.retain(|server, _| servers(*server));
    }

    /// Whether a chunk has one more replica for now.
    #[must_use]
    pub fn is_hot(&self, chunk: ChunkId) -> bool {
        self.last.contains_key(&chunk)
    }

    /// How many chunks have one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.last.len()
    }

    /// Looks at what was reported. `readers`: so many at once, on all servers together, make a chunk hot. On `busy` servers
    /// fewer do. Hot is a chunk until nothing made it so for `keep`. The chunks that became hot, or are not any longer, are
    /// returned.
    pub fn look(&mut self, readers: u64, keep: Duration, busy: &[ServerId], now: Duration) -> Vec<ChunkId> {
        let mut sums: BTreeMap<ChunkId, u64> = BTreeMap::new();
        let mut hot: BTreeSet<ChunkId> = BTreeSet::new();
        for (server, read) in &self.reported {
            for (chunk, count) in read {
                let count = u64::from(*count);
                let sum = sums.entry(*chunk).or_default();
                *sum = sum.saturating_add(count);
                let enough_here = (readers / BUSY_SHARE).max(READERS_MIN);
                if *sum >= readers || (busy.contains(server) && count >= enough_here) {
                    hot.insert(*chunk);
                }
            }
        }
        let mut changed = Vec::new();
        for chunk in hot {
            let room = self.last.len() < CHUNKS_MAX || self.last.contains_key(&chunk);
            if room && self.last.insert(chunk, now).is_none() {
                changed.push(chunk);
            }
        }
        let is_over = |last: &Duration| last.saturating_add(keep) <= now;
        let over: Vec<ChunkId> = self.last.iter().filter(|(_, last)| is_over(last)).map(|(chunk, _)| *chunk).collect();
        for chunk in over {
            self.last.remove(&chunk);
            changed.push(chunk);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(600);

    fn server(n: u128) -> ServerId {
        ServerId::from_random(n)
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn report(hot: &mut Hot, n: u128, read: &[(u64, u32)]) {
        hot.report(server(n), read.iter().map(|(chunk, count)| (ChunkId(*chunk), *count)));
    }

    #[test]
    fn a_chunk_that_is_read_much_is_hot_for_a_while_and_not_longer() {
        let mut hot = Hot::default();
        report(&mut hot, 1, &[(7, 40), (8, 9)]);
        assert_eq!(hot.look(64, KEEP, &[], at(0)), []);
        report(&mut hot, 2, &[(7, 24)]);
        assert_eq!(hot.look(64, KEEP, &[], at(1)), [ChunkId(7)], "readers on all servers count together");
        assert_eq!(hot.look(64, KEEP, &[], at(2)), []);
        report(&mut hot, 1, &[]);
        hot.retain(|s| s != server(2));
        assert!(
            hot.look(64, KEEP, &[], at(601)).is_empty() && hot.is_hot(ChunkId(7)),
            "counted from when it was last hot"
        );
        assert_eq!(hot.look(64, KEEP, &[], at(602)), [ChunkId(7)]);
        assert!(!hot.is_hot(ChunkId(7)));
    }

    #[test]
    fn on_a_busy_server_fewer_readers_are_enough() {
        let mut hot = Hot::default();
        report(&mut hot, 1, &[(7, 16), (8, 15)]);
        report(&mut hot, 2, &[(9, 16)]);
        assert_eq!(hot.look(64, KEEP, &[server(1)], at(0)), [ChunkId(7)]);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut hot = Hot::default();
        for n in 0..400u64 {
            let read: Vec<_> = (0..6).map(|i| (n * 6 + i, 100)).collect();
            report(&mut hot, u128::from(n), &read);
        }
        assert_eq!(hot.look(64, KEEP, &[], at(0)).len(), CHUNKS_MAX);
        assert_eq!(hot.count(), CHUNKS_MAX);
        assert!(hot.reported.values().all(|read| read.len() == REPORTED_MAX));
    }
}
