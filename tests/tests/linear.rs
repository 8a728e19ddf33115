//! Whatever happens to the leader, the namespace behaves as if there were one, doing one thing after another.
//!
//! Clients work on a few names while leaders are killed, stopped and cut off, one after another. What each client asked and
//! was told, and when, is then given to a checker. It looks for an order in which all answers are right: a lost write, a
//! deed done twice or a stale answer leaves none. In a round nobody works while the names are looked at, and the next round
//! has new names; at the end all names of all rounds are looked at once more.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_FAILOVERS` | how many leaders are hurt | 6 |
//! | `QUARRY_FAILOVERS_SEED` | which, how, and what the clients do | 2026 |

mod linear {
    pub mod load;
    pub mod nemesis;
}

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use linear::{
    load::{Group, Histories, Load, Worker},
    nemesis::{CUTS, Kind, Nemesis, SIGNALS},
};
use quarry_chaos::linear::history::{is_linearizable, shortest_wrong, timeline};
use quarry_tests::{Cluster, Options, data, network::Network, skipped, wait};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::{runtime::Runtime, task::JoinHandle};

const CLIENTS: usize = 6;
/// What each client does before, during and after what happens to the leader; more if that takes longer.
const DEEDS: u64 = 8;
/// For these deeds.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until each client has ended so many operations more.
fn wait_deeds(load: &Load, what: &str) {
    let before = load.ended();
    wait::until(what, LIMIT, || {
        let ended = load.ended();
        let busy = ended.iter().zip(&before).all(|(now, before)| now - before >= DEEDS);
        if busy { Ok(()) } else { Err(format!("from {before:?} to {ended:?} operations")) }
    });
}

fn join<T>(runtime: &Runtime, tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    tasks.into_iter().map(|task| runtime.block_on(task).expect("a client does not panic")).collect()
}

/// The workers, and what they found, into one.
fn gather(done: Vec<(Worker, Histories)>, all: &mut Histories) -> Vec<Worker> {
    let take = |(worker, found): (Worker, Histories)| {
        for (group, records) in found {
            all.entry(group).or_default().extend(records);
        }
        worker
    };
    done.into_iter().map(take).collect()
}

/// Looks at all names of these histories.
fn look(runtime: &Runtime, workers: Vec<Worker>, all: &mut Histories) -> Vec<Worker> {
    let groups: Vec<Group> = all.keys().copied().collect();
    let share = |worker: &Worker| groups.iter().skip(worker.id).step_by(CLIENTS).copied().collect::<Vec<Group>>();
    let tasks = workers.into_iter().map(|worker| (share(&worker), worker));
    let tasks = tasks.map(|(share, worker)| runtime.spawn(worker.look(share))).collect();
    gather(join(runtime, tasks), all)
}

fn check(histories: &Histories) {
    for ((round, group), records) in histories {
        if !is_linearizable(records) {
            let wrong = shortest_wrong(records);
            panic!("round {round}, group {group}: no order makes these answers right:\n{}", timeline(&wrong));
        }
    }
}

/// The longest operation of each client that was under way in this time.
fn pauses(histories: &Histories, (from, to): (Duration, Duration)) -> Vec<Duration> {
    let mut longest = vec![Duration::ZERO; CLIENTS];
    for record in histories.values().flatten().filter(|record| record.begin < to && record.end > from) {
        let took = record.end - record.begin;
        longest[record.client] = longest[record.client].max(took);
    }
    longest
}

