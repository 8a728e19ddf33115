//! A group of masters: growing it, losing its leader, handing over, shrinking it.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use quarry_tests::{
    Cluster, Options, cli,
    cluster::Server,
    data,
    group::{at, leader, masters},
    process::binary,
    wait,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn three() -> Cluster {
    Cluster::start(&Options { masters: 3, ..Options::default() })
}

#[test]
fn a_group_grows_hands_over_and_shrinks() {
    let mut cluster = three();
    let first = cluster.master.address.clone();
    let all = masters(&cluster);
    let roles: Vec<&str> = all.iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles, ["leader", "follower", "follower"]);
    for (master, id) in all.iter().zip(1..) {
        assert_eq!((&master["id"], &master["reachable"]), (&id.into(), &true.into()), "{master}");
        assert!(master["applied"].as_u64() > Some(0) && master["last_log"].as_u64() > Some(0), "{master}");
    }
    cluster.put("/a", &[], b"before");
    // Twice is as good as once.
    let second = cluster.others[0].address.clone();
    cluster.quarry(&["masters", "add", &second]).ok();
    cluster.quarry(&["masters", "transfer-leader", "m3"]).ok();
    assert_eq!(leader(&cluster), cluster.others[1].address);
    cluster.put("/b", &[], b"after");
    cluster.quarry(&["masters", "step-down"]).ok();
    assert_ne!(leader(&cluster), cluster.others[1].address);
    // Whoever leads is not removed; any other is, and stays out.
    let leads = leader(&cluster);
    let refused = cluster.quarry(&["masters", "remove", &leads]);
    assert!(refused.code != 0 && refused.stderr.contains("step-down"), "{}", refused.stderr);
    let gone = if leads == second { first } else { second };
    cluster.quarry(&["masters", "remove", &gone]).ok();
    cluster.quarry(&["masters", "remove", "m77"]).stderr.contains("no master m77").then_some(()).expect("it is named");
    wait::until("two masters", LIMIT, || match masters(&cluster).len() {
        2 => Ok(()),
        n => Err(n.to_string()),
    });
    let back = cluster.quarry(&["masters", "add", &gone]);
    assert!(back.code != 0 && back.stderr.contains("left it"), "{}", back.stderr);
    assert_eq!(cluster.quarry(&["cat", "/a", "/b"]).ok(), b"beforeafter");
    at(&mut cluster, &gone).kill();
}

#[test]
fn a_master_that_cannot_be_one_is_refused() {
    let cluster = Cluster::start(&Options { chunkservers: 0, ..Options::default() });
    let join = |data: &str, key: &str| {
        let mut join = Command::new(binary("quarry-master"));
        join.args(["join", "--masters", &cluster.masters, "--data"]).arg(cluster.path(data));
        let out = join.arg("--key-file").arg(cluster.path(key)).output().expect("quarry-master starts");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, error) = join("new", "missing.key");
    assert!(code == Some(1) && error.contains("missing.key"), "{error}");
    let (code, error) = join("master", "cluster.key");
    assert!(code == Some(1) && error.contains("not empty"), "{error}");
    std::fs::write(cluster.path("other.key"), format!("{}\n", "ab".repeat(32))).expect("a file");
    let (code, error) = join("new", "other.key");
    assert!(code == Some(1) && error.contains("key file"), "{error}");
    assert!(!cluster.path("new").exists(), "what was refused leaves nothing behind");
    // Nobody answers there, or one that speaks otherwise.
    let refused = cluster.quarry(&["masters", "add", "127.0.0.1:1", "--timeout", "3s"]);
    assert!(
        refused.code == 3 && refused.stderr.contains("no master of this cluster answers at 127.0.0.1:1"),
        "{}",
        refused.stderr
    );
    let refused = cluster.quarry(&["masters", "add", "0.0.0.0:9400"]);
    assert!(refused.code == 2 && refused.stderr.contains("the others reach it"), "{}", refused.stderr);
    // One that does not run is not let in by its directory, and makes nobody wait.
    let (code, error) = join("second", "cluster.key");
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(masters(&cluster).len(), 1);
    // The only master hands over to nobody, and stays.
    let refused = cluster.quarry(&["masters", "step-down"]);
    assert!(refused.code != 0 && refused.stderr.contains("no other master"), "{}", refused.stderr);
    cluster.quarry(&["mkdir", "/d"]).ok();
}

/// Puts and gets without an end, until told; how many of each, and every failure.
fn work(masters: &str, stop: &AtomicBool, file: &str, bytes: &[u8]) -> (u32, Vec<String>) {
    let (mut rounds, mut failures) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let put = cli::run_with_input(masters, &["put", "--overwrite", "-", file], bytes);
        let get = cli::run(masters, &["cat", file]);
        if put.code != 0 {
            failures.push(put.stderr);
        } else if get.code != 0 || get.stdout != bytes {
            failures.push(format!("{} bytes, {}", get.stdout.len(), get.stderr));
        }
        rounds += 1;
    }
    (rounds, failures)
}

