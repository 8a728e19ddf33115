//! Balancing, with real servers.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use quarry_tests::{Cluster, Options, cli, data, wait};

const PATIENCE: Duration = Duration::from_secs(90);
const MIB: usize = 1 << 20;
const CAPACITY: usize = 640 * MIB;
const FILE: usize = 8 * MIB;
/// Three replicas of so many files are 80 % of four servers' room.
const FILES: u64 = (CAPACITY * 4 / 5 * 4 / 3 / FILE) as u64;
/// For so long it is watched that nothing moves.
const WATCHED: Duration = Duration::from_secs(10);

fn state(cluster: &Cluster, server: usize) -> String {
    let status = cluster.status();
    let all = status["chunkservers"].as_array().expect("chunkservers");
    let found = all.iter().find(|s| s["address"] == cluster.servers[server].address.as_str());
    found.and_then(|s| s["state"].as_str()).unwrap_or("not known").into()
}

/// How full each server is, in percent.
fn fills(cluster: &Cluster) -> Vec<f64> {
    let status = cluster.status();
    let percent = |s: &serde_json::Value| {
        let bytes = |name: &str| s[name].as_u64().expect("a number") as f64;
        bytes("used_bytes") * 100.0 / bytes("capacity_bytes")
    };
    status["chunkservers"].as_array().expect("chunkservers").iter().map(percent).collect()
}

fn off_the_mean(fills: &[f64]) -> f64 {
    let mean = fills.iter().sum::<f64>() / fills.len() as f64;
    fills.iter().map(|fill| (fill - mean).abs()).fold(0.0, f64::max)
}

/// The servers that hold each file's chunks.
fn placed(cluster: &Cluster) -> BTreeMap<u64, Vec<String>> {
    let of = |file: u64| {
        let chunks = cluster.chunks(&format!("/{file}"));
        let replicas = chunks["chunks"][0]["replicas"].as_array().cloned().expect("replicas");
        let mut servers: Vec<String> = replicas.iter().map(|r| r["server"].to_string()).collect();
        servers.sort();
        (file, servers)
    };
    (0..FILES).map(of).collect()
}

fn copies(cluster: &Cluster) -> usize {
    cluster.master.log().lines().filter(|line| line.contains("copy starts")).count()
}

/// Reads one file after the other until `done`; how many were.
fn read_all(cluster: &Cluster, done: &AtomicBool, read: &AtomicU64) {
    for file in (0..FILES).cycle() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let bytes = cluster.quarry(&["cat", &format!("/{file}")]).ok();
        assert!(bytes == data::bytes(file, FILE), "/{file} is what was put");
        read.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn four_servers_at_80_percent_and_an_empty_one_end_even_and_then_nothing_moves() {
    let settings =
        ["repair-rate=1GB/s", "repair-latency=60s", "repair-delay=0", "balance-automatic=0"].map(String::from).to_vec();
    let chunkserver_args = vec!["--capacity".into(), format!("{}MiB", CAPACITY / MIB)];
    let mut cluster = Cluster::start(&Options { chunkservers: 5, settings, chunkserver_args, ..Options::default() });
    cluster.servers[4].kill();
    wait::until("the fifth is dead", PATIENCE, || match state(&cluster, 4).as_str() {
        "dead" => Ok(()),
        other => Err(other.to_owned()),
    });
    for file in 0..FILES {
        let bytes = data::bytes(file, FILE);
        cli::run_with_input(&cluster.master.address, &["put", "-", &format!("/{file}")], &bytes).ok();
    }
    cluster.servers[4].restart();
    cluster.wait_alive(5);
    let copied_before = copies(&cluster);
    cluster.quarry(&["settings", "balance-automatic=1"]).ok();
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&cluster, &done, &read));
        wait::until("balancing is done", PATIENCE, || {
            let log = cluster.master.log();
            let over = reader.is_finished() || log.contains("balancing is done") || log.contains("balancing rests");
            if over { Ok(()) } else { Err(format!("{:?} after {} copies", fills(&cluster), copies(&cluster))) }
        });
        done.store(true, Ordering::Relaxed);
        reader.join().expect("every file could be read all the time");
    });
    assert!(read.load(Ordering::Relaxed) > 0);
    let end = fills(&cluster);
    println!("{end:?} after {} copies, {} reads meanwhile", copies(&cluster), read.load(Ordering::Relaxed));
    assert!(off_the_mean(&end) <= 5.0, "{end:?}");

    let (copied, before) = (copies(&cluster), placed(&cluster));
    assert!(before.values().all(|servers| servers.len() == 3), "{before:?}");
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        assert_eq!(placed(&cluster), before);
        assert_eq!(copies(&cluster), copied);
    }
    // The empty one lacked a fifth of all replicas; hardly more was moved.
    let (moved, lacked) = ((copied - copied_before) as u64, FILES * 3 / 5);
    assert!(moved <= lacked * 3 / 2, "{moved} copies, and {lacked} replicas were to move");
}