/// Everything that clients were told and had not asked for.
fn errors(histories: &Histories) -> Vec<String> {
    let all = histories.iter().flat_map(|(group, records)| records.iter().map(move |record| (group, record)));
    let failed = all.filter(|(_, record)| record.error.is_some());
    failed.map(|(group, record)| format!("{group:?}: {}", timeline(std::slice::from_ref(record)))).collect()
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(pauses: BTreeMap<Kind, Vec<Duration>>, histories: &Histories) {
    for (kind, mut seen) in pauses {
        seen.sort_unstable();
        let (failovers, worst) = (seen.len() / CLIENTS, seen.last().copied().unwrap_or_default());
        println!("{kind:?}: {failovers} leaders; pauses of clients: median {:.2?}, worst {worst:.2?}", median(&seen));
    }
    let records = || histories.values().flatten();
    let mut counts = BTreeMap::<String, usize>::new();
    for record in records() {
        let call = format!("{:?}", record.call);
        let (call, outcome) = (call.split(' ').next().unwrap_or_default(), format!("{:?}", record.outcome));
        *counts.entry(format!("{call} {}", outcome.split('(').next().unwrap_or_default())).or_default() += 1;
    }
    let mut took: Vec<Duration> = records().map(|record| record.end - record.begin).collect();
    took.sort_unstable();
    let longest = histories.values().map(Vec::len).max().unwrap_or_default();
    println!("{} histories of at most {longest} operations: {counts:?}", histories.len());
    println!("{} operations; the median took {:.2?}", took.len(), median(&took));
}

/// Every kind as often as every other, in an order that the seed decides.
fn kinds(rng: &mut ChaCha8Rng, network: bool, failovers: usize) -> Vec<Kind> {
    let mut possible = SIGNALS.to_vec();
    possible.extend(CUTS.iter().filter(|_| network));
    let mut all = Vec::new();
    while all.len() < failovers {
        possible.shuffle(rng);
        all.extend(&possible);
    }
    all.truncate(failovers);
    all
}

/// Lets the clients work while this happens to the leader; when it began, and when all was well again.
fn round(nemesis: &mut Nemesis<'_>, load: &Load, kind: Kind) -> (Duration, Duration) {
    let old = nemesis.leader();
    wait_deeds(load, "the clients to work");
    let begin = load.now();
    nemesis.hurt(old, kind);
    let new = nemesis.wait_replaced(old);
    let replaced = load.now() - begin;
    wait_deeds(load, "the clients to work while the old leader is away");
    nemesis.heal(old, kind);
    nemesis.leader();
    wait_deeds(load, "the clients to work after that");
    println!("master {old} {kind:?}, master {new} led after {replaced:.2?}");
    (begin, load.now())
}

#[test]
fn s4_the_namespace_is_linearizable_whatever_happens_to_the_leader() {
    let failovers: usize = std::env::var("QUARRY_FAILOVERS").map_or(6, |v| v.parse().expect("a number"));
    let seed = data::seed("QUARRY_FAILOVERS_SEED", 2026);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut options = Options { masters: 3, ..Options::default() };
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
    let mut cluster = Cluster::start(&options);
    let (masters, runtime) = (cluster.masters.clone(), Runtime::new().expect("a runtime"));
    let load = Arc::new(Load::new(CLIENTS));
    let new = |id| Worker::new(id, &masters, &load, ChaCha8Rng::seed_from_u64(seed ^ (id as u64 + 1)));
    let mut workers: Vec<Worker> = (0..CLIENTS).map(|id| runtime.block_on(new(id))).collect();
    let mut nemesis = Nemesis { cluster: &mut cluster, network: network.as_ref(), runtime: runtime.handle() };
    let (mut histories, mut seen) = (Histories::new(), BTreeMap::<Kind, Vec<Duration>>::new());
    for (n, kind) in kinds(&mut rng, network.is_some(), failovers).into_iter().enumerate() {
        runtime.block_on(workers[0].mkdir(n));
        load.begin_round();
        let tasks = workers.into_iter().map(|worker| runtime.spawn(worker.work(n))).collect();
        let during = round(&mut nemesis, &load, kind);
        load.end_round();
        let mut found = Histories::new();
        workers = gather(join(&runtime, tasks), &mut found);
        seen.entry(kind).or_default().extend(pauses(&found, during));
        workers = look(&runtime, workers, &mut found);
        check(&found);
        histories.extend(found);
    }
    workers = look(&runtime, workers, &mut histories);
    report(seen, &histories);
    check(&histories);
    let errors = errors(&histories);
    assert!(errors.is_empty(), "{} errors that nobody asked for:\n{}", errors.len(), errors.concat());
    for worker in workers {
        runtime.block_on(worker.close());
    }
}
