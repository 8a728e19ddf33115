use proptest::prelude::*;
use quarry_types::{ChunkId, Crc32};

use super::*;

mod spread;

const NOW: Duration = Duration::from_secs(1000);

fn server(n: u128) -> ServerId {
    ServerId::from_random(n)
}

fn candidate(n: u128, rack: &str) -> Candidate {
    Candidate::idle(server(n), rack, 100 * CHUNK_BYTES, 50 * CHUNK_BYTES)
}

fn cluster(racks: &[&str]) -> Cluster {
    let mut candidates: Vec<Candidate> = racks.iter().enumerate().map(|(n, rack)| candidate(n as u128, rack)).collect();
    candidates.sort_by_key(|c| c.server);
    let racks = racks.iter().map(|r| (*r).to_owned()).collect();
    Cluster { candidates, racks, brake: None, ready: true, budget: i64::MAX, held: false }
}

fn holder(n: u128, rack: &str) -> Holder {
    Holder {
        server: server(n),
        rack: rack.into(),
        health: Health::Alive,
        wish: ServerWish::Active,
        quality: Quality::Good,
        reported: true,
        leaving: false,
        dropping: false,
    }
}

fn question(holders: Vec<Holder>) -> Question {
    let facts = ChunkFacts {
        chunk: ChunkId(7),
        length: CHUNK_BYTES,
        crc: Crc32(1),
        wanted: 3,
        extra: 0,
        toward: None,
        holders,
    };
    Question { facts, since: Duration::ZERO, failed: Vec::new(), now: NOW, chance: 0 }
}

fn next(question: &Question, cluster: &Cluster) -> Decision {
    decide(question, cluster, &Policy::default()).1
}

fn change(cluster: &mut Cluster, n: u128, change: impl FnOnce(&mut Candidate)) {
    change(cluster.candidates.iter_mut().find(|c| c.server == server(n)).unwrap());
}

#[test]
fn a_missing_replica_is_copied_to_a_rack_that_has_none() {
    let cluster = cluster(&["a", "b", "c", "a", "b"]);
    let ask = question(vec![holder(0, "a"), holder(1, "b")]);
    let Decision::Copy { target, sources, urgent } = next(&ask, &cluster) else { panic!() };
    assert_eq!((target, urgent), (server(2), false));
    assert!(sources.contains(&server(0)) && sources.contains(&server(1)));
}

#[test]
fn where_no_other_rack_can_take_it_a_used_one_does() {
    let mut cluster = cluster(&["a", "b", "c", "a", "b"]);
    change(&mut cluster, 2, |c| c.health = Health::Dead);
    let ask = question(vec![holder(0, "a"), holder(1, "b")]);
    let Decision::Copy { target, .. } = next(&ask, &cluster) else { panic!() };
    assert!([server(3), server(4)].contains(&target));
    // One that is only busy is waited for.
    change(&mut cluster, 2, |c| (c.health, c.copies_in) = (Health::Alive, 2));
    let Decision::Wait(Reason::TargetsBusy(tally)) = next(&ask, &cluster) else { panic!() };
    assert_eq!((tally.by(Filter::Copies), tally.by(Filter::Rack)), (1, 2));
}

#[test]
fn only_a_chunk_that_misses_one_waits_for_its_delay() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let mut ask = question(vec![holder(0, "a"), holder(1, "b")]);
    ask.since = NOW;
    let until = NOW + Duration::from_secs(10);
    assert_eq!(next(&ask, &cluster), Decision::Wait(Reason::Delay { until }));
    ask.facts.holders.pop();
    assert!(matches!(next(&ask, &cluster), Decision::Copy { urgent: true, .. }));
    ask.facts.wanted = 2;
    assert!(matches!(next(&ask, &cluster), Decision::Copy { .. }), "below min_replicas it never waits");
}

#[test]
fn nobody_waits_for_a_dead_server_that_is_to_be_emptied_anyway() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let dead = |wish| Holder { health: Health::Dead, wish, ..holder(2, "c") };
    let mut ask = question(vec![holder(0, "a"), holder(1, "b"), dead(ServerWish::Active)]);
    ask.since = NOW;
    assert!(matches!(next(&ask, &cluster), Decision::Wait(Reason::Delay { .. })));
    for wish in [ServerWish::Decommissioned, ServerWish::Draining] {
        ask.facts.holders[2] = dead(wish);
        assert!(matches!(next(&ask, &cluster), Decision::Copy { .. }), "{wish:?}");
    }
    // Another one that had it may be back in a moment.
    ask.facts.holders.push(Holder { health: Health::Dead, ..holder(3, "d") });
    assert!(matches!(next(&ask, &cluster), Decision::Wait(Reason::Delay { .. })));
}

