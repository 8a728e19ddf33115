//! All processes are killed (-9) at random moments of a stream of puts, appends, renames and deletes, and started again.
//!
//! After each round: every file whose put returned is identical, none is half visible, none that was deleted returns, and
//! every open chunk left over ends sealed or collected. `QUARRY_CRASH_ROUNDS` sets the count (`scripts/soak` takes 100).

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use quarry_tests::{Cluster, Options, cli, data, wait};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A path, and what it holds before and after a command; `None` is no file.
type Effect<'a> = (&'a str, Option<Vec<u8>>, Option<Vec<u8>>);

/// What a path may hold after a crash. More than one possibility where a command was cut off.
#[derive(Clone, Debug, Default, PartialEq)]
struct Possible(Vec<Option<Vec<u8>>>);

impl Possible {
    fn exactly(content: Option<Vec<u8>>) -> Self {
        Possible(vec![content])
    }
}

/// One worker's files: it owns their names, so that their histories are sequences.
struct Worker {
    id: u64,
    rng: ChaCha8Rng,
    files: BTreeMap<String, Possible>,
}

impl Worker {
    fn known(&self, rng_pick: usize) -> Option<(String, Vec<u8>)> {
        let known: Vec<_> = self
            .files
            .iter()
            .filter_map(|(name, possible)| match possible.0.as_slice() {
                [Some(content)] => Some((name.clone(), content.clone())),
                _ => None,
            })
            .collect();
        (!known.is_empty()).then(|| known[rng_pick % known.len()].clone())
    }

    /// One operation. What it may have done is noted before it starts, what it did when it returned.
    fn step(&mut self, masters: &str) {
        let pick = self.rng.random_range(0..1000);
        let known = self.known(pick);
        match (self.rng.random_range(0..10), known) {
            (0 | 1, Some((name, content))) => {
                let length = self.rng.random_range(1..300_000);
                let more = data::bytes(self.rng.random(), length);
                let after = [content.clone(), more.clone()].concat();
                let args = ["--timeout", "20s", "append", "-", &name];
                self.run(masters, &args, &more, &[(&name, Some(content), Some(after))]);
            }
            (2, Some((name, content))) => {
                let to = format!("/w{}/renamed-{}", self.id, self.rng.random_range(0..1_000_000));
                let args = ["--timeout", "20s", "mv", &name, &to];
                self.run(masters, &args, b"", &[(&name, Some(content.clone()), None), (&to, None, Some(content))]);
            }
            (3, Some((name, content))) => {
                self.run(masters, &["--timeout", "20s", "rm", &name], b"", &[(&name, Some(content), None)]);
            }
            _ => {
                let name = format!("/w{}/f{}", self.id, self.rng.random_range(0..1_000_000));
                let most = if self.rng.random_range(0..8) == 0 { 80 << 20 } else { 400_000 };
                let length = usize::try_from(data::length(&mut self.rng, most)).expect("small");
                let content = data::bytes(self.rng.random(), length);
                let args = ["--timeout", "20s", "put", "-", &name];
                self.run(masters, &args, &content, &[(&name, None, Some(content.clone()))]);
            }
        }
    }

    /// Runs a command whose effect on each path is from `before` to `after`, all or nothing for each.
    fn run(&mut self, masters: &str, args: &[&str], input: &[u8], effects: &[Effect<'_>]) {
        for (path, before, after) in effects {
            self.files.insert((*path).into(), Possible(vec![before.clone(), after.clone()]));
        }
        let out = cli::run_with_input(masters, args, input);
        if out.code == 0 {
            for (path, _, after) in effects {
                self.files.insert((*path).into(), Possible::exactly(after.clone()));
            }
        }
    }

    /// Compares every file with what it may be, and from then on knows what it is.
    fn check(&mut self, cluster: &Cluster) {
        for (path, possible) in &mut self.files {
            let out = cluster.quarry(&["cat", path]);
            let found = match out.code {
                0 => Some(out.stdout),
                3 => None,
                code => panic!("cat {path}: {code} {}", out.stderr),
            };
            let fits = possible.0.contains(&found)
                // An append that was cut off may have left any prefix of its bytes sealed.
                || matches!((possible.0.as_slice(), &found), ([Some(before), Some(after)], Some(found))
                    if found.starts_with(before) && after.starts_with(found));
            let lengths: Vec<_> = possible.0.iter().map(|p| p.as_ref().map(Vec::len)).collect();
            assert!(fits, "{path} has {:?} bytes, possible are {lengths:?}", found.map(|f| f.len()));
            *possible = Possible::exactly(found);
        }
        self.files.retain(|_, possible| possible.0 != [None]);
    }
}

#[test]
fn s1_s4_s6_crashes_of_everything_lose_nothing_that_was_acknowledged() {
    let rounds: usize = std::env::var("QUARRY_CRASH_ROUNDS").map_or(4, |v| v.parse().expect("a number"));
    let seed = data::seed("QUARRY_CRASH_SEED", 2026);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let lease = ["--lease", "3s"].map(String::from).to_vec();
    let mut cluster = Cluster::start(&Options { master_args: lease, ..Options::default() });
    let workers: Vec<Mutex<Worker>> = (0..3)
        .map(|id| {
            cluster.quarry(&["mkdir", "-p", &format!("/w{id}")]).ok();
            let rng = ChaCha8Rng::seed_from_u64(seed ^ (id + 1));
            Mutex::new(Worker { id, rng, files: BTreeMap::new() })
        })
        .collect();
    for round in 0..rounds {
        let masters = cluster.master.address.clone();
        let stop = AtomicBool::new(false);
        let life = Duration::from_millis(rng.random_range(200..2500));
        thread::scope(|scope| {
            for worker in &workers {
                let (masters, stop) = (&masters, &stop);
                scope.spawn(move || {
                    let mut worker = worker.lock().expect("one thread at a time");
                    while !stop.load(Ordering::Relaxed) {
                        worker.step(masters);
                    }
                });
            }
            // The moment of the crash is the point of the test, not a way to synchronise.
            thread::sleep(life);
            stop.store(true, Ordering::Relaxed);
            cluster.master.kill();
            cluster.servers.iter_mut().for_each(quarry_tests::cluster::Server::kill);
            cluster.master.restart();
            cluster.servers.iter_mut().for_each(quarry_tests::cluster::Server::restart);
        });
        cluster.wait_alive(3);
        wait::until("leftover open chunks to end", Duration::from_secs(90), || {
            let open = cluster.status()["totals"]["open"].as_u64();
            if open == Some(0) { Ok(()) } else { Err(format!("{open:?} open")) }
        });
        let mut files = 0;
        for worker in &workers {
            let mut worker = worker.lock().expect("nobody else");
            worker.check(&cluster);
            files += worker.files.len();
        }
        println!("round {round}: crashed after {life:?}, {files} files as they must be");
    }
}
