//! The ledger has so many rows and no more.

use super::*;
use crate::repair::queue::left_out::{REST, REST_MIN};

const LOST: Need = Need { wanted: 3, good: 0, missing: 3, moving: 0, rack_short: false, surplus: 0, bad: 0, away: 0 };

/// All chunks as they are, looked at in a round as whoever feeds the ledger does.
fn round(queue: &mut Queue, chunks: &BTreeMap<u64, Need>, now: Duration) {
    queue.round_begins();
    for (chunk, need) in chunks {
        queue.round_reaches(ChunkId(*chunk));
        queue.assess(ChunkId(*chunk), *need, 100, now);
    }
    queue.round_ends(now);
}

fn rows(queue: &Queue) -> Vec<u64> {
    queue.rows(at(0)).map(|(chunk, ..)| chunk.0).collect()
}

#[test]
fn s9_the_least_endangered_give_way_and_are_counted() {
    let mut queue = Queue::with_rows(3);
    for (chunk, missing) in [(1, 1), (2, 1), (3, 1)] {
        queue.assess(ChunkId(chunk), need(missing), 100, at(chunk));
    }
    assert!(queue.is_whole());
    queue.assess(ChunkId(4), need(2), 100, at(4));
    assert_eq!((rows(&queue), queue.left_out(), queue.is_whole()), (vec![4, 1, 2], 1, false));
    let totals = queue.totals();
    assert_eq!((totals.chunks, totals.bytes_left), (4, 500));
    assert_eq!(totals.by_missing, BTreeMap::from([(1, 3), (2, 1)]));
    assert_eq!(queue.estimate(at(4)), None);
    // What comes later and is no worse gets none, and is counted when all are looked at.
    queue.assess(ChunkId(5), need(1), 100, at(5));
    assert_eq!((rows(&queue), queue.left_out()), (vec![4, 1, 2], 1));
    assert_eq!(queue.next_round(), Some(REST));
    let mut chunks =
        BTreeMap::from([(1, need(1)), (2, need(1)), (3, need(1)), (4, need(2)), (5, need(1)), (6, whole())]);
    round(&mut queue, &chunks, at(60));
    assert_eq!((queue.left_out(), queue.totals().chunks, queue.next_round()), (2, 5, Some(at(60) + REST)));
    // When there is room they get a row.
    for chunk in [1, 4] {
        chunks.insert(chunk, whole());
        queue.assess(ChunkId(chunk), whole(), 100, at(61));
    }
    assert_eq!(queue.next_round(), Some(at(60) + REST_MIN), "there is room");
    round(&mut queue, &chunks, at(65));
    assert_eq!((rows(&queue), queue.is_whole(), queue.next_round()), (vec![2, 3, 5], true, None));
    assert_eq!(queue.totals().chunks, 3);
}

#[test]
fn s9_what_is_lost_or_blocked_leaves_half_of_the_rows_to_what_can_be_worked_on() {
    let mut queue = Queue::with_rows(4);
    for chunk in 1..=10 {
        queue.assess(ChunkId(chunk), LOST, 100, at(chunk));
    }
    assert_eq!((queue.len(), queue.room(), queue.totals().lost), (4, 2, 4));
    let chunks: BTreeMap<u64, Need> = (1..=10).map(|chunk| (chunk, LOST)).collect();
    round(&mut queue, &chunks, at(20));
    assert_eq!((queue.totals().lost, queue.totals().bytes_stuck), (10, 3000));
    assert_eq!(queue.next_round(), Some(at(20) + REST), "for what is lost there is no haste");
    for chunk in 11..=13 {
        queue.assess(ChunkId(chunk), need(1), 100, at(chunk));
    }
    assert_eq!((rows(&queue), queue.room()), (vec![1, 2, 11, 12], 0));
    // And what cannot be worked on now gives way as well, to be looked at again.
    for chunk in [11, 12] {
        queue.wait(ChunkId(chunk), Reason::NoTarget(Tally::default()), at(21));
    }
    queue.assess(ChunkId(14), need(1), 100, at(30));
    assert_eq!(rows(&queue), [1, 2, 11, 14]);
    queue.unblock(10);
    assert_eq!(queue.next_round(), Some(at(20) + REST_MIN));
}

