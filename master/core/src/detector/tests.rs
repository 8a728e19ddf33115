use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_silent_server_is_suspect_and_then_dead() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    assert_eq!(detector.state(server, ms(0)), Health::Dead, "never heard of");
    detector.beat(server, ms(10_000));
    for (at, health) in [(11_499, Health::Alive), (11_500, Health::Suspect), (13_000, Health::Dead)] {
        assert_eq!(detector.state(server, ms(at)), health, "at {at}");
    }
    assert_eq!(detector.next_deadline(ms(10_000)), Some(ms(11_500)));
    assert_eq!(detector.next_deadline(ms(11_500)), Some(ms(11_500)), "it is to be looked for");
    detector.searches(ms(11_500), 0);
    assert_eq!(detector.next_deadline(ms(11_500)), Some(ms(12_500)));
    detector.searches(ms(12_500), 0);
    assert_eq!(detector.next_deadline(ms(12_500)), Some(ms(13_000)));
    assert_eq!(detector.next_deadline(ms(13_000)), None);
    detector.beat(server, ms(14_000));
    assert_eq!(detector.state(server, ms(14_000)), Health::Alive);
    detector.beat(server, ms(12_000));
    assert_eq!(detector.silent(server, ms(14_000)), Some(ms(0)), "a late beat does not turn time back");
}

#[test]
fn each_change_is_told_once() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.beat(server, ms(0));
    let change = |from, to| vec![HealthChange { server, from, to }];
    assert_eq!(detector.changes(ms(0)), change(Health::Dead, Health::Alive));
    assert_eq!(detector.changes(ms(1000)), []);
    assert_eq!(detector.changes(ms(9000)), change(Health::Alive, Health::Dead));
    assert_eq!(detector.changes(ms(9001)), []);
}

#[test]
fn an_expected_server_has_its_time_before_a_verdict() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.expect(server, ms(100));
    assert_eq!(detector.state(server, ms(100)), Health::Suspect);
    assert_eq!(detector.state(server, ms(3099)), Health::Suspect);
    assert_eq!(detector.state(server, ms(3100)), Health::Dead);
    detector.beat(server, ms(200));
    detector.expect(server, ms(300));
    assert_eq!(detector.state(server, ms(300)), Health::Alive);
    assert_eq!(Detector::new().next_deadline(ms(0)), None);
}

#[test]
fn an_expected_servers_deadline_is_its_death() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.expect(server, ms(100));
    for at in [100, 1100, 2100, 3099] {
        detector.searches(ms(at), 0);
    }
    assert_eq!(detector.next_deadline(ms(3099)), Some(ms(3100)));
}

#[test]
fn a_server_that_said_goodbye_is_dead_until_it_beats_again() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.beat(server, ms(100));
    detector.goodbye(server);
    assert_eq!(detector.state(server, ms(100)), Health::Dead);
    detector.beat(server, ms(200));
    assert_eq!(detector.state(server, ms(200)), Health::Alive);
}

/// Beats of `of` each second from the start up to and including `to` (milliseconds).
fn beats(detector: &mut Detector, of: &[ServerId], from: u64, to: u64) {
    for at in (from..=to).step_by(1000) {
        of.iter().for_each(|server| detector.beat(*server, ms(at)));
    }
}

fn servers(count: u128) -> Vec<ServerId> {
    (0..count).map(ServerId::from_random).collect()
}

#[test]
fn a_suspect_is_looked_for_by_some_of_those_that_are_alive() {
    let (mut detector, all) = (Detector::new(), servers(9));
    beats(&mut detector, &all, 0, 0);
    beats(&mut detector, &all[1..], 1000, 1000);
    assert_eq!(detector.searches(ms(1499), 7), []);
    let searches = detector.searches(ms(1500), 7);
    assert_eq!(searches.len(), 1);
    assert_eq!((searches[0].server, searches[0].peers.len()), (all[0], PEERS));
    assert!(searches[0].peers.iter().all(|peer| all[1..].contains(peer)));
    assert_eq!(detector.searches(ms(2499), 8), []);
    beats(&mut detector, &all[1..], 2400, 2400);
    assert_eq!(detector.searches(ms(2500), 8).len(), 1, "once more before the verdict");
    beats(&mut detector, &all[1..], 3400, 3400);
    assert_eq!(detector.searches(ms(3500), 9), [], "dead is dead");
}

