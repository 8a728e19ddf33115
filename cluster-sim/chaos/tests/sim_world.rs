//! The simulated world, a few seeds of each scenario: what CI runs. `quarry-chaos run` runs as many as one likes.
//!
//! Seeds that run twice do so each time in a process of its own, and both traces must be the same, byte by byte.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_SIM_SEED` | the first seed | 7 |
//! | `QUARRY_SIM_SEEDS` | how many seeds, counted up from there | few |

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::{collections::BTreeSet, path::Path, process::Command};

use quarry_chaos::{
    Scenario,
    seeds::{difference, run_one, run_twice},
};

/// The program that runs a seed.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_quarry-chaos"))
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// As many seeds as asked for, or `few`.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let first = number("QUARRY_SIM_SEED", 7);
    first..first + number("QUARRY_SIM_SEEDS", few)
}

/// Runs a seed twice; the runs must not differ in anything. Returns the trace.
fn twice(scenario: Scenario, seed: u64) -> String {
    run_twice(program(), scenario, seed).unwrap_or_else(|failed| panic!("{failed}"))
}

#[test]
fn a_put_survives_a_crash_and_two_runs_of_a_seed_are_byte_identical() {
    let mut traces = BTreeSet::new();
    for seed in seeds(3) {
        let trace = twice(Scenario::Put, seed);
        for target in [quarry_env_sim::net::TRACE, quarry_env_sim::disk::TRACE] {
            let events = trace.lines().filter(|line| line.contains(target)).count();
            assert!(events > 500, "seed {seed}: the trace holds only {events} events of {target}");
        }
        assert!(traces.insert(trace), "seed {seed} decides nothing");
    }
    // What compares the runs would see that they are not the same.
    let mut different = traces.iter();
    let (one, other) = (different.next().expect("a trace"), different.next().expect("another one"));
    assert!(difference(one, other).is_some());
}

/// A run that takes something from outside its seed is found out: here the time of day in its trace.
#[test]
fn a_run_that_does_not_follow_from_its_seed_alone_is_noticed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |name: &str, bias: &str| {
        let path = dir.path().join(name);
        let output = Command::new(program())
            .args(["seed", "--scenario", "put", "--seed", "7", "--trace"])
            .arg(&path)
            .env("QUARRY_CHAOS_BIAS_MS", bias)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(&path).expect("the run left its trace")
    };
    let (one, other) = (run("one", "0"), run("other", "1"));
    assert!(difference(&one, &other).is_some(), "a clock that is off by a millisecond shows nowhere");
}

#[test]
fn s1_what_was_acknowledged_survives_whatever_fails() {
    for seed in seeds(3) {
        twice(Scenario::Work, seed);
    }
}

#[test]
fn s7_no_drop_is_one_too_many_and_in_the_end_everything_is_where_it_should_be() {
    let mut cancelled = 0;
    for seed in seeds(3) {
        let trace = twice(Scenario::Repair, seed);
        cancelled += trace.lines().filter(|line| line.contains("is not needed any more and is cancelled")).count();
    }
    assert!(cancelled > 0, "no server that came back made a copy needless");
}

#[test]
fn every_rule_holds_whatever_a_seed_picks() {
    // One of them twice: three masters, too, follow from their seed alone.
    let mut three = 0;
    for (n, seed) in seeds(4).enumerate() {
        if n == 0 {
            let trace = twice(Scenario::Any, seed);
            three += usize::from(trace.contains(" master3 "));
        } else {
            run_one(program(), Scenario::Any, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
        }
    }
    assert_eq!(three, 1, "the first seed has one master only: choose another one to run twice");
}

#[test]
fn s1_a_flush_does_not_rest_on_a_single_replica() {
    for seed in seeds(3) {
        run_one(program(), Scenario::Flush, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn s4_a_leader_that_was_deposed_answers_nothing_from_what_it_has() {
    for seed in seeds(3) {
        run_one(program(), Scenario::Deposed, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn s1_a_put_whose_lease_ran_out_is_not_completed() {
    for seed in seeds(2) {
        run_one(program(), Scenario::Lapsed, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn s11_an_old_image_never_cuts_off_what_was_flushed() {
    // With no start since the image, with one, and with two.
    for seed in seeds(9).step_by(3) {
        run_one(program(), Scenario::Image, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn a_failure_prints_the_line_that_repeats_it() {
    let missing = Path::new("/nowhere/quarry-chaos");
    let failed = run_one(missing, Scenario::Repair, 41, None).expect_err("it is not there");
    assert!(failed.to_string().contains("quarry-chaos replay --scenario repair --seed 41"), "{failed}");
    let output = Command::new(program()).args(["run", "--seeds", "9..3"]).output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("1..1000"), "it says how seeds are written");
}

#[test]
fn a_replay_shows_what_each_machine_did() {
    let output =
        Command::new(program()).args(["replay", "--scenario", "put", "--seed", "7"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for machine in ["master", "chunk1", "chunk2", "chunk3", "client"] {
        let lines = said.lines().filter(|line| line.split_whitespace().nth(1) == Some(machine)).count();
        assert!(lines > 0, "{machine} did nothing:\n{said}");
    }
    assert!(said.contains("every rule held"));
}