#[test]
fn the_brake_holds_what_has_two_replicas_and_not_what_has_one() {
    let mut cluster = cluster(&["a", "b", "c", "d"]);
    cluster.brake = Some("3 of 4 went".into());
    let mut ask = question(vec![holder(0, "a"), holder(1, "b")]);
    assert_eq!(next(&ask, &cluster), Decision::Wait(Reason::Brake("3 of 4 went".into())));
    ask.facts.holders.pop();
    assert!(matches!(next(&ask, &cluster), Decision::Copy { .. }));
}

#[test]
fn a_new_leader_decides_nothing_before_servers_have_reported() {
    let cluster = Cluster { ready: false, ..cluster(&["a", "b", "c", "d"]) };
    assert_eq!(next(&question(vec![holder(0, "a")]), &cluster), Decision::Wait(Reason::NotReady));
    let many = ["a", "b", "c", "d"].iter().enumerate().map(|(n, rack)| holder(n as u128, rack)).collect();
    assert_eq!(next(&question(many), &cluster), Decision::Wait(Reason::NotReady));
}

#[test]
fn the_exact_predicate_and_its_remedy_are_named() {
    let reason = |cluster: &Cluster, ask: &Question| {
        let Decision::Wait(reason) = next(ask, cluster) else { panic!() };
        (reason.to_string(), reason.remedy())
    };
    let ask = question(vec![holder(0, "a"), holder(1, "b")]);
    let mut full = cluster(&["a", "b", "c"]);
    change(&mut full, 2, |c| c.available_bytes = 10);
    let (why, remedy) = reason(&full, &ask);
    assert!(why.contains("1 without room") && why.contains("2 with a replica already"), "{why}");
    assert!(remedy.contains("free some room"), "{remedy}");
    let mut busy = cluster(&["a", "b", "c"]);
    change(&mut busy, 2, |c| c.copies_in = 2);
    let (why, remedy) = reason(&busy, &ask);
    assert!(why.contains("1 at their limit of copies in flight") && remedy.contains("repair-in"), "{why} {remedy}");
    let mut sources = cluster(&["a", "b", "c"]);
    for n in [0, 1] {
        change(&mut sources, n, |c| c.copies_out = 4);
    }
    assert!(reason(&sources, &ask).1.contains("repair-out"));
    // Three good replicas on two racks, and the third rack is down.
    let mut racks = cluster(&["a", "b", "c", "b"]);
    change(&mut racks, 2, |c| c.health = Health::Dead);
    let ask = question(vec![holder(0, "a"), holder(1, "b"), holder(3, "b")]);
    let (why, remedy) = reason(&racks, &ask);
    assert!(why.contains("fewer racks than the cluster has: 0 of 4") && why.contains("1 not alive"), "{why}");
    assert!(remedy.contains("chunkserver on another rack"), "{remedy}");
    let lost = question(vec![Holder { health: Health::Dead, ..holder(0, "a") }]);
    assert!(reason(&cluster(&["a", "b"]), &lost).0.contains("no good replica"));
}

#[test]
fn a_bad_replica_is_replaced_elsewhere_or_in_need_where_it_is() {
    let bad = Holder { quality: Quality::Quarantined, ..holder(2, "c") };
    let ask = question(vec![holder(0, "a"), holder(1, "b"), bad.clone()]);
    let Decision::Copy { target, .. } = next(&ask, &cluster(&["a", "b", "c", "d"])) else { panic!() };
    assert_eq!(target, server(3));
    let Decision::Copy { target, .. } = next(&ask, &cluster(&["a", "b", "c"])) else { panic!() };
    assert_eq!(target, server(2));
    // All bad: their blocks may add up.
    let all = [0, 1, 2].map(|n| Holder { server: server(n), ..bad.clone() });
    let Decision::Copy { sources, .. } = next(&question(all.to_vec()), &cluster(&["a", "b", "c", "d"])) else {
        panic!()
    };
    assert_eq!(sources.len(), 3);
}

