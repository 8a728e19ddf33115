//! The simulated world: a master, three chunkservers and a client in one process, on simulated network, disks, clocks
//! and chance. A seed decides everything, so that a run that failed can be had again.
//!
//! The put is the least that must hold. In the chaos two workers and a writer that dies again and again put, grow, append,
//! rename, remove and get files while power fails, processes die, disks stop and links break; what was acknowledged is
//! checked at the end. In the chaos of repair there are racks, longer absences, replicas that rot, disks that take their
//! time, leaders that change while commands are on their way, and an operator; every removal of a replica is compared with
//! the disks when it happens (`sim/books.rs`), and in the end everything must be where it should be (`sim/settled.rs`).
//! Every seed runs twice, each time in a process of its own, and both traces must be the same.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_SIM_SEED` | the first seed | 7 |
//! | `QUARRY_SIM_SEEDS` | how many seeds, counted up from there | few |
//! | `QUARRY_SIM_TRACE` | where `one_put` and the like, run by themselves, leave their trace | nowhere |

mod sim;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use quarry_tests::data;

const SEED: &str = "QUARRY_SIM_SEED";
const SEEDS: &str = "QUARRY_SIM_SEEDS";
const TRACE: &str = "QUARRY_SIM_TRACE";

/// Runs a seed of the ignored test `what` in a process of its own: what a process did before must not be able to matter.
fn run(what: &str, seed: u64, trace: &Path) -> String {
    let output = Command::new(std::env::current_exe().expect("this test has a path"))
        .args([what, "--exact", "--ignored", "--nocapture"])
        .env(SEED, seed.to_string())
        .env(TRACE, trace)
        .output()
        .expect("this test can be run");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}, seed {seed}: {}{}", said(&output.stdout), said(&output.stderr));
    std::fs::read_to_string(trace).expect("the run left its trace")
}

/// The first line in which two traces differ, with what led there.
fn difference(one: &str, other: &str) -> String {
    let (one, other): (Vec<_>, Vec<_>) = (one.lines().collect(), other.lines().collect());
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let before = one[same.saturating_sub(5)..same].join("\n");
    let at = |lines: &[&str]| lines.get(same).map_or("(the end)".to_owned(), |line| (*line).to_owned());
    format!("line {}:\n{before}\n- {}\n+ {}", same + 1, at(&one), at(&other))
}

/// As many seeds as asked for, or `few`.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let count = std::env::var(SEEDS).map_or(few, |text| text.parse().expect("a count is a number"));
    let first = data::seed(SEED, 7);
    first..first + count
}

/// Runs a seed twice; the runs must not differ in anything. Returns the trace.
fn run_twice(what: &str, seed: u64) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = run(what, seed, &dir.path().join("first"));
    let second = run(what, seed, &dir.path().join("second"));
    assert!(first == second, "{what}: two runs of seed {seed} differ at {}", difference(&first, &second));
    first
}

#[test]
fn a_put_survives_a_crash_and_two_runs_of_a_seed_are_byte_identical() {
    let mut traces = BTreeSet::new();
    for seed in seeds(3) {
        let trace = run_twice("one_put", seed);
        for target in [quarry_env_sim::net::TRACE, quarry_env_sim::disk::TRACE] {
            let events = trace.lines().filter(|line| line.contains(target)).count();
            assert!(events > 500, "seed {seed}: the trace holds only {events} events of {target}");
        }
        assert!(traces.insert(trace), "seed {seed} decides nothing");
    }
}

#[test]
fn s1_what_was_acknowledged_survives_whatever_fails() {
    for seed in seeds(3) {
        run_twice("one_chaos", seed);
    }
}

#[test]
fn s7_no_drop_is_one_too_many_and_in_the_end_everything_is_where_it_should_be() {
    let mut cancelled = 0;
    for seed in seeds(2) {
        let trace = run_twice("one_repair_chaos", seed);
        cancelled += trace.lines().filter(|line| line.contains("is not needed any more and is cancelled")).count();
    }
    assert!(cancelled > 0, "no server that came back made a copy needless");
}

#[test]
fn s1_a_flush_does_not_rest_on_a_single_replica() {
    for seed in seeds(3) {
        for gone in 0..3 {
            sim::flush_with_members_gone(seed, gone);
        }
    }
}

fn one(run: impl FnOnce(u64)) {
    let seed = data::seed(SEED, 7);
    if let Some(path) = std::env::var_os(TRACE).map(PathBuf::from) {
        sim::trace::start(&path);
    }
    run(seed);
}

#[test]
#[ignore = "run by a test above, each seed in a process of its own"]
fn one_put() {
    one(sim::put_and_get_through_a_crash);
}

#[test]
#[ignore = "run by a test above, each seed in a process of its own"]
fn one_chaos() {
    one(sim::chaos::work_through_chaos);
}

#[test]
#[ignore = "run by a test above, each seed in a process of its own"]
fn one_repair_chaos() {
    one(sim::chaos::repair_through_chaos);
}
