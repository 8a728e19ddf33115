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

/// The servers that hold a file's only chunk, in order.
fn holders(cluster: &Cluster, name: &str) -> Vec<usize> {
    let mut servers = cluster.placed(name).pop().expect("a chunk");
    servers.sort_unstable();
    servers
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

/// Three servers with this many files, and an empty fourth one. Nothing is balanced by itself.
fn uneven(files: u64) -> Cluster {
    let settings = ["repair-latency=60s", "repair-delay=0", "balance-automatic=0"].map(String::from).to_vec();
    let chunkserver_args = vec!["--capacity".into(), format!("{}MiB", CAPACITY / MIB)];
    let mut cluster = Cluster::start(&Options { chunkservers: 4, settings, chunkserver_args, ..Options::default() });
    cluster.servers[3].kill();
    cluster.wait_state(3, "dead", PATIENCE);
    (0..files).for_each(|file| cluster.put(&format!("/{file}"), &[], &data::bytes(file, FILE)));
    cluster.servers[3].restart();
    cluster.wait_alive(4);
    cluster
}

#[test]
fn a_dry_run_says_what_would_move_and_moves_nothing_and_what_is_stopped_stays_stopped() {
    const SOME: u64 = 18;
    let mut cluster = uneven(SOME);
    let where_all_are =
        |cluster: &Cluster| (0..SOME).map(|file| holders(cluster, &format!("/{file}"))).collect::<Vec<_>>();
    let before = where_all_are(&cluster);
    let nothing_moves = |cluster: &Cluster| {
        let (until, copied, placed) = (Instant::now() + WATCHED / 2, copies(cluster), where_all_are(cluster));
        while Instant::now() < until {
            assert_eq!((copies(cluster), where_all_are(cluster)), (copied, placed.clone()));
        }
    };
    let fourth = cluster.servers[3].address.clone();
    let of_fourth = |reply: &serde_json::Value, what: &str| {
        let servers = reply["servers"].as_array().cloned().expect("servers");
        let fourth = servers.iter().find(|s| s["address"] == fourth.as_str()).cloned();
        fourth.expect("the fourth is one of them")[what].as_u64().expect("a number")
    };

    let planned =
        wait::until("a plan", PATIENCE, || match cluster.quarry(&["rebalance", "--dry-run", "--json"]).json() {
            plan if plan["moves_left"].as_u64().is_some_and(|moves| moves > 2) => Ok(plan),
            plan => Err(plan.to_string()),
        });
    assert_eq!(planned["running"], false);
    assert!(of_fourth(&planned, "planned_bytes") > of_fourth(&planned, "used_bytes") + 2 * FILE as u64, "{planned}");
    let said = cluster.quarry(&["rebalance", "--dry-run"]).text();
    assert!(said.contains("would even it out") && said.contains("`balance-automatic` is 0"), "{said}");
    nothing_moves(&cluster);
    assert_eq!((copies(&cluster), where_all_are(&cluster)), (0, before));

    // So slowly that it is far from its end for minutes.
    cluster.set(&["repair-rate=100kB/s", "balance-automatic=1"]);
    assert_eq!(cluster.quarry(&["rebalance", "--no-wait", "--json"]).json()["running"], true);
    wait::until("a copy", PATIENCE, || if copies(&cluster) > 0 { Ok(()) } else { Err("none".into()) });
    let stopped = cluster.quarry(&["rebalance", "--stop", "--json"]).json();
    let said = stopped["reason"].as_str().unwrap_or_default();
    assert_eq!(stopped["running"], false);
    assert!(said.contains("an operator ended it") && said.contains("`quarry settings balance-automatic=1`"), "{said}");
    wait::until("nothing to be under way", PATIENCE, || match cluster.repairs() {
        rows if rows.is_empty() => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
    cluster.set(&["repair-rate=1GB/s"]);
    nothing_moves(&cluster);
    let said = cluster.quarry(&["rebalance", "--dry-run"]).text();
    assert!(said.contains("an operator ended it"), "{said}");
    let said = cluster.quarry(&["rebalance", "--stop"]).text();
    assert!(said.contains("nothing was under way; automatic balancing is off (`balance-automatic` is 0)"), "{said}");

    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(4);
    let copied = copies(&cluster);
    wait::until("servers that reported", PATIENCE, || {
        let plan = cluster.quarry(&["rebalance", "--dry-run", "--json"]).json();
        if plan["moves_left"].as_u64().is_some_and(|moves| moves > 2) { Ok(()) } else { Err(plan.to_string()) }
    });
    nothing_moves(&cluster);
    assert_eq!(copies(&cluster), copied);
    let notices = cluster.status()["notices"].to_string();
    assert!(notices.contains("as `quarry rebalance --stop` sets it"), "{notices}");
    assert!(off_the_mean(&fills(&cluster)) > 5.0);

    let done = cluster.quarry(&["rebalance", "--json"]).json();
    assert_eq!(done["running"], false, "{done}");
    assert!(off_the_mean(&fills(&cluster)) <= 5.0, "{:?}", fills(&cluster));
    for file in 0..SOME {
        assert!(
            cluster.quarry(&["cat", &format!("/{file}")]).ok() == data::bytes(file, FILE),
            "/{file} is what was put"
        );
    }
}

#[test]
fn balancing_that_was_asked_for_outlasts_the_leader_and_its_command_waits_for_the_end() {
    let mut cluster = uneven(18);
    cluster.set(&["repair-rate=100kB/s"]);
    // How full the servers are is known from their beats.
    wait::until("something to move", PATIENCE, || {
        let plan = cluster.quarry(&["rebalance", "--dry-run", "--json"]).json();
        if plan["moves_left"].as_u64().is_some_and(|moves| moves > 2) { Ok(()) } else { Err(plan.to_string()) }
    });
    let masters = cluster.masters.clone();
    let waiting = thread::spawn(move || cli::run(&masters, &["rebalance", "--json"]));
    wait::until("a copy", PATIENCE, || if copies(&cluster) > 0 { Ok(()) } else { Err("none".into()) });
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(4);
    assert_eq!(cluster.quarry(&["rebalance", "--dry-run", "--json"]).json()["running"], true);
    cluster.set(&["repair-rate=1GB/s"]);
    let done = waiting.join().expect("the command ends").json();
    assert_eq!((&done["running"], &done["moves_left"]), (&false.into(), &0.into()), "{done}");
    assert!(off_the_mean(&fills(&cluster)) <= 5.0, "{:?}", fills(&cluster));
    // It is done: another leader does not begin again.
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(4);
    assert_eq!(cluster.quarry(&["rebalance", "--dry-run", "--json"]).json()["running"], false);
    let settings = cluster.quarry(&["settings"]).text();
    assert!(settings.contains("balance-automatic") && !settings.contains("balance-asked"), "{settings}");
}

/// The first rack has two servers, the second a smaller one, and one more that comes later: all chunks are on all racks, and the
/// second one cannot give any away.
#[test]
fn what_racks_forbid_is_not_promised_and_a_server_that_comes_ends_the_rest() {
    let settings =
        ["repair-rate=1GB/s", "repair-latency=60s", "repair-delay=0", "balance-automatic=0"].map(String::from);
    let capacity = |mib: u32| vec!["--capacity".to_owned(), format!("{mib}MiB")];
    let mut cluster = Cluster::start(&Options {
        chunkservers: 5,
        racks: 3,
        settings: settings.to_vec(),
        args_of: [640, 200, 640, 640, 640].map(capacity).to_vec(),
        ..Options::default()
    });
    cluster.servers[4].kill();
    cluster.wait_state(4, "dead", PATIENCE);
    (0..14).for_each(|file| cluster.put(&format!("/{file}"), &[], &data::bytes(file, FILE)));
    let dry_run = |cluster: &Cluster| cluster.quarry(&["rebalance", "--dry-run", "--json"]).json();
    let reason = |reply: &serde_json::Value| reply["reason"].as_str().expect("a reason").to_owned();
    let planned = wait::until("a plan", PATIENCE, || match dry_run(&cluster) {
        plan if plan["moves_left"].as_u64().is_some_and(|moves| moves > 2) => Ok(plan),
        plan => Err(plan.to_string()),
    });
    assert!(reason(&planned).contains("at most: racks"), "{planned}");

    let done = cluster.quarry(&["rebalance", "--json"]).json();
    for rests in [done, dry_run(&cluster)] {
        assert_eq!((&rests["running"], &rests["moves_left"]), (&false.into(), &0.into()), "{rests}");
        let why = reason(&rests);
        // Of the servers below the mean one has a replica already and one is on a used rack: which was met last depends on
        // where the chunks lie.
        let named = ["racks", "have replicas of the same chunks"].iter().any(|met| why.contains(met));
        assert!(why.contains("nothing more can be moved") && named, "{rests}");
        for server in rests["servers"].as_array().expect("servers") {
            assert_eq!(server["planned_bytes"], server["used_bytes"], "{rests}");
        }
    }
    cluster.set(&["balance-automatic=1"]);
    assert!(reason(&dry_run(&cluster)).contains("nothing more can be moved"));
    cluster.servers[4].restart();
    cluster.wait_alive(5);
    wait::until("moves to the server that came", PATIENCE, || match cluster.master.log() {
        log if log.contains("balancing rests no longer") && log.contains("copy starts") => Ok(()),
        _ => Err(dry_run(&cluster).to_string()),
    });
}

/// A file of one chunk that takes a while to be read.
const READ_MUCH: usize = 48 * MIB;
const READERS: usize = 4;

/// Reads a file by several at once until `enough` is there.
fn read_until<T>(cluster: &Cluster, name: &str, what: &str, enough: impl FnMut() -> Result<T, String>) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            while !done.load(Ordering::Relaxed) {
                assert!(cluster.quarry(&["cat", name]).ok().len() == READ_MUCH, "{name} is as long as what was put");
            }
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        // A panic of the wait must not leave them reading.
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait::until(what, PATIENCE, enough)));
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("the file can be read all the time"));
        found.unwrap_or_else(|why| std::panic::resume_unwind(why))
    })
}