#[test]
fn a_failed_target_is_tried_last() {
    let cluster = cluster(&["a", "b", "c", "c"]);
    let mut ask = question(vec![holder(0, "a"), holder(1, "b")]);
    ask.failed = vec![server(2)];
    for chance in [0, u64::MAX / 2, u64::MAX] {
        ask.chance = chance;
        assert!(matches!(next(&ask, &cluster), Decision::Copy { target, .. } if target == server(3)));
    }
    ask.failed.push(server(3));
    assert!(matches!(next(&ask, &cluster), Decision::Copy { .. }));
}

#[test]
fn a_drained_servers_replica_is_copied_first_and_dropped_then() {
    let mut draining = holder(0, "a");
    draining.wish = ServerWish::Draining;
    let mut cluster = cluster(&["a", "b", "c", "d"]);
    change(&mut cluster, 0, |c| c.wish = ServerWish::Draining);
    let mut ask = question(vec![draining, holder(1, "b"), holder(2, "c")]);
    ask.since = NOW;
    let (need, decision) = decide(&ask, &cluster, &Policy::default());
    assert_eq!((need.missing, need.moving), (0, 1));
    assert!(matches!(decision, Decision::Copy { target, urgent: false, .. } if target == server(3)), "without delay");
    ask.facts.holders.push(holder(3, "d"));
    assert_eq!(next(&ask, &cluster), Decision::Drop { server: server(0), bad: false });
}

#[test]
fn a_server_in_maintenance_is_waited_for_while_another_replica_is_there() {
    let away = |n, rack| Holder { health: Health::Dead, wish: ServerWish::Maintenance, ..holder(n, rack) };
    let cluster = cluster(&["a", "b", "c", "d", "e"]);
    let ask = question(vec![away(0, "a"), holder(1, "b"), holder(2, "c")]);
    assert_eq!(next(&ask, &cluster), Decision::Nothing);
    // With one left in reach nothing is copied either, but it is said.
    let ask = question(vec![away(0, "a"), away(1, "b"), holder(2, "c")]);
    assert_eq!(next(&ask, &cluster), Decision::Wait(Reason::Away));
    assert!(!assess(&ask.facts, cluster.racks.len()).is_met());
    let alone = question(vec![away(0, "a"), away(1, "b")]);
    assert_eq!(next(&alone, &cluster), Decision::Wait(Reason::NoReplica));
}

#[test]
fn s7_a_surplus_replica_goes_only_while_the_others_are_certain() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let four = |change: fn(&mut Holder)| {
        let mut holders: Vec<Holder> =
            ["a", "b", "c", "d"].iter().enumerate().map(|(n, rack)| holder(n as u128, rack)).collect();
        change(&mut holders[1]);
        question(holders)
    };
    assert!(matches!(next(&four(|_| ()), &cluster), Decision::Drop { bad: false, .. }));
    // Without the one that is away the others are three, so only that one itself may go.
    let decision = next(&four(|h| h.wish = ServerWish::Maintenance), &cluster);
    assert_eq!(decision, Decision::Drop { server: server(1), bad: false });
    for doubt in [|h: &mut Holder| h.reported = false, |h: &mut Holder| h.health = Health::Suspect] {
        let decision = next(&four(doubt), &cluster);
        assert_eq!(
            decision,
            Decision::Wait(Reason::Unsafe),
            "one that cannot be told, or will yet report, is no victim"
        );
    }
    let gone = four(|h| h.dropping = true);
    assert_eq!(next(&gone, &cluster), Decision::Nothing, "a drop that was sent counts as done");
}

#[test]
fn s6_while_held_no_replica_is_dropped_and_lost_ones_are_copied() {
    let held = Cluster { held: true, ..cluster(&["a", "b", "c", "d"]) };
    let surplus = question((0..4).map(|n| holder(n, ["a", "b", "c", "d"][n as usize])).collect());
    assert_eq!(next(&surplus, &held), Decision::Wait(Reason::Held));
    let mut bad = surplus.clone();
    bad.facts.holders[3].quality = Quality::Unfit;
    assert_eq!(next(&bad, &held), Decision::Wait(Reason::Held));
    let missing = question(vec![holder(0, "a"), holder(1, "b")]);
    assert!(matches!(next(&missing, &held), Decision::Copy { .. }));
}

#[test]
fn s7_a_drop_keeps_the_racks() {
    let cluster = cluster(&["a", "a", "b", "c"]);
    let ask = question(vec![holder(0, "a"), holder(1, "a"), holder(2, "b"), holder(3, "c")]);
    let Decision::Drop { server: dropped, .. } = next(&ask, &cluster) else { panic!() };
    assert!([server(0), server(1)].contains(&dropped));
}

