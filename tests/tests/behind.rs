//! A master that was away for long is sent a snapshot, while clients go on.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_BEHIND` | operations that it misses | 60,000 |
//!
//! With 1,000,000 it takes about a quarter of an hour: more than a test may unless it is run with `--profile long`.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quarry_client::{Client, ClientConfig};
use quarry_env::{World, kv::NoKv};
use quarry_tests::{Cluster, Options, cli, wait};
use tokio::{runtime::Runtime, task::JoinSet};

/// Operations under way at once.
const WORKERS: u64 = 64;
/// Clients that they belong to.
const CLIENTS: u64 = 4;
/// Directories that a worker keeps: it removes the oldest for each one that it makes beyond these.
const KEPT: u64 = 50;
/// What the leader may take, in bytes, however far behind the other one is.
const MEMORY_MAX: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// What the workers have in common.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    /// How long each operation took since these were taken last.
    took: Mutex<Vec<Duration>>,
}

impl Load {
    async fn timed<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<(), E> {
        let start = Instant::now();
        operation.await?;
        self.took.lock().expect("nobody panics with it").push(start.elapsed());
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Median, 99th percentile and maximum since the last call.
    fn report(&self, what: &str, since: Instant) {
        let mut took = std::mem::take(&mut *self.took.lock().expect("nobody panics with it"));
        took.sort_unstable();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
        let (count, rate) = (took.len(), took.len() as f64 / since.elapsed().as_secs_f64());
        let worst = took.last().copied().unwrap_or_default();
        println!(
            "{what}: {count} operations, {rate:.0}/s; median {:.1?}, p99 {:.1?}, worst {worst:.1?}",
            at(0.5),
            at(0.99)
        );
    }
}

/// Makes and removes directories below `/w<id>` until told to stop; the numbers of those that are there.
async fn work(client: Client, load: Arc<Load>, id: u64) -> BTreeSet<u64> {
    let path = |n: u64| format!("/w{id}/{n}");
    client.mkdir(&format!("/w{id}"), false).await.expect("a directory for the worker");
    let mut there = BTreeSet::new();
    for n in 0.. {
        load.timed(client.mkdir(&path(n), false)).await.expect("a directory is made");
        there.insert(n);
        if let Some(old) = n.checked_sub(KEPT) {
            load.timed(client.remove(&path(old), false, true)).await.expect("a directory is removed");
            there.remove(&old);
        }
        if load.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    there
}

/// What `masters` says of the one at this address.
fn master(cluster: &Cluster, address: &str) -> serde_json::Value {
    let reply = cluster.quarry(&["masters", "--json"]).json();
    let all = reply["masters"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|m| m["address"] == address).expect("a master of this cluster")
}

fn wait_done(load: &Load, count: u64) {
    let until = load.done() + count;
    // As long as it moves it may take its time.
    let mut last = load.done();
    while last < until {
        let before = last;
        last = wait::until("the clients to go on", LIMIT, || match load.done() {
            now if now > before => Ok(now),
            now => Err(format!("{now} operations")),
        });
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_master_that_missed_many_operations_catches_up_by_a_snapshot_while_clients_go_on() {
    let missed: u64 = std::env::var("QUARRY_BEHIND").map_or(60_000, |v| v.parse().expect("a number"));
    // Not a line for each operation.
    let options =
        Options { masters: 3, chunkservers: 0, master_log: "info,openraft=warn".into(), ..Options::default() };
    let mut cluster = Cluster::start(&options);
    let (runtime, load) = (Runtime::new().expect("a runtime"), Arc::new(Load::default()));
    let mut tasks = JoinSet::new();
    for n in 0..CLIENTS {
        let config =
            ClientConfig { request_id: format!("client-{n}"), ..ClientConfig::new(cluster.masters.split(',')) };
        let client = runtime.block_on(Client::connect(World::real(Arc::new(NoKv)), config)).expect("a client");
        for id in (n..WORKERS).step_by(CLIENTS as usize) {
            let work = work(client.clone(), Arc::clone(&load), id);
            tasks.spawn_on(async move { (id, work.await) }, runtime.handle());
        }
    }
    let mut phase = Instant::now();
    let mut report = |what: &str| {
        load.report(what, phase);
        phase = Instant::now();
    };
    wait_done(&load, missed / 20);
    report("with three");
    let away = cluster.others[1].address.clone();
    cluster.others[1].kill();
    wait_done(&load, missed);
    report("with one away");
    let (before, start) = (cluster.master.process().peak_memory(), Instant::now());
    cluster.others[1].restart();
    wait::until("it to have what the leader has", LIMIT, || {
        let (leader, it) = (master(&cluster, &cluster.master.address), master(&cluster, &away));
        let (leader, it) = (leader["applied"].as_u64(), it["applied"].as_u64());
        // As far as what the leader had when it was asked just before.
        if it.is_some() && it >= leader { Ok(()) } else { Err(format!("{it:?} of {leader:?}")) }
    });
    println!("it had caught up {:.2?} after its start", start.elapsed());
    report("while it caught up");
    let peak = cluster.master.process().peak_memory();
    println!("the leader took {} MiB at most before it came back, {} MiB at most in all", before >> 20, peak >> 20);
    load.stop.store(true, Ordering::Relaxed);
    let there = runtime.block_on(tasks.join_all());
    assert!(cluster.others[1].log().contains("a snapshot arrives"), "it was sent entries one by one");
    // It has everything: it leads, and says so itself.
    cluster.quarry(&["masters", "transfer-leader", &away]).ok();
    for (id, there) in there {
        let listed = cli::run(&away, &["ls", &format!("/w{id}")]).text();
        let listed: BTreeSet<u64> = listed.lines().filter_map(|l| l.trim_end_matches('/').parse().ok()).collect();
        assert_eq!(listed, there, "/w{id}");
    }
    assert!(peak <= MEMORY_MAX, "the leader took {peak} bytes");
}
