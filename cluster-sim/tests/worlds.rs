//! Each kind of fault does what it says, and the same seed gives the same bytes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests")]

use quarry_sim::{
    report::{Outcome, html::html},
    scenario::Scenario,
    world::World,
};

/// A small cluster, and what is added to it.
fn scenario(more: &str) -> Scenario {
    let text = format!(
        r#"
question = "?"
[run]
for = "2h"
[cluster]
racks = 5
servers = 20
disks = 2
disk = "100GB"
[data]
chunks = 2000
chunk = "64MiB"
{more}
"#
    );
    Scenario::parse("test", &text).unwrap()
}

fn run_with(seed: u64, more: &str) -> Outcome {
    let scenario = scenario(more);
    let mut world = World::new(&scenario, seed);
    world.run();
    Outcome::of(&world, "test", &scenario.question, seed)
}

fn run(more: &str) -> Outcome {
    run_with(1, more)
}

/// One event, ten minutes after the beginning.
fn event(rest: &str) -> String {
    format!("[[event]]\nat = \"10m\"\n{rest}\n")
}

const EVERYTHING: &str = r#"
[workload]
reads = "200MB/s"
writes = "20MB/s"
deletes = true
[faults]
crash = { every = "5h", lasts = "3m" }
server-loss = { every = "3d", replaced-after = "20m" }
disk-loss = { every = "3d", replaced-after = "20m" }
corruption = { every = "5h" }
rack-outage = { every = "10h", lasts = "5m" }
power-outage = { every = "1d", lasts = "5m", lost = 0.02 }
partition = { every = "10h", lasts = "5m" }
slow = { every = "10h", lasts = "5m", factor = 10 }
flapping = { every = "10h", lasts = "5m", up = "20s", down = "5s" }
[[event]]
at = "10m"
do = "drain"
target = "server:3"
"#;

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let bytes = |seed| {
        let outcome = run_with(seed, EVERYTHING);
        (serde_json::to_string(&outcome).unwrap(), html(&outcome))
    };
    let (first, again, other) = (bytes(7), bytes(7), bytes(8));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
}

#[test]
fn every_kind_of_fault_together_comes_to_an_end() {
    let outcome = run(EVERYTHING);
    assert!(outcome.faults > 20 && outcome.deaths > 0 && outcome.copies > 0 && outcome.written > 0, "{outcome:?}");
    assert!(outcome.slowdown_most > 1.0 && outcome.rotten > 0);
}

#[test]
fn without_faults_nothing_happens() {
    let outcome = run("");
    assert_eq!((outcome.faults, outcome.deaths, outcome.copies, outcome.drops, outcome.lost_chunks), (0, 0, 0, 0, 0));
    assert!(outcome.events < 100, "a cluster that is well costs nothing: {} events", outcome.events);
}

#[test]
fn a_crashed_server_is_detected_and_repaired_and_surplus_goes_when_it_is_back() {
    let outcome = run(&event("do = \"crash\"\ntarget = \"server:4\"\nlasts = \"30m\""));
    assert_eq!((outcome.deaths, outcome.detection.count, outcome.lost_chunks), (1, 1, 0));
    // Three seconds after the last beat, which came within the second before.
    assert!(outcome.detection.max >= 2.0 && outcome.detection.max <= 3.1, "{:?}", outcome.detection);
    assert!(
        outcome.copies > 250 && outcome.drops == outcome.copies,
        "{} copies, {} drops",
        outcome.copies,
        outcome.drops
    );
    assert_eq!((outcome.endangered.most, outcome.endangered.at_the_end), (outcome.copies as f64, 0));
    assert!(outcome.endangered.chunk_hours > 0.0 && outcome.single.most == 0.0);
}

#[test]
fn a_crash_that_is_over_before_the_repair_delay_copies_nothing() {
    let outcome = run(&event("do = \"crash\"\ntarget = \"server:4\"\nlasts = \"10s\""));
    assert_eq!((outcome.deaths, outcome.copies), (1, 0));
    assert!((outcome.endangered.episodes.max - 10.0).abs() < 1.0, "{:?}", outcome.endangered);
}

#[test]
fn a_lost_server_is_repaired_and_one_that_replaces_it_is_filled() {
    let outcome = run(&event("do = \"lose\"\ntarget = \"server:4\"\nlasts = \"30m\""));
    assert!(outcome.lost_chunks == 0 && outcome.endangered.at_the_end == 0 && outcome.repaired_bytes > 0);
    assert!(outcome.moved_bytes > 0, "balancing fills the new one");
}

#[test]
fn a_lost_disk_costs_its_own_replicas_only() {
    let outcome = run(&event("do = \"lose-disk\"\ntarget = \"disk:4/1\""));
    assert_eq!((outcome.deaths, outcome.lost_chunks, outcome.endangered.at_the_end), (0, 0, 0));
    assert!((100..220).contains(&outcome.copies), "half of about 300: {}", outcome.copies);
}

