//! Racks are kept however busy servers are, and what is said about them is what was decided by.

use super::*;
use crate::placement::filter::Tally;

const RACKS: [&str; 7] = ["a", "b", "c", "d", "a", "b", "a"];

fn sick() -> Option<String> {
    Some("its processors are 100 % busy".into())
}

fn all_sick(mut cluster: Cluster) -> Cluster {
    cluster.candidates.iter_mut().for_each(|c| c.sick = sick());
    cluster
}

/// What is said of an answer, and what helps.
fn reason(cluster: &Cluster, ask: &Question) -> (String, String) {
    let Decision::Wait(reason) = next(ask, cluster) else { panic!("{:?}", next(ask, cluster)) };
    (reason.to_string(), reason.remedy())
}

prop_compose! {
    fn any_candidate(n: u128)(
        sick in prop::bool::weighted(0.8),
        dead in prop::bool::weighted(0.1),
        drains in prop::bool::weighted(0.1),
        full in prop::bool::weighted(0.2),
        copies_in in 0u32..3,
        spent in prop::bool::weighted(0.1),
    ) -> Candidate {
        let mut c = candidate(n, RACKS[n as usize]);
        c.sick = super::spread::sick().filter(|_| sick);
        c.health = if dead { Health::Dead } else { Health::Alive };
        c.wish = if drains { ServerWish::Draining } else { ServerWish::Active };
        c.available_bytes = if full { 10 } else { c.available_bytes };
        (c.copies_in, c.budget_in) = (copies_in, if spent { 0 } else { 1 });
        c
    }
}

