//! It heals itself, and only what is lost: servers that are cut off, stopped or gone together are told apart from dead ones.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use quarry_tests::{Cluster, Options, data, namespace::Namespace, skipped, wait};

/// Long enough for what takes seconds, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
const FILE_BYTES: usize = 300_000;
/// A put that should reach a certain server is tried so often.
const PUTS_MAX: u64 = 200;

fn options(chunkservers: usize, racks: usize, settings: &[&str]) -> Options {
    let settings = settings.iter().map(|s| (*s).to_owned()).collect();
    Options { chunkservers, racks, settings, ..Options::default() }
}

fn content(seed: u64) -> Vec<u8> {
    data::bytes(seed, FILE_BYTES)
}

/// Files of one chunk each, with this many replicas.
fn fill(cluster: &Cluster, prefix: &str, files: u64, replicas: &str) -> Vec<String> {
    let names: Vec<String> = (0..files).map(|n| format!("/{prefix}{n}")).collect();
    for (name, seed) in names.iter().zip(0..) {
        cluster.put(name, &["--replicas", replicas], &content(seed));
    }
    cluster.wait_reported();
    // A put on a busy machine may find fewer servers or racks than it wants; that is copied before the test begins.
    wait::until("every chunk to be as it should be", LIMIT, || match cluster.repairs() {
        rows if rows.is_empty() => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
    names
}

fn check(cluster: &Cluster, names: &[String]) {
    for (name, seed) in names.iter().zip(0..) {
        assert!(cluster.quarry(&["cat", name]).ok() == content(seed), "{name} is what was put");
    }
}

/// A file whose only replica is on this server, and its seed.
fn only_on(cluster: &Cluster, server: usize) -> (String, u64) {
    let put = |seed: u64| {
        let name = format!("/only{seed}");
        cluster.put(&name, &["--replicas", "1"], &content(seed));
        (name, seed)
    };
    let found = (0..PUTS_MAX).map(put).find(|(name, _)| cluster.placed(name) == [[server]]);
    found.expect("every server gets chunks")
}

/// The copies of these files' chunks that were begun so far.
fn copies(cluster: &Cluster, names: &[String]) -> Vec<String> {
    let chunks: Vec<String> = names.iter().map(|name| format!("chunk=c{} ", chunk_of(cluster, name))).collect();
    let mut lines = cluster.logged("copy starts");
    lines.retain(|line| chunks.iter().any(|chunk| line.contains(chunk)));
    lines
}

/// What the master thought of a server, from line to line of its log.
fn verdicts(cluster: &Cluster, id: &str) -> Vec<String> {
    let lines = cluster.logged("chunkserver's state");
    let of_it = lines.iter().filter(|line| line.contains(id));
    of_it.filter_map(|line| Some(line.split("to=").nth(1)?.trim_matches('"').to_owned())).collect()
}

fn id_of(cluster: &Cluster, server: usize) -> String {
    cluster.status_of(server)["id"].as_str().expect("an id").to_owned()
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address has a port")
}

fn chunk_of(cluster: &Cluster, name: &str) -> String {
    cluster.chunks(name)["chunks"][0]["id"].to_string()
}

#[test]
fn who_is_cut_off_from_the_master_only_serves_reads_and_is_not_repaired_before_its_limit() {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return skipped("a server that only its peers reach", &why),
    };
    let cluster = Cluster::start(&options(4, 4, &["repair-delay=0s"]).beside(&namespace));
    let (cut_off, master) = (3, port(&cluster.master.address));
    let id = id_of(&cluster, cut_off);
    let names = fill(&cluster, "f", 12, "3");
    let (only, seed) = only_on(&cluster, cut_off);
    let copied = copies(&cluster, &names);

    namespace.cut(master).expect("it worked before");
    wait::until("a silence long enough to be dead three times over", LIMIT, || {
        let status = cluster.status_of(cut_off);
        assert_ne!(status["state"], "dead", "its peers reach it: {:?}", cluster.logged("looked for a suspect"));
        let long = status["silent_ms"].as_u64().is_some_and(|silent| silent > 9000);
        if long && status["state"] == "partitioned" { Ok(()) } else { Err(status.to_string()) }
    });
    check(&cluster, &names);
    assert!(cluster.quarry(&["cat", &only]).ok() == content(seed), "it serves what only it has");
    cluster.put("/during", &[], &content(99));
    assert!(!cluster.placed("/during")[0].contains(&cut_off), "and gets nothing new");
    assert_eq!(cluster.state_of(cut_off), "partitioned");
    namespace.mend().expect("it worked before");
    cluster.wait_state(cut_off, "alive", LIMIT);
    assert_eq!(copies(&cluster, &names), copied);
    assert_eq!(verdicts(&cluster, &id).iter().filter(|word| *word == "dead").count(), 0);

    cluster.set(&["partitioned-limit=8s"]);
    namespace.cut(master).expect("it worked before");
    cluster.wait_state(cut_off, "dead", LIMIT);
    let verdicts = verdicts(&cluster, &id);
    assert_eq!(verdicts[verdicts.len() - 2..], ["partitioned", "dead"], "{verdicts:?}");
    wait::until("three replicas of every chunk beside it", LIMIT, || {
        let placed: Vec<_> = names.iter().flat_map(|name| cluster.placed(name)).collect();
        let whole = placed.iter().all(|servers| servers.len() == 3 && !servers.contains(&cut_off));
        if whole { Ok(()) } else { Err(format!("{placed:?}")) }
    });
    wait::until("its own chunk to count as lost", LIMIT, || match cluster.status()["totals"].clone() {
        totals if totals["missing"] == 1 => Ok(()),
        totals => Err(totals.to_string()),
    });
    assert!(copies(&cluster, &names).len() > copied.len());
    namespace.mend().expect("it worked before");
    cluster.wait_state(cut_off, "alive", LIMIT);
    assert!(cluster.quarry(&["cat", &only]).ok() == content(seed), "what it has was only away");
    check(&cluster, &names);
}

#[test]
fn a_rack_that_goes_at_once_is_not_copied_but_what_has_one_replica_left_is_until_an_operator_lets_it_go() {
    let mut cluster = Cluster::start(&options(6, 3, &["repair-delay=5s"]));
    let rack = [0, 3];
    let (three, mut two) = (fill(&cluster, "three", 12, "3"), fill(&cluster, "two", 12, "2"));
    let copied = copies(&cluster, &three);
    let hit = |names: &[String]| names.iter().filter(|n| cluster.placed(n)[0].iter().any(|s| rack.contains(s))).count();
    assert_eq!(hit(&three), three.len(), "a replica on each rack");
    // Servers that have much to do for a moment get nothing new meanwhile, on this machine perhaps the whole rack.
    let mut again = 0;
    wait::until("one of two replicas in the rack", LIMIT, || {
        if hit(&two) > 0 {
            return Ok(());
        }
        again += 1;
        two = fill(&cluster, &format!("two-{again}-"), 12, "2");
        Err(format!("none of them, {again} times"))
    });
    rack.iter().for_each(|server| cluster.servers[*server].kill());
    rack.iter().for_each(|server| cluster.wait_state(*server, "dead", LIMIT));

    wait::until("two replicas of all that had one left", LIMIT, || {
        let placed: Vec<_> = two.iter().flat_map(|name| cluster.placed(name)).collect();
        if placed.iter().all(|servers| servers.len() == 2) { Ok(()) } else { Err(format!("{placed:?}")) }
    });
    let held = wait::until("the others to miss theirs for longer than the delay", LIMIT, || {
        let rows: Vec<_> = cluster.repairs().into_iter().filter(|row| row["missing"] != 0).collect();
        let long = rows.iter().all(|row| row["since_ms"].as_u64().is_some_and(|since| since > 9000));
        if rows.len() == three.len() && long {
            Ok(rows)
        } else {
            Err(format!("{} rows: {:?}", rows.len(), rows.first()))
        }
    });
    for row in &held {
        assert_eq!((row["state"].as_str(), row["good"].as_u64()), (Some("held"), Some(2)), "{row}");
        assert!(row["reason"].to_string().contains("all 2 chunkservers of rack r0 went at once"), "{row}");
    }
    assert_eq!(copies(&cluster, &three), copied);
    let said = [
        cluster.quarry(&["status"]).text(),
        cluster.quarry(&["repairs"]).text(),
        cluster.quarry(&["explain", "chunk", &chunk_of(&cluster, &three[0])]).text(),
    ];
    for text in said {
        assert!(text.contains("rack r0 went at once") && text.contains("--release-brake"), "{text}");
    }

    cluster.quarry(&["repairs", "--release-brake"]).ok();
    wait::until("three replicas of every chunk", LIMIT, || {
        let placed: Vec<_> = three.iter().flat_map(|name| cluster.placed(name)).collect();
        if placed.iter().all(|servers| servers.len() == 3) { Ok(()) } else { Err(format!("{placed:?}")) }
    });
    assert!(!cluster.quarry(&["status"]).text().contains("repair holds"));
    check(&cluster, &three);
    check(&cluster, &two);
}

/// Beats have no setting: so long it would take to declare everybody dead six times.
const STOPPED: Duration = Duration::from_secs(20);

#[test]
fn s10_the_time_in_which_the_master_was_stopped_speaks_against_no_chunkserver() {
    let mut cluster = Cluster::start(&options(4, 4, &["repair-delay=0s"]));
    let names = fill(&cluster, "f", 12, "3");
    let copied = copies(&cluster, &names);
    let before = cluster.logged("chunkserver's state").len();
    cluster.master.process().signal(Signal::SIGSTOP);
    // What passes is what is tested.
    thread::sleep(STOPPED);
    cluster.master.process().signal(Signal::SIGCONT);
    let ids: Vec<String> = (0..4).map(|server| id_of(&cluster, server)).collect();
    // Whoever has beaten for a while was judged by what it beat since.
    cluster.wait_alive(4);
    cluster.put("/after", &[], &content(99));
    check(&cluster, &names);
    cluster.wait_alive(4);
    let since = cluster.logged("chunkserver's state").split_off(before);
    let bad = |line: &&String| line.contains("to=\"dead\"") || line.contains("to=\"partitioned\"");
    assert_eq!(since.iter().filter(bad).count(), 0, "{ids:?}: {since:?}");
    assert_eq!(copies(&cluster, &names), copied);
}

#[test]
fn a_stopped_chunkserver_whose_kernel_still_takes_connections_is_dead_and_not_partitioned() {
    let mut cluster = Cluster::start(&options(4, 4, &["repair-delay=0s"]));
    let names = fill(&cluster, "f", 12, "3");
    let id = id_of(&cluster, 0);
    let before = verdicts(&cluster, &id).len();
    cluster.servers[0].process().signal(Signal::SIGSTOP);
    cluster.wait_state(0, "dead", LIMIT);
    let placed = cluster.wait_whole(&names, LIMIT);
    assert!(placed.iter().all(|servers| servers.len() == 3 && !servers.contains(&0)), "{placed:?}");
    let verdicts = verdicts(&cluster, &id).split_off(before);
    assert!(verdicts.ends_with(&["dead".into()]) && !verdicts.contains(&"partitioned".into()), "{verdicts:?}");
    check(&cluster, &names);
    cluster.servers[0].process().signal(Signal::SIGCONT);
    cluster.wait_state(0, "alive", LIMIT);
    check(&cluster, &names);
}