/// A cluster with a file that is read by many, and one that is not.
fn read_much(settings: &[&str], replicas: &str) -> Cluster {
    let settings = [&["repair-rate=1GB/s", "repair-latency=60s", "hot-keep=5s"], settings].concat();
    let settings = settings.into_iter().map(String::from).collect();
    let cluster = Cluster::start(&Options { chunkservers: 4, settings, ..Options::default() });
    for name in ["/much", "/little"] {
        cluster.put(name, &["--replicas", replicas], &data::bytes(1, READ_MUCH));
    }
    cluster
}

fn has(cluster: &Cluster, name: &str, replicas: usize) -> Result<(), String> {
    let held = holders(cluster, name);
    if held.len() == replicas { Ok(()) } else { Err(format!("{held:?}")) }
}

#[test]
fn a_chunk_that_many_read_at_once_has_one_more_replica_for_a_while() {
    let cluster = read_much(&["hot-reads=3"], "2");
    read_until(&cluster, "/much", "a third replica", || has(&cluster, "/much", 3));
    assert_eq!(has(&cluster, "/little", 2), Ok(()));
    wait::until("two replicas again", PATIENCE, || has(&cluster, "/much", 2));
    assert_eq!(cluster.quarry(&["cat", "/much"]).ok(), data::bytes(1, READ_MUCH));
    let _whole = cluster.wait_whole(&[], PATIENCE);
    assert_eq!((has(&cluster, "/much", 2), has(&cluster, "/little", 2)), (Ok(()), Ok(())));
}

/// So many readers alone would not do it; that their server has so much more traffic than the others does.
#[test]
fn on_a_server_with_much_more_traffic_than_the_others_fewer_readers_are_enough() {
    let cluster = read_much(&[&format!("hot-reads={}", 2 * READERS)[..]], "1");
    read_until(&cluster, "/much", "a second replica elsewhere", || has(&cluster, "/much", 2));
    assert_eq!(has(&cluster, "/little", 1), Ok(()));
    wait::until("one replica again", PATIENCE, || has(&cluster, "/much", 1));
    assert_eq!(cluster.quarry(&["cat", "/much"]).ok(), data::bytes(1, READ_MUCH));
}