#[test]
fn s9_what_is_worked_on_keeps_its_row() {
    let mut queue = Queue::with_rows(2);
    for chunk in [1, 2] {
        queue.assess(ChunkId(chunk), need(1), 100, at(0));
        queue.copying(ChunkId(chunk), server(1), server(2), at(0));
    }
    queue.assess(ChunkId(3), need(2), 100, at(1));
    assert_eq!((rows(&queue), queue.is_whole()), (vec![1, 2], false));
}

#[test]
fn s9_nobody_says_that_all_is_well_while_those_without_a_row_are_counted() {
    let mut queue = Queue::with_rows(1);
    queue.assess(ChunkId(7), need(1), 100, at(0));
    queue.assess(ChunkId(9), need(1), 100, at(0));
    assert_eq!((queue.left_out(), queue.is_whole()), (0, false), "it is not counted yet");
    queue.round_begins();
    queue.assess(ChunkId(7), whole(), 100, at(1));
    assert!(!queue.is_whole());
    // It is begun anew.
    queue.round_begins();
    queue.round_reaches(ChunkId(7));
    assert!(!queue.is_whole());
    queue.round_reaches(ChunkId(9));
    queue.assess(ChunkId(9), need(1), 100, at(1));
    queue.round_ends(at(1));
    assert!(queue.is_whole());
    assert_eq!(rows(&queue), [9]);
}

fn any_need() -> impl Strategy<Value = Need> {
    prop_oneof![Just(whole()), Just(need(1)), Just(need(2)), Just(LOST), Just(Need { moving: 1, ..whole() })]
}

proptest! {
    /// Whatever was looked at before, a round counts all that is there.
    #[test]
    fn s9_a_round_counts_every_chunk_once(
        before in prop::collection::vec((0u64..40, any_need(), any::<bool>()), 0..60),
        chunks in prop::collection::btree_map(0u64..40, any_need(), 0..40),
        rows_max in 1usize..12,
    ) {
        let mut queue = Queue::with_rows(rows_max);
        for (n, (chunk, need, blocked)) in (0..).zip(before) {
            queue.assess(ChunkId(chunk), need, 100, at(n));
            if blocked {
                queue.wait(ChunkId(chunk), Reason::NoTarget(Tally::default()), at(n));
            }
        }
        for chunk in (0..40).filter(|chunk| !chunks.contains_key(chunk)) {
            queue.forget(ChunkId(chunk), at(60));
        }
        round(&mut queue, &chunks, at(61));
        prop_assert!(queue.len() <= rows_max);
        let mut wanted = Totals::default();
        for need in chunks.values().filter(|need| !need.is_met()) {
            wanted.chunks += 1;
            wanted.lost += u64::from(need.good == 0);
            *wanted.by_missing.entry(need.missing).or_default() += 1;
        }
        let totals = queue.totals();
        prop_assert_eq!((totals.chunks, totals.lost, totals.by_missing), (wanted.chunks, wanted.lost, wanted.by_missing));
        prop_assert_eq!(queue.is_whole(), queue.len() as u64 == wanted.chunks);
    }

    /// However few rows there are, all that can be repaired is, and what cannot stays known.
    #[test]
    fn s9_all_is_repaired_in_the_end_however_few_rows_there_are(
        chunks in prop::collection::btree_map(0u64..200, any_need(), 0..100),
        rows_max in 4usize..20,
    ) {
        let (mut queue, mut chunks, mut now) = (Queue::with_rows(rows_max), chunks, at(0));
        round(&mut queue, &chunks, now);
        for _ in 0..1000 {
            now += at(1);
            for chunk in queue.due(now, 3) {
                if chunks[&chunk.0].good == 0 {
                    queue.wait(chunk, Reason::NoReplica, now);
                    continue;
                }
                queue.copying(chunk, server(1), server(2), now);
                queue.done(chunk, now);
                chunks.insert(chunk.0, whole());
                queue.assess(chunk, whole(), 100, now);
            }
            if queue.next_round().is_some_and(|next| next <= now) {
                round(&mut queue, &chunks, now);
            }
        }
        let left = chunks.values().filter(|need| !need.is_met()).count() as u64;
        prop_assert!(chunks.values().all(|need| need.is_met() || need.good == 0));
        prop_assert_eq!((queue.totals().chunks, queue.totals().lost), (left, left));
    }
}