#[test]
fn more_servers_at_once_than_replicas_lose_chunks_and_fewer_do_not() {
    let three = [0, 1, 2].map(|n| event(&format!("do = \"lose\"\ntarget = \"server:{n}\""))).concat();
    let outcomes: Vec<Outcome> = (1..=5).map(|seed| run_with(seed, &three)).collect();
    // Of 10 choices of three racks and 64 of servers on them one is theirs: about 3 of 2,000 chunks each time.
    let lost: u64 = outcomes.iter().map(|outcome| outcome.lost_chunks).sum();
    assert!((5..=30).contains(&lost), "{lost}");
    let unlucky = outcomes.iter().find(|outcome| outcome.lost_chunks > 0).unwrap();
    assert_eq!((unlucky.first_lost, unlucky.lost_bytes), (Some(600.0), unlucky.lost_chunks * (64 << 20)));
    let two = [0, 1].map(|n| event(&format!("do = \"lose\"\ntarget = \"server:{n}\""))).concat();
    let outcome = run(&two);
    assert_eq!(outcome.lost_chunks, 0);
    assert!(outcome.single.most > 0.0 && outcome.single.at_the_end == 0);
}

#[test]
fn rot_is_found_by_scrubbing_and_replaced() {
    let rot = (0..20).map(|n| event(&format!("do = \"corrupt\"\ntarget = \"server:{n}\""))).collect::<String>();
    let outcome = run(&format!("[model]\nscrub-period = \"1h\"\n[settings]\nrepair-delay = \"0s\"\n{rot}"));
    assert_eq!((outcome.rotten, outcome.rotten_found, outcome.lost_chunks), (20, 20, 0));
    assert_eq!((outcome.copies, outcome.endangered.at_the_end), (20, 0));
}

#[test]
fn rot_that_nobody_reads_is_not_found() {
    let outcome =
        run(&format!("[model]\nscrub-period = \"360d\"\n{}", event("do = \"corrupt\"\ntarget = \"server:4\"")));
    assert_eq!((outcome.rotten, outcome.rotten_found, outcome.copies), (1, 0, 0));
}

#[test]
fn a_rack_that_goes_is_held_by_the_brake_and_not_copied() {
    let outcome = run(&event("do = \"rack-outage\"\ntarget = \"rack:r3\"\nlasts = \"5m\""));
    assert_eq!((outcome.deaths, outcome.copies), (4, 0));
    assert!((outcome.braked - 297.0).abs() < 5.0, "{}", outcome.braked);
    let unheld = run(&format!(
        "[settings]\nbrake-hold = \"0s\"\n{}",
        event("do = \"rack-outage\"\ntarget = \"rack:r3\"\nlasts = \"5m\"")
    ));
    assert!(unheld.copies > 0 && unheld.braked == 0.0, "{}", unheld.copies);
}

#[test]
fn the_brake_ends_by_time_and_by_an_operator() {
    let outage = event("do = \"rack-outage\"\ntarget = \"rack:r3\"");
    let outcome = run(&outage);
    assert!((outcome.braked - 600.0).abs() < 5.0 && outcome.copies > 1000, "{} {}", outcome.braked, outcome.copies);
    let released = run(&format!("{outage}[[event]]\nat = \"11m\"\ndo = \"release-brake\"\n"));
    assert!((released.braked - 57.0).abs() < 5.0 && released.copies > 1000, "{}", released.braked);
}

#[test]
fn a_power_outage_makes_everything_unreadable_and_nothing_is_lost() {
    let outcome = run(&event("do = \"power-outage\"\nlasts = \"5m\""));
    assert_eq!((outcome.deaths, outcome.lost_chunks, outcome.copies), (20, 0, 0));
    assert!((outcome.unavailable.most - 2000.0).abs() < 0.5 && outcome.unavailable.at_the_end == 0);
}

#[test]
fn a_server_that_only_its_peers_reach_is_partitioned_and_not_repaired() {
    let outcome = run(&event("do = \"partition\"\ntarget = \"server:4\"\nlasts = \"5m\""));
    assert_eq!((outcome.partitions, outcome.deaths, outcome.copies, outcome.endangered.most), (1, 0, 0, 0.0));
    let longer = run(&event("do = \"partition\"\ntarget = \"server:4\"\nlasts = \"30m\""));
    assert_eq!((longer.partitions, longer.deaths), (1, 1), "its limit is ten minutes");
    assert!(longer.copies > 250 && longer.detection.max > 590.0, "{:?}", longer.detection);
    let isolated = run(&event("do = \"isolate\"\ntarget = \"server:4\"\nlasts = \"5m\""));
    assert!(isolated.partitions == 0 && isolated.deaths == 1 && isolated.copies > 250);
}