#[test]
fn a_server_that_its_peers_reach_is_partitioned_until_its_limit() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.policy.partitioned_limit = Duration::from_secs(60);
    detector.beat(server, ms(0));
    detector.reached(server, ms(1000));
    assert_eq!(detector.state(server, ms(3000)), Health::Dead, "it was not suspect then");
    for at in (2000..60_000).step_by(2000) {
        detector.reached(server, ms(at));
    }
    assert_eq!(detector.state(server, ms(2999)), Health::Suspect);
    assert_eq!(detector.state(server, ms(3000)), Health::Partitioned);
    assert_eq!(detector.state(server, ms(59_999)), Health::Partitioned);
    assert_eq!(detector.state(server, ms(60_000)), Health::Dead);
    detector.reached(server, ms(60_001));
    assert_eq!(detector.state(server, ms(60_001)), Health::Dead, "it stays dead until it beats");
    detector.beat(server, ms(61_000));
    assert_eq!(detector.state(server, ms(61_000)), Health::Alive);
    assert_eq!(detector.state(server, ms(64_000)), Health::Dead, "what was before its last beat says nothing");
}

#[test]
fn a_partitioned_server_that_nobody_reaches_any_more_is_dead() {
    let (mut detector, all) = (Detector::new(), servers(2));
    beats(&mut detector, &all, 0, 0);
    beats(&mut detector, &all[..1], 1000, 9000);
    detector.reached(all[1], ms(2500));
    assert_eq!(detector.searches(ms(8000), 0).len(), 1, "it is looked for as long as it is partitioned");
    assert_eq!(detector.state(all[1], ms(8499)), Health::Partitioned);
    assert_eq!(detector.next_deadline(ms(8000)), Some(ms(8500)));
    assert_eq!(detector.state(all[1], ms(8500)), Health::Dead);
    detector.reached(all[1], ms(8500));
    assert_eq!(detector.state(all[1], ms(8500)), Health::Dead);
}

#[test]
fn a_server_that_nobody_reaches_is_dead_at_its_deadline_however_often_it_was_looked_for() {
    let (mut detector, all) = (Detector::new(), servers(5));
    beats(&mut detector, &all, 0, 0);
    beats(&mut detector, &all[1..], 1000, 9000);
    (1500..3000).step_by(100).for_each(|at| drop(detector.searches(ms(at), at)));
    assert_eq!(detector.state(all[0], ms(2999)), Health::Suspect);
    assert_eq!(detector.state(all[0], ms(3000)), Health::Dead);
}

#[test]
fn a_flapping_server_counts_as_back_after_a_while_only() {
    let (mut detector, all) = (Detector::new(), servers(1));
    let server = all[0];
    for round in 0..3 {
        beats(&mut detector, &all, round * 20_000, round * 20_000 + 10_000);
        assert_eq!(detector.state(server, ms(round * 20_000 + 10_500)), Health::Alive);
        assert_eq!(detector.state(server, ms(round * 20_000 + 19_000)), Health::Dead);
    }
    beats(&mut detector, &all, 60_000, 89_000);
    assert_eq!(detector.state(server, ms(89_500)), Health::Suspect, "that was the third time");
    assert_eq!(detector.damped(server, ms(89_500)), Some(ms(500)));
    assert_eq!(detector.searches(ms(89_500), 0), [], "it beats: nobody has to look for it");
    assert_eq!(detector.next_deadline(ms(89_600)), Some(ms(90_000)));
    assert_eq!((detector.state(server, ms(90_000)), detector.damped(server, ms(90_000))), (Health::Alive, None));
}

#[test]
fn who_says_goodbye_does_not_flap() {
    let (mut detector, all) = (Detector::new(), servers(1));
    for round in 0..10 {
        beats(&mut detector, &all, round * 20_000, round * 20_000);
        assert_eq!(detector.state(all[0], ms(round * 20_000)), Health::Alive);
        detector.goodbye(all[0]);
    }
}

