//! What a decision and the ledger cost at the sizes that Quarry is made for: `cargo bench -p quarry-master-core`.
//!
//! One run prints every figure with its ratio to the smallest size, and fails where a tick would walk all chunks.

#![allow(clippy::disallowed_methods, reason = "it measures how long pure functions take, and nothing depends on it")]
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "it must stop where an assumption is wrong")]

use std::{hint::black_box, time::Duration, time::Instant};

use quarry_master_core::{
    command::ServerWish,
    detector::Health,
    placement::{Candidate, filter::Tally, score},
    repair::{
        ChunkFacts, Cluster, Decision, Holder, Need, Policy, Quality, Queue, Reason, assess, decide,
        decide::{Question, explained},
    },
};
use quarry_types::{ChunkId, Crc32, ServerId, limits::CHUNK_BYTES};

/// Servers in the cluster.
const SERVERS: [u64; 3] = [100, 1_000, 10_000];
const SERVERS_PER_RACK: u64 = 20;
/// Chunks in the ledger.
const CHUNKS: [u64; 3] = [10_000, 1_000_000, 10_000_000];
/// Calls that are measured together, and how often: the figure is the median, which other work on the machine moves little.
const CALLS: u64 = 20;
const RUNS: usize = 101;
/// What a leader decides about in one tick.
const DECISIONS: usize = 64;
const TICKS: u64 = 100;
/// A tick may look at no more entries, however many there are.
const VISITS_MAX: u64 = 2_500;

fn main() {
    let mut table = Table::default();
    SERVERS.into_iter().for_each(|servers| decisions(&mut table, servers));
    table.print("Decisions", "servers", &SERVERS);
    let mut table = Table::default();
    CHUNKS.into_iter().for_each(|chunks| ledger(&mut table, chunks));
    table.print("The ledger", "chunks", &CHUNKS);
}

/// Figures by name, one for each size.
#[derive(Default)]
struct Table(Vec<(&'static str, Vec<f64>)>);

impl Table {
    fn add(&mut self, name: &'static str, figure: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.0.push((name, vec![figure])),
        }
    }

    fn print(&self, title: &str, unit: &str, sizes: &[u64]) {
        print!("\n{title:<56}");
        sizes.iter().for_each(|size| print!("{:>26}", format!("{size} {unit}")));
        println!();
        for (name, figures) in &self.0 {
            print!("{name:<56}");
            let first = figures.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
            figures.iter().for_each(|figure| print!("{:>26}", format!("{figure:.0}  (x{:.1})", figure / first)));
            println!();
        }
    }
}

/// Nanoseconds that one call takes.
fn cost(mut call: impl FnMut(u64)) -> f64 {
    let mut n = 0;
    let mut run = || {
        let began = Instant::now();
        for _ in 0..CALLS {
            call(n);
            n += 1;
        }
        began.elapsed().as_nanos() as f64 / CALLS as f64
    };
    let mut runs: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    runs.sort_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or(0.0)
}

fn server(n: u64) -> ServerId {
    ServerId::from_random(u128::from(n))
}

fn rack(n: u64) -> String {
    format!("rack-{:04}", n / SERVERS_PER_RACK)
}

/// A number that looks like chance and is the same in each run.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn candidate(n: u64) -> Candidate {
    let free = 1_000 + mixed(n) % 8_000;
    Candidate {
        active_writes: u32::try_from(mixed(n + 1) % 50).unwrap(),
        latency_us: mixed(n + 2) % 20_000,
        cpu_percent: u32::try_from(mixed(n + 3) % 90).unwrap(),
        ..Candidate::idle(server(n), &rack(n), 10_000 * CHUNK_BYTES, free * CHUNK_BYTES)
    }
}

fn cluster(servers: u64) -> Cluster {
    let mut candidates: Vec<Candidate> = (0..servers).map(candidate).collect();
    candidates.sort_by_key(|c| c.server);
    // As the leader makes them: one after the other in memory.
    let candidates = candidates.iter().map(Candidate::clone).collect();
    let racks = (0..servers).map(rack).collect();
    Cluster { candidates, racks, brake: None, ready: true, budget: i64::MAX, held: false }
}

fn holder(n: u64) -> Holder {
    Holder {
        server: server(n),
        rack: rack(n),
        health: Health::Alive,
        wish: ServerWish::Active,
        quality: Quality::Good,
        reported: true,
        leaving: false,
        dropping: false,
    }
}

/// A chunk with replicas on so many racks.
fn question(replicas: u64) -> Question {
    let holders = (0..replicas).map(|n| holder(n * SERVERS_PER_RACK)).collect();
    let (length, crc) = (CHUNK_BYTES, Crc32(1));
    let facts = ChunkFacts { chunk: ChunkId(7), length, crc, wanted: 3, extra: 0, toward: None, holders };
    Question { facts, since: Duration::ZERO, failed: Vec::new(), now: Duration::from_secs(1000), chance: 0 }
}

