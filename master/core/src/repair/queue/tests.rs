mod bounded;

use proptest::prelude::*;

use super::*;
use crate::placement::filter::Tally;

fn need(missing: u32) -> Need {
    Need { wanted: 3, good: 3 - missing, missing, ..Need::default() }
}

fn whole() -> Need {
    need(0)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn server(n: u128) -> ServerId {
    ServerId::from_random(n)
}

fn queue(of: &[(u64, u32, u64)]) -> Queue {
    let mut queue = Queue::default();
    for (chunk, missing, since) in of {
        assert_eq!(queue.assess(ChunkId(*chunk), need(*missing), 100, at(*since)), None);
    }
    queue
}

fn due(queue: &mut Queue, now: u64) -> Vec<u64> {
    queue.due(at(now), 10).into_iter().map(|chunk| chunk.0).collect()
}

#[test]
fn chunks_missing_two_are_all_above_one_replica_before_others_start() {
    let mut queue = queue(&[(1, 1, 0), (2, 2, 5), (3, 2, 4)]);
    assert_eq!(due(&mut queue, 10), [3, 2]);
    queue.copying(ChunkId(3), server(1), server(2), at(10));
    queue.copying(ChunkId(2), server(1), server(2), at(10));
    assert_eq!(due(&mut queue, 10), [], "while one of them is under way, what misses one waits");
    queue.done(ChunkId(3), at(11));
    queue.assess(ChunkId(3), need(1), 100, at(11));
    assert_eq!(due(&mut queue, 11), []);
    queue.failed(ChunkId(2), Some(server(2)), "no".into(), at(11));
    assert_eq!(due(&mut queue, 11), [], "one that is tried again soon is waited for");
    assert_eq!(due(&mut queue, 12), [2]);
    // One that cannot be helped does not hold up the others.
    queue.wait(ChunkId(2), Reason::NoTarget(Tally::default()), at(12));
    assert_eq!(due(&mut queue, 12), [1, 3]);
    // And comes first again when it can be.
    queue.unblock(100);
    assert_eq!(due(&mut queue, 12), [2]);
}

#[test]
fn what_only_keeps_a_bad_replica_is_counted_by_itself() {
    let mut queue = queue(&[(1, 1, 0)]);
    let kept = Need { bad: 1, ..whole() };
    assert_eq!(queue.assess(ChunkId(2), kept, 100, at(0)), None);
    assert_eq!(queue.totals().kept, 0, "nobody has decided yet");
    queue.wait(ChunkId(2), Reason::Keep { until: at(50) }, at(1));
    queue.wait(ChunkId(1), Reason::Delay { until: at(50) }, at(1));
    assert_eq!((queue.totals().kept, queue.len()), (1, 2));
    assert_eq!(queue.assess(ChunkId(2), need(1), 100, at(2)), None);
    assert_eq!(queue.totals().kept, 0, "now it misses one");
    queue.assess(ChunkId(2), kept, 100, at(3));
    queue.wait(ChunkId(2), Reason::Keep { until: at(50) }, at(3));
    queue.forget(ChunkId(2), at(4));
    assert_eq!((queue.totals().kept, queue.len()), (0, 1));
}

#[test]
fn a_server_that_comes_back_makes_a_copy_needless() {
    let mut queue = queue(&[(1, 1, 0), (2, 1, 0)]);
    queue.copying(ChunkId(1), server(1), server(2), at(1));
    assert!(queue.is_copying(ChunkId(1), server(2)) && !queue.is_copying(ChunkId(1), server(3)));
    assert_eq!(queue.assess(ChunkId(1), whole(), 100, at(2)), Some(Needless { chunk: ChunkId(1), target: server(2) }));
    assert_eq!(queue.assess(ChunkId(2), whole(), 100, at(2)), None);
    assert!(queue.is_empty());
    assert_eq!(queue.totals(), Totals::default());
    assert!(queue.finished(at(3)).all(|row| row.outcome == Outcome::Needless));
    assert_eq!(queue.finished(at(3)).count(), 2);
    assert_eq!(queue.finished(at(4000)).count(), 0);
}

#[test]
fn what_cannot_be_helped_holds_up_nobody() {
    let lost = Need { wanted: 3, good: 0, missing: 3, ..Need::default() };
    let mut queue = queue(&[(1, 1, 0), (2, 2, 0)]);
    queue.assess(ChunkId(3), lost, 100, at(0));
    assert_eq!(due(&mut queue, 1), [3, 2], "the one that is lost goes first, and not alone");
    queue.copying(ChunkId(3), server(1), server(2), at(1));
    assert_eq!(due(&mut queue, 1), [2]);
    // One that fails is waited for, but not again and again.
    for (now, others) in [(1, vec![]), (10, vec![1])] {
        queue.copying(ChunkId(2), server(1), server(2), at(now));
        queue.failed(ChunkId(2), Some(server(2)), "broken".into(), at(now));
        assert_eq!(due(&mut queue, now), others, "{now}");
    }
    assert_eq!(due(&mut queue, 20), [2, 1], "but it stays the first");
    queue.copying(ChunkId(2), server(1), server(2), at(20));
    queue.done(ChunkId(2), at(21));
    queue.assess(ChunkId(2), need(2), 100, at(21));
    assert_eq!(due(&mut queue, 21), [2], "and is waited for again once it came forward");
}

#[test]
fn an_estimate_says_nothing_about_what_is_stuck() {
    let mut queue = queue(&[(1, 1, 0), (2, 1, 0)]);
    queue.copying(ChunkId(1), server(1), server(2), at(1));
    queue.progress(ChunkId(1), 50, at(2));
    assert!(queue.estimate(at(2)).is_some());
    queue.wait(ChunkId(2), Reason::NoTarget(Tally::default()), at(2));
    assert_eq!((queue.estimate(at(2)), queue.totals().bytes_stuck), (None, 100));
    queue.assess(ChunkId(2), whole(), 100, at(2));
    assert!(queue.estimate(at(2)).is_some());
    queue.assess(ChunkId(3), Need { wanted: 3, good: 0, missing: 3, ..Need::default() }, 100, at(2));
    assert_eq!(queue.estimate(at(2)), None, "what has no good replica left is done when somebody brings one back");
    let rows: Vec<_> = queue.rows(at(2)).map(|(chunk, _, eta)| (chunk.0, eta.is_some())).collect();
    assert_eq!(rows, [(3, false), (1, true)]);
}

#[test]
fn what_waits_is_looked_at_again_when_an_operator_changes_the_policy() {
    let mut queue = queue(&[(1, 1, 0), (2, 1, 0)]);
    queue.wait(ChunkId(1), Reason::Delay { until: at(3600) }, at(1));
    queue.failed(ChunkId(2), Some(server(2)), "no".into(), at(1));
    assert_eq!(due(&mut queue, 1), []);
    queue.policy_changed(10);
    assert_eq!(due(&mut queue, 1), [1], "the pause after a failure is nothing that an operator set");
}

#[test]
fn a_drop_stands_in_the_ledger_until_it_has_ended() {
    let surplus = Need { wanted: 3, good: 4, surplus: 1, ..Need::default() };
    let mut queue = Queue::default();
    queue.assess(ChunkId(1), surplus, 100, at(0));
    queue.dropping(ChunkId(1), server(4));
    assert_eq!(queue.assess(ChunkId(1), whole(), 100, at(1)), None, "what is to go counts no more");
    assert_eq!(queue.get(ChunkId(1)).map(|entry| &entry.work), Some(&Work::Dropping { server: server(4) }));
    queue.done(ChunkId(1), at(2));
    assert_eq!(queue.assess(ChunkId(1), whole(), 100, at(2)), None);
    assert!(queue.is_empty());
    assert_eq!(queue.finished(at(3)).map(|row| row.outcome).collect::<Vec<_>>(), [Outcome::Done]);
}

#[test]
fn a_failure_is_tried_again_later_and_elsewhere_with_growing_pauses() {
    let mut queue = queue(&[(1, 1, 0)]);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for n in 0..9 {
        queue.copying(ChunkId(1), server(0), server(n), now);
        queue.failed(ChunkId(1), Some(server(n)), "broken".into(), now);
        let next = queue.next_deadline().unwrap();
        pauses.push((next - now).as_secs());
        now = next;
        assert_eq!(queue.due(now, 10), [ChunkId(1)]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    let entry = queue.get(ChunkId(1)).unwrap();
    assert_eq!(entry.failed, [server(8), server(7), server(6), server(5)]);
    assert!(entry.reason.as_ref().unwrap().to_string().contains("broken"));
}

#[test]
fn waiting_chunks_come_back_at_their_time_and_worse_ones_at_once() {
    let mut queue = queue(&[(1, 1, 0)]);
    queue.wait(ChunkId(1), Reason::Delay { until: at(10) }, at(0));
    assert_eq!((due(&mut queue, 9), queue.next_deadline()), (vec![], Some(at(10))));
    queue.assess(ChunkId(1), need(2), 100, at(5));
    assert_eq!(due(&mut queue, 5), [1]);
    assert_eq!(queue.get(ChunkId(1)).unwrap().since, at(0), "it is as old as it was");
}

#[test]
fn the_clock_of_the_delay_starts_when_a_replica_goes_missing() {
    let mut queue = Queue::default();
    let moving = Need { wanted: 3, good: 3, moving: 1, ..Need::default() };
    queue.assess(ChunkId(1), moving, 100, at(0));
    queue.assess(ChunkId(1), need(1), 100, at(500));
    assert_eq!(queue.get(ChunkId(1)).unwrap().since, at(500));
}

#[test]
fn estimates_come_from_measured_rates() {
    let mut queue = queue(&[(1, 1, 0), (2, 1, 0), (3, 1, 0)]);
    let etas = |queue: &Queue, now| queue.rows(at(now)).map(|(_, _, eta)| eta).collect::<Vec<_>>();
    assert_eq!(etas(&queue, 0), [None, None, None], "nothing was measured");
    queue.copying(ChunkId(1), server(1), server(2), at(0));
    queue.progress(ChunkId(1), 10, at(1));
    queue.progress(ChunkId(1), 50, at(5));
    queue.progress(ChunkId(1), 40, at(5));
    let Work::Copying { done, .. } = queue.get(ChunkId(1)).unwrap().work else { panic!() };
    assert_eq!(done, 50, "progress only moves forward");
    queue.wait(ChunkId(3), Reason::NoReplica, at(5));
    assert_eq!(queue.rate(at(5)), Some(12));
    assert_eq!(etas(&queue, 5)[0], Some(at(5)), "50 bytes at its own 10 a second");
    assert!(etas(&queue, 5)[1].unwrap() > at(10));
    assert_eq!(etas(&queue, 5)[2], None, "blocked");
    assert_eq!(queue.totals().bytes_left, 250);
}

#[test]
fn a_tick_does_not_walk_all_chunks() {
    let mut queue = Queue::with_rows(200_000);
    for chunk in 0..200_000 {
        queue.assess(ChunkId(chunk), need(1), 100, at(0));
    }
    for chunk in 0..100_000 {
        queue.wait(ChunkId(chunk), Reason::NoReplica, at(0));
    }
    let before = queue.visits();
    for _ in 0..100 {
        assert_eq!(queue.due(at(1), 64).len(), 64);
    }
    assert_eq!(queue.visits() - before, 6400);
    // Many that waited for the same moment are woken step by step.
    for chunk in 100_000..200_000 {
        queue.wait(ChunkId(chunk), Reason::Delay { until: at(2) }, at(1));
    }
    let before = queue.visits();
    assert_eq!(queue.due(at(2), 64).len(), 64);
    assert_eq!(queue.visits() - before, WAKE_MAX as u64 + 64);
}

#[derive(Clone, Debug)]
enum Step {
    Assess(u64, u32, u32),
    Copying(u64),
    Done(u64),
    Failed(u64),
    Wait(u64, bool),
    Progress(u64, u64),
    Forget(u64),
    Due(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let chunk = 0u64..6;
    prop_oneof![
        (chunk.clone(), 0u32..4, 0u32..2).prop_map(|(c, m, o)| Step::Assess(c, m, o)),
        chunk.clone().prop_map(Step::Copying),
        chunk.clone().prop_map(Step::Done),
        chunk.clone().prop_map(Step::Failed),
        (chunk.clone(), any::<bool>()).prop_map(|(c, b)| Step::Wait(c, b)),
        (chunk.clone(), 0u64..200).prop_map(|(c, b)| Step::Progress(c, b)),
        chunk.prop_map(Step::Forget),
        (0u64..4).prop_map(Step::Due),
    ]
}

proptest! {
    #[test]
    fn the_books_agree_with_the_entries(steps in prop::collection::vec(step(), 0..60)) {
        let (mut queue, mut now) = (Queue::default(), at(0));
        for step in steps {
            match step {
                Step::Assess(c, m, moving) => {
                    queue.assess(ChunkId(c), Need { moving, ..need(m) }, 100, now);
                }
                Step::Copying(c) => queue.copying(ChunkId(c), server(1), server(2), now),
                Step::Done(c) => queue.done(ChunkId(c), now),
                Step::Failed(c) => queue.failed(ChunkId(c), Some(server(2)), "no".into(), now),
                Step::Wait(c, true) => queue.wait(ChunkId(c), Reason::NoReplica, now),
                Step::Wait(c, false) => queue.wait(ChunkId(c), Reason::SourcesBusy, now),
                Step::Progress(c, bytes) => queue.progress(ChunkId(c), bytes, now),
                Step::Forget(c) => {
                    queue.forget(ChunkId(c), now);
                }
                Step::Due(seconds) => {
                    now += at(seconds);
                    let due = queue.due(now, 10);
                    prop_assert!(due.iter().all(|c| queue.entries[c].work == Work::None && queue.entries[c].next.is_none()));
                }
            }
            let mut totals = Totals::default();
            let mut first = BTreeMap::new();
            for entry in queue.entries.values() {
                totals.chunks += 1;
                *totals.by_missing.entry(entry.need.missing).or_default() += 1;
                totals.lost += u64::from(entry.need.good == 0);
                totals.bytes_left += entry.bytes_left();
                totals.bytes_stuck += entry.bytes_stuck();
                totals.copying += u64::from(matches!(entry.work, Work::Copying { .. }));
                if entry.goes_first() {
                    *first.entry(entry.need.missing).or_default() += 1;
                }
            }
            prop_assert_eq!(totals, queue.totals());
            prop_assert_eq!(&first, &queue.first);
            prop_assert_eq!(queue.order.len(), queue.entries.len());
            let idle = queue.entries.values().filter(|e| e.work == Work::None).count();
            prop_assert_eq!(queue.ready.len() + queue.later.len(), idle);
            prop_assert_eq!(queue.able.len() + queue.stuck.len(), idle);
        }
    }
}

fn moving() -> Need {
    Need { moving: 1, ..whole() }
}

#[test]
fn moves_whose_servers_are_busy_hold_up_nobody_behind_them() {
    let mut queue = Queue::default();
    for chunk in 1..=3 {
        queue.assess(ChunkId(chunk), moving(), 100, at(0));
    }
    let two = |queue: &mut Queue, now: Duration| -> Vec<u64> { queue.due(now, 2).into_iter().map(|c| c.0).collect() };
    assert_eq!(two(&mut queue, at(1)), [1, 2]);
    queue.wait(ChunkId(1), Reason::TargetsBusy(Tally::default()), at(1));
    queue.wait(ChunkId(2), Reason::SourcesBusy, at(1));
    assert_eq!(two(&mut queue, at(1)), [3]);
    queue.copying(ChunkId(3), server(1), server(2), at(1));
    assert_eq!(two(&mut queue, at(1)), [], "nothing became free");
    queue.done(ChunkId(3), at(1));
    assert_eq!(two(&mut queue, at(1)), [1, 2], "a copy has ended");
    queue.wait(ChunkId(1), Reason::ClusterBudget, at(1));
    queue.wait(ChunkId(2), Reason::SourcesBusy, at(1));
    assert_eq!(two(&mut queue, at(2)), [1, 2], "rates bring something with time");
}

#[test]
fn s7_what_becomes_free_is_for_what_misses_a_replica_before_any_move() {
    let mut queue = queue(&[(1, 1, 0)]);
    queue.assess(ChunkId(2), moving(), 100, at(0));
    for busy in [Reason::ClusterBudget, Reason::SourcesBusy, Reason::TargetsBusy(Tally::default())] {
        assert_eq!(due(&mut queue, 1), [1, 2]);
        queue.wait(ChunkId(1), busy.clone(), at(1));
        queue.wait(ChunkId(2), busy, at(1));
        assert_eq!(due(&mut queue, 1), [1], "it is the first that is looked at in every tick");
        queue.failed(ChunkId(9), None, String::new(), at(1));
    }
}