#[test]
fn past_beats_give_a_restless_server_more_time_where_phi_is_set() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    detector.policy.phi = 8000;
    let mut now = 0;
    for n in 0..100 {
        now += if n % 2 == 0 { 500 } else { 2500 };
        detector.beat(server, ms(now));
    }
    assert_eq!(detector.state(server, ms(now + 4000)), Health::Alive);
    assert_eq!(detector.state(server, ms(now + 60_000)), Health::Dead);
    detector.policy.phi = 0;
    detector.beat(server, ms(now + 1000));
    assert_eq!(detector.state(server, ms(now + 4000)), Health::Dead, "the setting holds from the next beat on");
}

proptest! {
    /// Whoever looks at its deadlines only misses nothing.
    #[test]
    fn nothing_changes_before_the_next_deadline(
        steps in proptest::collection::vec((0u8..4, 0u64..4000, 0usize..3), 1..60),
        phi in prop_oneof![Just(0u64), Just(8000)],
    ) {
        let (mut detector, all) = (Detector::new(), servers(3));
        detector.policy = Policy { phi, partitioned_limit: Duration::from_secs(9) };
        let mut now = 0u64;
        for (what, pause, whom) in steps {
            match what {
                0 | 1 => detector.beat(all[whom], ms(now)),
                2 => detector.reached(all[whom], ms(now)),
                _ => drop(detector.searches(ms(now), pause)),
            }
            detector.changes(ms(now));
            let until = detector.next_deadline(ms(now)).unwrap_or(Duration::MAX).min(ms(now + pause));
            for at in (now..).step_by(50).map(ms).take_while(|at| *at < until) {
                prop_assert_eq!(detector.clone().changes(at), []);
                prop_assert!(detector.clone().searches(at, 0).is_empty() || until == ms(now));
            }
            now += pause;
        }
    }

    /// Dead is left by a beat only, and partitioned is nobody whom no peer reached after its last beat.
    #[test]
    fn only_a_beat_brings_a_server_back(
        steps in proptest::collection::vec((0u8..3, 0u64..3000), 1..80),
    ) {
        let (mut detector, all) = (Detector::new(), servers(1));
        let (mut now, mut reached, mut before) = (0, false, Health::Dead);
        for (what, pause) in steps {
            match what {
                0 => {
                    detector.beat(all[0], ms(now));
                    reached = false;
                }
                1 => {
                    detector.reached(all[0], ms(now));
                    reached = true;
                }
                _ => drop(detector.searches(ms(now), pause)),
            }
            let health = detector.state(all[0], ms(now));
            prop_assert!(before != Health::Dead || health == Health::Dead || what == 0);
            prop_assert!(health != Health::Partitioned || reached);
            now += pause;
            before = detector.state(all[0], ms(now));
        }
    }
}

proptest! {
    #[test]
    fn regular_beats_in_one_step_are_the_same_as_one_by_one(
        before in proptest::collection::vec(1u64..2900, 0..20),
        count in 0u64..300,
        phi in prop_oneof![Just(0u64), Just(8000)],
        waits in 0u64..5000,
    ) {
        let (mut each, mut at_once, server) = (Detector::new(), Detector::new(), ServerId::from_random(1));
        (each.policy.phi, at_once.policy.phi) = (phi, phi);
        let mut at = 0;
        for step in [0].iter().chain(&before) {
            at += step;
            each.beat(server, ms(at));
            at_once.beat(server, ms(at));
        }
        (1..=count).for_each(|n| each.beat(server, ms(at + 1000 * n)));
        at_once.regular_beats(server, ms(at + 1000 * count));
        at += 1000 * count;
        prop_assert_eq!(format!("{each:?}"), format!("{at_once:?}"));
        let now = ms(at + waits);
        prop_assert_eq!(each.state(server, now), at_once.state(server, now));
        prop_assert_eq!(each.next_deadline(now), at_once.next_deadline_of(server, now));
    }
}

#[test]
fn regular_beats_bring_a_server_back_and_none_is_known_that_never_beat() {
    let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
    assert_eq!(detector.next_deadline_of(server, ms(0)), None);
    detector.regular_beats(server, ms(0));
    detector.goodbye(server);
    detector.regular_beats(server, ms(5000));
    assert_eq!(detector.state(server, ms(5000)), Health::Alive);
}