fn decisions(table: &mut Table, servers: u64) {
    let (policy, whole) = (Policy::default(), cluster(servers));
    let mut deciding = |name, replicas, cluster: &Cluster, expected: fn(&Decision) -> bool| {
        let mut ask = question(replicas);
        let decided = decide(&ask, cluster, &policy).1;
        assert!(expected(&decided), "{name}: {decided:?}");
        let figure = cost(|n| {
            ask.chance = mixed(n);
            black_box(decide(black_box(&ask), black_box(cluster), black_box(&policy)));
        });
        table.add(name, figure);
    };
    deciding("a copy, ns", 2, &whole, |d| matches!(d, Decision::Copy { .. }));
    let mut busy = whole.clone();
    busy.candidates.iter_mut().for_each(|c| c.copies_in = policy.copies_in);
    deciding("none: all are busy, ns", 2, &busy, |d| matches!(d, Decision::Wait(Reason::TargetsBusy(_))));
    let mut full = whole.clone();
    full.candidates.iter_mut().for_each(|c| c.available_bytes = 0);
    deciding("none: all are full, ns", 2, &full, |d| matches!(d, Decision::Wait(Reason::NoTarget(_))));
    deciding("a surplus replica, ns", 4, &whole, |d| matches!(d, Decision::Drop { .. }));
    let ask = question(2);
    table.add(
        "what a chunk needs, ns",
        cost(|_| {
            black_box(assess(black_box(&ask.facts), whole.racks.len()));
        }),
    );
    let one = whole.candidates.first().unwrap();
    table.add(
        "one score, ns",
        cost(|_| {
            black_box(score(black_box(one), black_box(&policy.weights)));
        }),
    );
    let began = Instant::now();
    black_box(explained(&ask, &whole, &policy));
    table.add("`explain` with every term of every server, once, ns", began.elapsed().as_nanos() as f64);
}

fn need(missing: u32) -> Need {
    Need { wanted: 3, good: 3 - missing, missing, ..Need::default() }
}

/// A ledger of `chunks` chunks, as after the loss of a large part of the cluster: all miss one replica.
fn ledger(table: &mut Table, chunks: u64) {
    let mut queue = Queue::with_rows(usize::try_from(chunks).unwrap());
    let (before, began) = (resident(), Instant::now());
    for n in 0..chunks {
        // They are found server by server, not in their order.
        queue.assess(ChunkId(mixed(n)), need(1), CHUNK_BYTES, Duration::from_millis(n / 20));
    }
    table.add("a new entry, ns", began.elapsed().as_nanos() as f64 / chunks as f64);
    table.add("memory of an entry, bytes", resident().saturating_sub(before) as f64 / chunks as f64);
    let now = Duration::from_millis(chunks / 20);
    let chunk = |n: u64| ChunkId(mixed(mixed(n) % chunks));
    let unchanged = cost(|n| {
        black_box(queue.assess(chunk(n), need(1), CHUNK_BYTES, now));
    });
    table.add("an entry looked at again, ns", unchanged);
    let due = cost(|_| assert_eq!(black_box(queue.due(now, DECISIONS)).len(), DECISIONS));
    table.add("64 most endangered ones, ns", due);
    let worked = cost(|n| {
        queue.copying(chunk(n), server(1), server(2), now);
        queue.progress(chunk(n), CHUNK_BYTES / 2, now);
        queue.done(chunk(n), now);
    });
    table.add("a copy: ordered, under way, done, ns", worked);
    let waited = cost(|n| queue.wait(chunk(n), Reason::NoTarget(Tally::default()), now));
    table.add("an entry that has to wait, ns", waited);
    table.add(
        "totals and estimate, ns",
        cost(|_| {
            black_box((queue.totals().bytes_left, queue.estimate(now)));
        }),
    );
    let before = queue.visits();
    let began = Instant::now();
    // Half of the ledger waits, until one and the same moment, and then it passes.
    for n in 0..chunks / 2 {
        queue.wait(ChunkId(mixed(n)), Reason::Delay { until: now + Duration::from_secs(1) }, now);
    }
    table.add(
        "an entry that has to wait, one after the other, ns",
        began.elapsed().as_nanos() as f64 * 2.0 / chunks as f64,
    );
    assert_eq!(queue.visits(), before, "waiting looks at nothing else");
    ticks(table, &mut queue, now + Duration::from_secs(1), chunks);
}

/// No tick walks all chunks, whatever has happened before.
fn ticks(table: &mut Table, queue: &mut Queue, now: Duration, chunks: u64) {
    let (mut visits_max, mut longest) = (0, Duration::ZERO);
    for _ in 0..TICKS {
        let (visits, began) = (queue.visits(), Instant::now());
        queue.unblock(DECISIONS);
        for chunk in queue.due(now, DECISIONS) {
            queue.wait(chunk, Reason::NoTarget(Tally::default()), now);
        }
        (visits_max, longest) = (visits_max.max(queue.visits() - visits), longest.max(began.elapsed()));
    }
    table.add("most entries visited in a tick", visits_max as f64);
    table.add("longest tick, ns", longest.as_nanos() as f64);
    assert!(visits_max <= VISITS_MAX, "a tick visited {visits_max} of {chunks} entries");
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}