prop_compose! {
    /// A cluster in any state, and a chunk on some of its servers.
    fn any_world()(
        all in (any_candidate(0), any_candidate(1), any_candidate(2), any_candidate(3), any_candidate(4), any_candidate(5),
            any_candidate(6)),
        held in prop::collection::btree_set(0u128..7, 1..5),
        quarantined in prop::option::weighted(0.2, 0usize..4),
        failed in prop::option::weighted(0.2, 0u128..7),
        toward in prop::option::weighted(0.2, 0u128..7),
        leaves in any::<bool>(),
        wanted in 1u32..6,
        chance: u64,
    ) -> (Question, Cluster) {
        let mut cluster = cluster(&RACKS);
        cluster.candidates = vec![all.0, all.1, all.2, all.3, all.4, all.5, all.6];
        cluster.candidates.sort_by_key(|c| c.server);
        let mut holders: Vec<Holder> = held.iter().map(|n| holder(*n, RACKS[*n as usize])).collect();
        for h in &mut holders {
            let c = cluster.candidate(h.server).unwrap();
            (h.health, h.wish) = (c.health, c.wish);
        }
        if let Some(bad) = quarantined.and_then(|n| holders.get_mut(n)) {
            bad.quality = Quality::Quarantined;
        }
        holders[0].leaving = leaves && toward.is_some();
        holders.sort_by_key(|h| h.server);
        let mut ask = Question { chance, failed: failed.map(server).into_iter().collect(), ..question(holders) };
        (ask.facts.wanted, ask.facts.toward) = (wanted, toward.map(server));
        (ask, cluster)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn load_never_costs_a_rack((ask, cluster) in any_world()) {
        if let Decision::Copy { target, .. } = next(&ask, &cluster) {
            let stays = |h: &&Holder| !h.leaves();
            let used: BTreeSet<&str> = counted(&ask.facts).filter(stays).map(|h| h.rack.as_str()).collect();
            let could = |c: &&Candidate| {
                !used.contains(c.rack.as_str()) && c.is_active() && c.available_bytes > CHUNK_BYTES + FILE_OVERHEAD
                    && ask.facts.holders.iter().all(|h| h.server != c.server) && !ask.failed.contains(&c.server)
            };
            let to = cluster.candidate(target).unwrap();
            let other = cluster.candidates.iter().find(could);
            prop_assert!(!used.contains(to.rack.as_str()) || other.is_none(), "{to:?} was taken, and not {other:?}");
        }
    }

    #[test]
    fn what_is_explained_is_what_was_decided_by((ask, cluster) in any_world()) {
        let explained = explained(&ask, &cluster, &Policy::default());
        for target in &explained.targets {
            for filter in FOR_COPY {
                prop_assert!(target.filters.iter().any(|met| met.filter == *filter), "{filter} of {target:?}");
            }
            let first = target.filters.iter().find(|met| !met.passed).map(|met| met.filter);
            prop_assert_eq!(first, target.rejected, "ruled out by the first that was not passed");
        }
        match explained.decision {
            Decision::Copy { target: chosen, .. } => {
                let chosen = explained.targets.iter().find(|t| t.server == chosen).unwrap();
                prop_assert_eq!(chosen.rejected, None);
            }
            Decision::Wait(Reason::TargetsBusy(said) | Reason::NoTarget(said) | Reason::NoRack(said)) => {
                let mut shown = Tally::default();
                explained.targets.iter().for_each(|t| shown.count(t.rejected));
                prop_assert_eq!((shown.out, shown.usable), (said.out, said.usable));
            }
            _ => {}
        }
    }
}

#[test]
fn a_fourth_replica_is_one_copy_however_busy_all_are() {
    let mut cluster = all_sick(cluster(&["a", "b", "c", "d", "a"]));
    let racks =
        |held: &[u128]| held.iter().map(|n| ["a", "b", "c", "d", "a"][*n as usize]).collect::<BTreeSet<_>>().len();
    let three = [[0, 1, 2], [1, 2, 3], [4, 2, 3], [0, 1, 3], [4, 1, 2]];
    let mut chunks: Vec<Vec<u128>> = (0..48).map(|n| three[n % three.len()].to_vec()).collect();
    let (mut under_way, mut copies) = (Vec::new(), 0);
    for step in 0..200u64 {
        for (chunk, held) in chunks.iter().enumerate() {
            if under_way.iter().any(|(of, _)| *of == chunk) {
                continue;
            }
            let mut holders: Vec<Holder> =
                held.iter().map(|n| holder(*n, ["a", "b", "c", "d", "a"][*n as usize])).collect();
            holders.sort_by_key(|h| h.server);
            let mut ask = Question { chance: step.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..question(holders) };
            ask.facts.wanted = 4;
            match next(&ask, &cluster) {
                Decision::Copy { target, .. } => {
                    let to = (0..5).find(|n| server(*n) == target).unwrap();
                    change(&mut cluster, to, |c| c.copies_in += 1);
                    under_way.push((chunk, to));
                    copies += 1;
                }
                Decision::Nothing | Decision::Wait(Reason::TargetsBusy(_)) => {}
                other => panic!("{other:?} of {held:?}"),
            }
        }
        if !under_way.is_empty() {
            let (chunk, to) = under_way.remove(0);
            change(&mut cluster, to, |c| c.copies_in -= 1);
            chunks[chunk].push(to);
        }
    }
    assert!(chunks.iter().all(|held| held.len() == 4 && racks(held) == 4), "{chunks:?}");
    assert_eq!(copies, 48);
}

#[test]
fn what_lasts_comes_before_busy_sources() {
    // A move that would cost a rack is refused at once, not when its sources are free.
    let mut cluster = cluster(&["a", "b", "c", "a"]);
    for n in 0..3 {
        change(&mut cluster, n, |c| c.copies_out = 4);
    }
    let leaving = Holder { leaving: true, ..holder(2, "c") };
    let mut ask = question(vec![holder(0, "a"), holder(1, "b"), leaving]);
    ask.facts.toward = Some(server(3));
    assert!(matches!(next(&ask, &cluster), Decision::Wait(Reason::NoTarget(_))), "{:?}", next(&ask, &cluster));
    let lost = question(vec![Holder { health: Health::Dead, ..holder(0, "a") }]);
    assert_eq!(next(&lost, &cluster), Decision::Wait(Reason::NoReplica));
    let short = question(vec![holder(0, "a"), holder(1, "b")]);
    assert!(matches!(next(&short, &cluster), Decision::Wait(Reason::NoTarget(_) | Reason::SourcesBusy)));
}

#[test]
fn what_a_rack_lacks_is_named_with_the_rack() {
    // Three good replicas on two racks; everybody is busy, and the third rack cannot take one.
    let ask = question(vec![holder(0, "a"), holder(1, "b"), holder(3, "b")]);
    let of = |spoil: fn(&mut Candidate)| {
        let mut cluster = all_sick(cluster(&["a", "b", "c", "b", "a"]));
        change(&mut cluster, 2, spoil);
        reason(&cluster, &ask)
    };
    let (why, remedy) = of(|c| c.available_bytes = 10);
    assert!(why.contains("1 without room") && why.contains("`room` on rack c"), "{why}");
    assert!(remedy.contains("free some room") && remedy.contains("add a disk on rack c"), "{remedy}");
    let (why, remedy) = of(|c| c.health = Health::Dead);
    assert!(why.contains("`alive` on rack c") && remedy.contains("start the chunkservers that are down on rack c"));
    let (_, remedy) = of(|c| c.wish = ServerWish::Draining);
    assert!(remedy.contains("end the drain or the maintenance on rack c"), "{remedy}");
    // A rack whose servers never registered with this leader.
    let mut gone = cluster(&["a", "b", "c", "b"]);
    gone.candidates.retain(|c| c.rack != "c");
    assert!(reason(&gone, &ask).1.contains("start the chunkservers that are down on rack c"));
    // A replica is missing, and nobody has room.
    let mut full = all_sick(cluster(&["a", "b", "c", "a"]));
    change(&mut full, 2, |c| c.available_bytes = 10);
    change(&mut full, 3, |c| c.health = Health::Dead);
    let (why, remedy) = reason(&full, &question(vec![holder(0, "a"), holder(1, "b")]));
    assert!(why.contains("`room` on rack c") && remedy.contains("add a disk on rack c"), "{why} {remedy}");
}

#[test]
fn a_server_that_is_taken_in_need_is_shown_as_taken_and_why() {
    let cluster = all_sick(cluster(&["a", "b", "c"]));
    let explained = explained(&question(vec![holder(0, "a"), holder(1, "b")]), &cluster, &Policy::default());
    assert!(matches!(explained.decision, Decision::Copy { target, .. } if target == server(2)));
    let chosen = explained.targets.iter().find(|t| t.server == server(2)).unwrap();
    let healthy = chosen.filters.iter().find(|met| met.filter == Filter::Healthy).unwrap();
    assert!(chosen.rejected.is_none() && healthy.passed && healthy.value.contains("100 % busy"), "{chosen:?}");
}