#[test]
fn a_slow_server_slows_clients_and_repair() {
    let clients = "[workload]\nreads = \"200MB/s\"\n";
    let loss = "[[event]]\nat = \"20m\"\ndo = \"lose\"\ntarget = \"server:9\"\n";
    let plain = run(&format!("{clients}{loss}"));
    let slow =
        run(&format!("{clients}{}{loss}", event("do = \"slow\"\ntarget = \"server:4\"\nfactor = 20\nlasts = \"1h\"")));
    assert!(slow.slowdown_mean > plain.slowdown_mean * 1.1, "{} {}", slow.slowdown_mean, plain.slowdown_mean);
    assert!(slow.endangered.episodes.max > plain.endangered.episodes.max * 1.2, "{:?}", slow.endangered);
    assert_eq!(slow.endangered.at_the_end, 0);
}

#[test]
fn a_server_that_flaps_is_damped() {
    let flap = event("do = \"flap\"\ntarget = \"server:4\"\nup = \"10s\"\ndown = \"10s\"\nlasts = \"10m\"");
    let outcome = run(&flap);
    assert!(outcome.deaths >= 20 && outcome.endangered.at_the_end == 0, "{}", outcome.deaths);
    assert!(outcome.copies < 2 * 330, "its chunks are not copied each time: {}", outcome.copies);
}

#[test]
fn a_drain_empties_a_server_without_danger() {
    let scenario = scenario(&event("do = \"drain\"\ntarget = \"server:4\""));
    let mut world = World::new(&scenario, 1);
    world.run();
    assert!(world.is_draining(4) && world.servers[4].held.is_empty(), "{}", world.servers[4].held.len());
    assert!(world.measures.truth.endangered.chunks.max() == 0.0 && world.measures.moved_bytes > 0);
}

#[test]
fn rolling_restarts_copy_nothing_and_a_stop_that_is_too_long_is_repaired() {
    let roll = event("do = \"rolling-restart\"\nlasts = \"40s\"\npause = \"20s\"");
    let outcome = run(&roll);
    assert_eq!((outcome.deaths, outcome.copies, outcome.detection.count), (20, 0, 0));
    let stop = run(&event("do = \"restart\"\ntarget = \"server:4\"\nlasts = \"20m\""));
    assert!(stop.copies > 250, "a graceful stop is a maintenance for five minutes only: {}", stop.copies);
}

#[test]
fn more_bandwidth_repairs_sooner() {
    let at = |rate: &str| {
        run(&format!("[settings]\nrepair-rate = \"{rate}\"\n{}", event("do = \"lose\"\ntarget = \"server:4\"")))
    };
    let (narrow, wide) = (at("5MB/s"), at("50MB/s"));
    assert!(narrow.endangered.chunk_hours > 3.0 * wide.endangered.chunk_hours, "{:?}", narrow.endangered);
    assert_eq!(narrow.repaired_bytes, wide.repaired_bytes);
}

#[test]
fn s7_a_drain_takes_no_budget_from_what_misses_a_replica() {
    let settings =
        "[settings]\nrepair-rate-cluster = \"20MB/s\"\nrepair-delay = \"0s\"\nbalance-automatic = 0\n".to_owned();
    let lost = settings + &event("do = \"lose-disk\"\ntarget = \"disk:1/0\"");
    let alone = run(&lost);
    let drained = run(&format!("{lost}[[event]]\nat = \"9m\"\ndo = \"drain\"\ntarget = \"server:0\"\n"));
    let (alone, drained) = (alone.endangered, drained.endangered);
    assert!(alone.chunk_hours > 1.0 && drained.chunk_hours < 1.3 * alone.chunk_hours, "{alone:?} {drained:?}");
}

#[test]
fn the_books_of_a_world_agree_with_one_another_after_everything() {
    let scenario = scenario(EVERYTHING);
    let mut world = World::new(&scenario, 3);
    world.run();
    let mut used = vec![0u64; world.servers.len()];
    let (mut held, mut chunks) = (0, 0);
    for chunk in 0..world.chunks.rows() {
        let holders = world.holders(chunk);
        chunks += u64::from(!holders.is_empty());
        held += holders.len();
        for server in holders {
            used[server as usize] += world.chunks.length(chunk);
            assert!(world.servers[server as usize].held.contains(&chunk));
        }
    }
    assert_eq!(held, world.servers.iter().map(|server| server.held.len()).sum::<usize>());
    assert_eq!(chunks, world.chunks.count());
    for (server, used) in world.servers.iter().zip(used) {
        assert_eq!(server.disks.iter().map(|disk| disk.used).sum::<u64>(), used, "server {}", server.name);
    }
}
