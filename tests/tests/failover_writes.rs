//! Leaders fail while bytes are written, copied and dropped: what was acknowledged is there, on as many disks as before.
//!
//! In each round a chunkserver is killed, so that repair is under way, then the leader is hurt, then both come back, so that
//! surplus is dropped while commands of two leaders may be on their way.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_WRITE_FAILOVERS` | how many leaders are hurt | 6 |
//! | `QUARRY_PAUSED_DELETIONS` | how many leaders are paused in a deletion | 6 |
//! | `QUARRY_WRITE_FAILOVERS_SEED` | which, how, and what is written | 7 |

mod failover_writes {
    pub mod disks;
    pub mod writers;
}
#[path = "linear/nemesis.rs"]
mod nemesis;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use failover_writes::{
    disks::Disks,
    writers::{Appender, Putter, Written, client},
};
use nemesis::{CUTS, Kind, Nemesis, SIGNALS};
use quarry_tests::{Cluster, Options, cli, data, network::Network, skipped, wait};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Runtime;

const PUTTERS: u64 = 2;
const APPENDERS: u64 = 2;
const LIMIT: Duration = Duration::from_secs(120);
/// A leader is paused within so many microseconds from the start of a client that asks it for a deletion.
const MOMENTS: u64 = 30_000;
/// By chance within so many of them.
const STEP: u64 = 3_000;

/// A cluster that repairs and drops at once, and a network if this machine has one for us.
fn cluster() -> (Cluster, Option<Network>) {
    let settings = ["repair-delay=1s", "trash=0s", "reader-grace=1s"].map(String::from).to_vec();
    let mut options = Options { masters: 3, chunkservers: 5, racks: 5, settings, ..Options::default() };
    // What is on the disks is looked at past every process, and only files can be.
    options.chunkserver_args = ["--small-chunks", "none"].map(String::from).to_vec();
    let network = match Network::new(options.masters) {
        Ok(network) => Some(network),
        Err(why) => {
            skipped("cutting leaders off", &why);
            None
        }
    };
    if let Some(network) = &network {
        options = options.masters_on(network);
    }
    (Cluster::start(&options), network)
}

/// Waits until every writer has had something acknowledged since.
fn wait_written(written: &[Arc<Written>], what: &str) {
    let before: Vec<u64> = written.iter().map(|w| w.acknowledged()).collect();
    wait::until(what, LIMIT, || {
        let now: Vec<u64> = written.iter().map(|w| w.acknowledged()).collect();
        let all = now.iter().zip(&before).all(|(now, before)| now > before);
        if all { Ok(()) } else { Err(format!("from {before:?} to {now:?} acknowledged")) }
    });
}

/// A chunkserver and the leader are hurt, one after the other, and come back.
fn round(nemesis: &mut Nemesis<'_>, written: &[Arc<Written>], victim: usize, kind: Kind) {
    wait_written(written, "the writers to write");
    nemesis.cluster.servers[victim].kill();
    nemesis.cluster.wait_state(victim, "dead", LIMIT);
    let old = nemesis.leader();
    nemesis.hurt(old, kind);
    nemesis.wait_replaced(old);
    nemesis.cluster.servers[victim].restart();
    wait_written(written, "the writers to write while the old leader is away");
    nemesis.heal(old, kind);
    nemesis.leader();
    wait_written(written, "the writers to write after that");
    println!("chunkserver {victim} killed, master {old} {kind:?}");
}

