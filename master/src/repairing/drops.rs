//! Drops that were ordered and may not have happened yet (S7).

use std::collections::BTreeMap;

use quarry_types::{ChunkId, ServerId, planted};

/// Replicas that were ordered to be dropped: none of them counts until it is known what came of the order.
#[derive(Debug, Default)]
pub(super) struct Drops(BTreeMap<(ServerId, ChunkId), Order>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// It may be carried out at any time.
    Sent,
    /// The server said that it is done; what it reports of the chunk follows.
    Answered,
}

impl Drops {
    pub fn sent(&mut self, chunk: ChunkId, server: ServerId) {
        self.0.insert((server, chunk), Order::Sent);
    }

    pub fn contains(&self, chunk: ChunkId, server: ServerId) -> bool {
        self.0.contains_key(&(server, chunk)) && !planted!("forget-drops")
    }

    /// The server did it. `there`: by the picture of the server the replica is there still.
    pub fn answered(&mut self, chunk: ChunkId, server: ServerId, there: bool) {
        if there && self.contains(chunk, server) {
            self.0.insert((server, chunk), Order::Answered);
        } else {
            self.0.remove(&(server, chunk));
        }
    }

    /// The server refused for good.
    pub fn refused(&mut self, chunk: ChunkId, server: ServerId) {
        self.0.remove(&(server, chunk));
    }

    /// The picture of a server is new: what it did and what shows as gone is settled. An order without an answer is not,
    /// even when its replica is gone: another one could come to the same place before the order is carried out.
    pub fn reported(&mut self, server: ServerId, there: impl Fn(ChunkId) -> bool) {
        let settled: Vec<(ServerId, ChunkId)> = self
            .0
            .range((server, ChunkId(0))..=(server, ChunkId(u64::MAX)))
            .filter(|((_, chunk), order)| **order == Order::Answered && !there(*chunk))
            .map(|(key, _)| *key)
            .collect();
        for key in settled {
            self.0.remove(&key);
        }
    }

    /// A full report of a new registration: what it shows is what drops of the one before have left. Their chunks.
    pub fn reported_in_full(&mut self, server: ServerId) -> Vec<ChunkId> {
        let all = (server, ChunkId(0))..=(server, ChunkId(u64::MAX));
        let settled: Vec<ChunkId> = self.0.range(all).map(|((_, chunk), _)| *chunk).collect();
        self.0.retain(|(of, _), _| *of != server);
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ChunkId = ChunkId(7);

    #[test]
    fn s7_a_drop_counts_as_under_way_until_its_answer_and_the_picture_agree() {
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        let mut drops = Drops::default();
        drops.sent(CHUNK, a);
        drops.sent(CHUNK, b);
        drops.reported(a, |_| false);
        assert!(drops.contains(CHUNK, a), "without an answer it may still happen, to whatever is there by then");
        drops.answered(CHUNK, a, true);
        drops.reported(a, |_| true);
        assert!(drops.contains(CHUNK, a), "the picture is older than the answer");
        drops.reported(b, |_| false);
        assert!(drops.contains(CHUNK, a), "that was another server's");
        drops.reported(a, |_| false);
        assert!(!drops.contains(CHUNK, a));
        drops.answered(CHUNK, b, false);
        assert!(!drops.contains(CHUNK, b), "the picture knew it before the answer came");
    }

    #[test]
    fn s7_a_refusal_and_a_new_registration_settle_a_drop() {
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        let mut drops = Drops::default();
        drops.sent(CHUNK, a);
        drops.sent(CHUNK, b);
        drops.refused(CHUNK, a);
        assert!(!drops.contains(CHUNK, a) && drops.contains(CHUNK, b));
        assert_eq!(drops.reported_in_full(b), [CHUNK]);
        assert!(!drops.contains(CHUNK, b));
        drops.answered(CHUNK, b, true);
        assert!(!drops.contains(CHUNK, b), "an answer of the registration before is late");
    }
}