#[test]
fn s1_s4_clients_notice_nothing_when_the_leader_is_killed_frozen_or_replaced() {
    let mut cluster = three();
    let (stop, masters, bytes) = (AtomicBool::new(false), cluster.masters.clone(), data::bytes(3, 1 << 20));
    let work = |file: &'static str| {
        let (stop, masters, bytes) = (&stop, &masters, &bytes);
        move || work(masters, stop, file, bytes)
    };
    thread::scope(|scope| {
        let workers = [scope.spawn(work("/one")), scope.spawn(work("/two"))];
        // Whatever fails here must let them end.
        let hurt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..2 {
                let old = leader(&cluster);
                at(&mut cluster, &old).kill();
                let new = leader(&cluster);
                assert_ne!(new, old);
                at(&mut cluster, &old).restart();
            }
            let frozen = leader(&cluster);
            at(&mut cluster, &frozen).process().signal(Signal::SIGSTOP);
            let new = leader(&cluster);
            assert_ne!(new, frozen);
            at(&mut cluster, &frozen).process().signal(Signal::SIGCONT);
            cluster.quarry(&["masters", "step-down"]).ok();
            assert_ne!(leader(&cluster), new);
        }));
        stop.store(true, Ordering::Relaxed);
        let done = workers.map(|worker| worker.join().expect("a worker ends"));
        hurt.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for (rounds, failures) in done {
            assert!(failures.is_empty(), "{failures:?}");
            assert!(rounds > 2, "{rounds} rounds");
        }
    });
}

/// A leader that stands still says nothing of it: chunkservers ask the others before they give it up for its silence.
#[test]
fn s8_chunkservers_find_the_next_leader_when_the_present_one_stands_still() {
    let mut cluster = three();
    let leads = leader(&cluster);
    at(&mut cluster, &leads).process().signal(Signal::SIGSTOP);
    wait::until("all chunkservers to hear of another leader", LIMIT, || {
        let heard = |server: &&Server| server.log().contains("the master answers no beats, and 127.0.0.1:");
        let count = cluster.servers.iter().filter(heard).count();
        if count == cluster.servers.len() { Ok(()) } else { Err(format!("{count} have")) }
    });
    cluster.put("/meanwhile", &[], b"written");
    at(&mut cluster, &leads).process().signal(Signal::SIGCONT);
    assert_eq!(cluster.quarry(&["cat", "/meanwhile"]).ok(), b"written");
}

#[test]
fn s1_what_was_acknowledged_is_there_when_all_masters_were_killed_at_once() {
    let mut cluster = three();
    let names: Vec<String> = (0..20).map(|n| format!("/f{n}")).collect();
    for name in &names {
        cluster.put(name, &[], name.as_bytes());
    }
    let Cluster { master, others, .. } = &mut cluster;
    let mut all: Vec<&mut Server> = [master].into_iter().chain(others).collect();
    all.iter_mut().for_each(|master| master.kill());
    all.iter_mut().for_each(|master| master.restart());
    let _somebody = leader(&cluster);
    cluster.wait_alive(3);
    for name in &names {
        assert_eq!(cluster.quarry(&["cat", name]).ok(), name.as_bytes());
    }
}

#[test]
fn s11_a_master_whose_disk_was_wiped_comes_back_under_a_new_number_only() {
    let mut cluster = three();
    cluster.put("/a", &[], b"kept");
    let lost = cluster.others[1].address.clone();
    at(&mut cluster, &lost).kill();
    let data = cluster.others[1].data.clone();
    std::fs::remove_dir_all(&data).expect("its disk is wiped");
    let run = Command::new(binary("quarry-master"))
        .args(["run", "--listen", "127.0.0.1:0", "--http", "none", "--data"])
        .arg(&data)
        .output()
        .expect("quarry-master starts");
    assert_eq!(run.status.code(), Some(1), "an empty directory is no master");
    let join = Command::new(binary("quarry-master"))
        .args(["join", "--masters", &cluster.masters, "--data"])
        .arg(&data)
        .arg("--key-file")
        .arg(cluster.path("cluster.key"))
        .output()
        .expect("quarry-master starts");
    assert!(join.status.success(), "{}", String::from_utf8_lossy(&join.stderr));
    at(&mut cluster, &lost).restart();
    cluster.quarry(&["masters", "add", &lost]).ok();
    cluster.quarry(&["masters", "remove", "m3"]).ok();
    let ids = |all: &[Value]| all.iter().filter_map(|m| m["id"].as_u64()).collect::<Vec<_>>();
    assert_eq!(ids(&masters(&cluster)), [1, 2, 4]);
    // It counts: with another one gone the group goes on.
    let leads = leader(&cluster);
    at(&mut cluster, &leads).kill();
    assert_ne!(leader(&cluster), leads);
    assert_eq!(cluster.quarry(&["cat", "/a"]).ok(), b"kept");
}
