//! Since when this leader has seen replicas of chunks that the namespace does not know. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use quarry_env::Instant;
use quarry_types::{ChunkId, ServerId};

/// Orphans remembered of all servers together. Further ones wait until some of these are gone.
const ORPHANS_MAX: usize = 200_000;

/// Orphans and since when they were seen. Soft: another leader waits for the whole grace again (S6).
#[derive(Default)]
pub struct Orphans {
    servers: BTreeMap<ServerId, OfServer>,
    count: usize,
}

#[derive(Default)]
struct OfServer {
    seen: BTreeMap<ChunkId, Instant>,
    /// Those whose grace was not over when it was asked last, in the order in which they were seen.
    waiting: VecDeque<ChunkId>,
    /// Some were not remembered.
    missed: bool,
}

impl Orphans {
    /// `server` reports an orphan. Whether it was seen for `grace` and may be deleted.
    pub fn seen(&mut self, server: ServerId, chunk: ChunkId, now: Instant, grace: Duration) -> bool {
        if grace.is_zero() {
            return true;
        }
        let of = self.servers.entry(server).or_default();
        if let Some(since) = of.seen.get(&chunk) {
            return now.since(*since) >= grace;
        }
        if self.count >= ORPHANS_MAX {
            of.missed = true;
            return false;
        }
        self.count += 1;
        of.seen.insert(chunk, now);
        of.waiting.push_back(chunk);
        false
    }

    /// Up to `limit` orphans of `server` whose grace is over by now and that were not named before: they are to be
    /// compared with the records once more.
    pub fn ripe(&mut self, server: ServerId, now: Instant, grace: Duration, limit: usize) -> Vec<ChunkId> {
        let Some(of) = self.servers.get_mut(&server) else { return Vec::new() };
        let mut ripe = Vec::new();
        while ripe.len() < limit {
            let Some(chunk) = of.waiting.front() else { break };
            // One that is gone leaves its place in the queue.
            if of.seen.get(chunk).is_some_and(|since| now.since(*since) < grace) {
                break;
            }
            ripe.extend(of.waiting.pop_front().filter(|chunk| of.seen.contains_key(chunk)));
        }
        ripe
    }

    /// The replica is gone, or is no orphan.
    pub fn forget(&mut self, server: ServerId, chunk: ChunkId) {
        if let Some(of) = self.servers.get_mut(&server) {
            self.count -= usize::from(of.seen.remove(&chunk).is_some());
        }
    }

    /// Whether orphans of `server` were not remembered for which there is room now: all it holds is to be compared again.
    pub fn room_again(&mut self, server: ServerId) -> bool {
        let room = self.count < ORPHANS_MAX / 2;
        self.servers.get_mut(&server).is_some_and(|of| room && std::mem::take(&mut of.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn server(number: u128) -> ServerId {
        ServerId::from_random(number)
    }

    #[test]
    fn s6_an_orphan_is_deleted_only_after_it_was_seen_for_the_grace() {
        let (mut orphans, a, b) = (Orphans::default(), server(1), server(2));
        assert!(!orphans.seen(a, ChunkId(1), at(0), GRACE));
        assert!(!orphans.seen(a, ChunkId(2), at(30), GRACE));
        assert!(!orphans.seen(a, ChunkId(1), at(59), GRACE));
        assert!(orphans.ripe(a, at(59), GRACE, 10).is_empty());
        assert_eq!(orphans.ripe(a, at(60), GRACE, 10), [ChunkId(1)]);
        assert!(orphans.seen(a, ChunkId(1), at(60), GRACE));
        assert!(!orphans.seen(a, ChunkId(2), at(60), GRACE));
        assert!(!orphans.seen(b, ChunkId(1), at(90), GRACE), "each server's replica has a grace of its own");
        assert_eq!(orphans.ripe(a, at(90), GRACE, 10), [ChunkId(2)]);
        assert!(orphans.ripe(a, at(90), GRACE, 10).is_empty(), "named once");
        assert!(!Orphans::default().seen(a, ChunkId(1), at(90), GRACE), "another leader begins anew");
    }

    #[test]
    fn a_replica_that_was_gone_or_known_meanwhile_waits_again() {
        let (mut orphans, a) = (Orphans::default(), server(1));
        orphans.seen(a, ChunkId(1), at(0), GRACE);
        orphans.forget(a, ChunkId(1));
        assert!(orphans.ripe(a, at(90), GRACE, 10).is_empty());
        assert!(!orphans.seen(a, ChunkId(1), at(90), GRACE));
        assert_eq!(orphans.ripe(a, at(150), GRACE, 10), [ChunkId(1)]);
    }

    #[test]
    fn the_grace_may_be_changed_and_none_deletes_at_once() {
        let (mut orphans, a) = (Orphans::default(), server(1));
        assert!(orphans.seen(a, ChunkId(1), at(0), Duration::ZERO));
        orphans.seen(a, ChunkId(2), at(0), GRACE);
        assert_eq!(orphans.ripe(a, at(1), Duration::ZERO, 10), [ChunkId(2)]);
    }

    #[test]
    fn s9_orphans_are_bounded_and_those_that_found_no_room_are_looked_at_again() {
        let (mut orphans, a) = (Orphans::default(), server(1));
        for n in 0..ORPHANS_MAX as u64 + 5 {
            assert!(!orphans.seen(a, ChunkId(n), at(0), GRACE));
        }
        assert_eq!(orphans.count, ORPHANS_MAX);
        assert!(!orphans.seen(a, ChunkId(ORPHANS_MAX as u64), at(90), GRACE), "it was not remembered");
        assert!(!orphans.room_again(a), "there is no room yet");
        for n in 0..ORPHANS_MAX as u64 {
            orphans.forget(a, ChunkId(n));
        }
        assert!(orphans.room_again(a));
        assert!(!orphans.room_again(a), "once");
    }
}