#[test]
fn quarantined_replicas_are_kept_for_a_while_after_the_chunk_is_whole() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let bad = Holder { quality: Quality::Quarantined, ..holder(3, "d") };
    let mut ask = question(vec![holder(0, "a"), holder(1, "b"), holder(2, "c"), bad]);
    ask.since = NOW;
    let until = NOW + Duration::from_secs(24 * 3600);
    assert_eq!(next(&ask, &cluster), Decision::Wait(Reason::Keep { until }));
    ask.now = until;
    assert_eq!(next(&ask, &cluster), Decision::Drop { server: server(3), bad: true });
}

#[test]
fn a_copy_for_balancing_goes_where_balancing_wants_it_and_nowhere_else() {
    let mut cluster = cluster(&["a"; 6]);
    // The others are emptier, and the scorer would draw among them.
    for n in [4, 5] {
        change(&mut cluster, n, |c| c.free_bytes = c.capacity_bytes);
    }
    let leaving = Holder { leaving: true, ..holder(0, "a") };
    let mut ask = question(vec![leaving, holder(1, "a"), holder(2, "a")]);
    ask.facts.toward = Some(server(3));
    for chance in [0, u64::MAX / 2, u64::MAX] {
        ask.chance = chance;
        let Decision::Copy { target, urgent, .. } = next(&ask, &cluster) else { panic!() };
        assert_eq!((target, urgent), (server(3), false));
    }
    let seen = explained(&ask, &cluster, &Policy::default()).targets;
    let of = |n| seen.iter().find(|t| t.server == server(n)).unwrap().rejected;
    assert_eq!((of(3), of(4), of(0)), (None, Some(Filter::Fill), Some(Filter::Fill)));
    change(&mut cluster, 3, |c| c.health = Health::Dead);
    let Decision::Wait(Reason::NoTarget(tally)) = next(&ask, &cluster) else { panic!() };
    assert_eq!((tally.by(Filter::Fill), tally.by(Filter::Alive)), (5, 1), "the others are not in question");
    // What misses a replica goes wherever it can.
    ask.facts.holders.pop();
    assert!(matches!(next(&ask, &cluster), Decision::Copy { .. }));
}

#[test]
fn a_bad_replica_of_a_server_that_cannot_remove_it_now_is_not_forgotten() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let bad = Holder { quality: Quality::Quarantined, ..holder(3, "d") };
    let unable = [
        Holder { health: Health::Suspect, ..bad.clone() },
        Holder { health: Health::Partitioned, ..bad.clone() },
        Holder { reported: false, ..bad.clone() },
    ];
    let policy = Policy { quarantine_keep: Duration::ZERO, ..Policy::default() };
    let decided = |bad: Holder| {
        let ask = question(vec![holder(0, "a"), holder(1, "b"), holder(2, "c"), bad]);
        decide(&ask, &cluster, &policy)
    };
    for unable in unable {
        let (need, decision) = decided(unable);
        assert_eq!((need.bad, need.is_met()), (1, false), "it stays in the ledger");
        assert!(matches!(decision, Decision::Wait(Reason::Keep { until }) if until > NOW), "{decision:?}");
    }
    assert_eq!(decided(bad).1, Decision::Drop { server: server(3), bad: true });
}

#[test]
fn a_copy_for_balancing_never_costs_a_rack() {
    let cluster = cluster(&["a", "b", "c", "a", "c"]);
    let leaving = Holder { leaving: true, ..holder(2, "c") };
    let mut ask = question(vec![holder(0, "a"), holder(1, "b"), leaving]);
    ask.facts.toward = Some(server(3));
    let Decision::Wait(Reason::NoTarget(tally)) = next(&ask, &cluster) else { panic!("{:?}", next(&ask, &cluster)) };
    assert_eq!(tally.by(Filter::Rack), 1);
    ask.facts.toward = Some(server(4));
    assert!(matches!(next(&ask, &cluster), Decision::Copy { target, .. } if target == server(4)));
    // Two replicas cannot use a third rack.
    (ask.facts.wanted, ask.facts.toward) = (2, Some(server(3)));
    ask.facts.holders.remove(0);
    assert!(matches!(next(&ask, &cluster), Decision::Copy { target, .. } if target == server(3)));
}