#[test]
fn s1_s5_s7_what_is_written_while_leaders_fail_is_whole() {
    let rounds: usize = std::env::var("QUARRY_WRITE_FAILOVERS").map_or(6, |v| v.parse().expect("a number"));
    let seed = data::seed("QUARRY_WRITE_FAILOVERS_SEED", 7);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut cluster, network) = cluster();
    let (runtime, stop) = (Runtime::new().expect("a runtime"), Arc::new(AtomicBool::new(false)));
    let disks = Disks::watch(&cluster);
    let mut written: Vec<Arc<Written>> = Vec::new();
    let mut tasks = Vec::new();
    for id in 0..PUTTERS + APPENDERS {
        let mine = Arc::new(Written::new(id));
        let client = runtime.block_on(client(&cluster.masters, id));
        let (stop, rng) = (Arc::clone(&stop), ChaCha8Rng::seed_from_u64(seed ^ (id + 1)));
        written.push(Arc::clone(&mine));
        tasks.push(if id < PUTTERS {
            runtime.spawn(Putter::new(client, mine, rng).work(stop))
        } else {
            runtime.spawn(Appender::new(client, mine, rng).work(stop))
        });
    }
    let kinds: Vec<Kind> = SIGNALS.iter().chain(CUTS.iter().filter(|_| network.is_some())).copied().collect();
    let mut nemesis = Nemesis { cluster: &mut cluster, network: network.as_ref(), runtime: runtime.handle() };
    let mut order = Vec::new();
    for _ in 0..rounds {
        if order.is_empty() {
            order.clone_from(&kinds);
            order.shuffle(&mut rng);
        }
        let kind = order.pop().expect("it was just filled");
        let victim = rng.random_range(0..nemesis.cluster.servers.len());
        round(&mut nemesis, &written, victim, kind);
        disks.expect_none_lost();
        let kept: Vec<String> = written.iter().flat_map(|w| w.kept()).collect();
        disks.look_at(nemesis.cluster, &kept);
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).expect("a writer does not panic");
    }
    let errors: Vec<String> = written.iter().flat_map(|w| w.errors()).collect();
    assert!(errors.is_empty(), "{} errors that nobody asked for: {errors:?}", errors.len());
    let files: Vec<String> = written.iter().flat_map(|w| w.files()).collect();
    let placed = cluster.wait_whole(&files, LIMIT);
    disks.expect_none_lost();
    for mine in &written {
        mine.expect_all_there(&cluster);
    }
    println!("{} files, {} chunks, {} of them watched on the disks", files.len(), placed.len(), disks.watched());
    assert!(disks.watched() > 0, "nothing was watched");
}

/// A leader is told to empty the trash and paused at some moment of that, before or after the decision; its successor is
/// asked for the file. Whoever is told that it is back has it for good, whatever the old leader and its client do then.
#[test]
fn s6_what_a_successor_gave_back_is_not_deleted_by_a_leader_that_was_paused() {
    let rounds: usize = std::env::var("QUARRY_PAUSED_DELETIONS").map_or(6, |v| v.parse().expect("a number"));
    let seed = data::seed("QUARRY_WRITE_FAILOVERS_SEED", 7);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let settings = vec!["reader-grace=0s".into()];
    let mut cluster = Cluster::start(&Options { masters: 3, settings, ..Options::default() });
    let addresses: Vec<String> = cluster.masters.split(',').map(String::from).collect();
    let runtime = Runtime::new().expect("a runtime");
    let bytes = data::bytes(seed, 1 << 20);
    let (mut back, mut gone) = (Vec::new(), 0);
    for round in 0..rounds {
        let file = format!("/f{round}");
        cluster.put(&file, &[], &bytes);
        cluster.quarry(&["rm", &file]).ok();
        let mut nemesis = Nemesis { cluster: &mut cluster, network: None, runtime: runtime.handle() };
        let old = nemesis.leader();
        let mut emptying = cli::start(&addresses[old], &["trash", "--empty", "--timeout", "20s"]);
        // Not for anything to happen: any moment from the client's start to the answer's end will do.
        std::thread::sleep(Duration::from_micros(round as u64 * MOMENTS / rounds as u64 + rng.random_range(0..STEP)));
        nemesis.hurt(old, Kind::Stopped);
        // Or else it would ask the successor as well.
        emptying.kill().expect("a child can be killed");
        let new = nemesis.wait_replaced(old);
        let undelete = cli::run(&addresses[new], &["undelete", &file]);
        nemesis.heal(old, Kind::Stopped);
        nemesis.leader();
        emptying.wait().expect("a killed child ends");
        match undelete.code {
            0 => back.push(file),
            _ => {
                assert!(undelete.stderr.contains("not in the trash"), "{}", undelete.stderr);
                gone += 1;
            }
        }
    }
    println!("{} files given back, {gone} deleted before", back.len());
    let wanted = back.len() * 3;
    wait::until("only the chunks of what was given back to be there", LIMIT, || match cluster.chunk_files().len() {
        now if now == wanted => Ok(()),
        now => Err(format!("{now} chunk files, and {wanted} belong to files")),
    });
    for file in &back {
        assert_eq!(cluster.quarry(&["cat", file]).ok(), bytes, "{file}");
    }
    assert!(!back.is_empty(), "no pause came before the decision; take another seed");
}