#[test]
fn s7_a_chunk_that_is_read_much_gets_one_more_without_missing_any_and_loses_it_again() {
    let cluster = cluster(&["a", "b", "c", "d"]);
    let mut ask = question(vec![holder(0, "a"), holder(1, "b"), holder(2, "c")]);
    ask.facts.extra = 1;
    let (need, decision) = decide(&ask, &cluster, &Policy::default());
    assert_eq!((need.missing, need.moving, need.surplus), (0, 1, 0));
    assert!(matches!(decision, Decision::Copy { target, urgent: false, .. } if target == server(3)));
    ask.facts.holders.push(holder(3, "d"));
    assert_eq!(next(&ask, &cluster), Decision::Nothing);
    ask.facts.extra = 0;
    assert!(matches!(next(&ask, &cluster), Decision::Drop { bad: false, .. }));
}

prop_compose! {
    fn any_holder()(
        rack in 0u8..4,
        health in 0u8..4,
        wish in 0u8..4,
        quality in 0u8..6,
        reported in prop::bool::weighted(0.8),
        leaving in prop::bool::weighted(0.1),
        dropping in prop::bool::weighted(0.1),
    ) -> Holder {
        Holder {
            health: [Health::Alive, Health::Suspect, Health::Partitioned, Health::Dead][usize::from(health)],
            wish: [ServerWish::Active, ServerWish::Draining, ServerWish::Maintenance, ServerWish::Decommissioned]
                [usize::from(wish)],
            quality: *[Quality::Doubted, Quality::Unfit, Quality::Quarantined]
                .get(usize::from(quality)).unwrap_or(&Quality::Good),
            reported,
            leaving,
            dropping,
            ..holder(0, &format!("r{rack}"))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn s7_a_plan_never_makes_it_worse(
        holders in prop::collection::vec(any_holder(), 0..7),
        wanted in 1u32..5,
        chance: u64,
        age in 0u64..2_000_000,
        extra in 0u32..2,
        toward in prop::option::of(0u128..10),
    ) {
        let mut holders = holders;
        for (n, holder) in holders.iter_mut().enumerate() {
            holder.server = server(n as u128);
        }
        let mut cluster = cluster(&["r0", "r1", "r2", "r3", "r0", "r1", "r2", "r3", "r0", "r1"]);
        for h in &holders {
            let c = cluster.candidates.iter_mut().find(|c| c.server == h.server).unwrap();
            (c.rack, c.health, c.wish) = (h.rack.clone(), h.health, h.wish);
        }
        let now = Duration::from_secs(age);
        let mut ask = Question { now, chance, ..question(holders) };
        (ask.facts.wanted, ask.facts.extra, ask.facts.toward) = (wanted, extra, toward.map(server));
        let facts = &ask.facts;
        match next(&ask, &cluster) {
            Decision::Drop { server, bad } => {
                let certain: Vec<&Holder> = facts.holders.iter().filter(|h| {
                    h.server != server && h.quality == Quality::Good && h.reported && !h.dropping
                        && h.health == Health::Alive && h.wish != ServerWish::Maintenance
                }).collect();
                prop_assert!(certain.len() >= wanted as usize);
                let dropped = facts.holders.iter().find(|h| h.server == server).unwrap();
                prop_assert_eq!((dropped.health, dropped.reported), (Health::Alive, true));
                prop_assert!(!dropped.dropping);
                prop_assert_eq!(bad, dropped.quality != Quality::Good);
                if !bad {
                    let racks = |of: Vec<&Holder>| of.iter().map(|h| h.rack.clone()).collect::<BTreeSet<_>>().len();
                    let before = racks(counted(facts).collect());
                    prop_assert!(racks(certain) >= before.min(wanted as usize));
                }
            }
            Decision::Copy { target, sources, .. } => {
                let there = facts.holders.iter().find(|h| h.server == target);
                prop_assert!(there.is_none_or(is_bad), "never over a replica that is or may be good");
                prop_assert!(!sources.is_empty());
                let good = |s: &ServerId| facts.holders.iter().any(|h| h.server == *s && h.serves());
                let any_good = facts.holders.iter().any(Holder::serves);
                prop_assert!(!any_good || sources.iter().all(good), "from good replicas while there are any");
                let to = cluster.candidate(target).unwrap();
                prop_assert!(to.is_active());
            }
            Decision::Nothing | Decision::Wait(_) => {}
        }
    }
}
