//! A master with many files: how soon it serves, how soon it lists, and what a file and a replica cost in memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quarry_client::{Client, ClientConfig};
use quarry_env::{World, kv::NoKv};
use quarry_types::{ClusterKey, InodeId};

use super::Suite;
use crate::{
    bed::{Bed, Durability, fresh},
    book::{QUARRY, Unit},
    error::{During as _, Failed, Outcome},
    floor::serve::runtime,
    forged::forge,
    measured::{Latencies, Meter},
    proc,
    swarm::{COPIES, Swarm},
};

/// The directory that has all of them.
const DIR: &str = "/many";
/// Simulated chunkservers that hold the replicas.
const SERVERS: u64 = 10;
/// First pages that are asked for, and files looked up before memory is read.
const ASKED: u64 = 50;
/// Lookups before memory is read: what is used has come in.
const LOOKUPS: u64 = 2000;
/// All reports are in within this.
const REPORTS: Duration = Duration::from_secs(900);
/// A master serves within this.
const START: Duration = Duration::from_secs(300);

/// Measures at each number of files.
pub fn run(suite: &mut Suite) -> Outcome {
    for files in suite.plan.memory_files.clone() {
        suite.say(format!("a master with {files} files"));
        at(suite, files)?;
    }
    Ok(())
}

/// A master that has many files, and a client of it.
pub struct Full {
    /// No chunkservers run.
    pub bed: Bed,
    /// Its client.
    pub client: Client,
    /// Resident memory of the empty one, in bytes.
    pub empty: u64,
    /// How long it took from its start until it answered, in seconds.
    pub started: f64,
}

/// Makes one.
///
/// # Errors
/// When it cannot be made or does not start.
pub fn full(suite: &Suite, runtime: &tokio::runtime::Runtime, files: u64, servers: u64) -> Outcome<Full> {
    let dir = fresh(&suite.places.work, "full")?;
    let mut bed = Bed::new(1, 0, Durability::Sealed, &dir, &[]);
    let config = ClientConfig::new([bed.cluster.master.address.clone()]);
    runtime.block_on(async {
        let client = Client::connect(World::real(std::sync::Arc::new(NoKv)), config).await.during("connecting")?;
        let parent: InodeId = client.mkdir(DIR, false).await.during("making a directory")?.inode;
        let pid = bed.cluster.master.process().pid();
        let empty = proc::memory(pid, "VmRSS").unwrap_or_default();
        forge(&mut bed.cluster.master, parent, files, servers)?;
        let began = Instant::now();
        bed.cluster.master.restart();
        while client.stat(DIR).await.is_err() {
            if began.elapsed() > START {
                return Err(Failed::new("starting a master with many files", "it does not answer"));
            }
        }
        Ok(Full { started: began.elapsed().as_secs_f64(), bed, client, empty })
    })
}

/// The key of a cluster of the suite.
///
/// # Errors
/// When it cannot be read.
pub fn key(bed: &Bed) -> Outcome<ClusterKey> {
    let text = std::fs::read_to_string(bed.cluster.path("cluster.key")).during("reading the cluster's key")?;
    ClusterKey::from_file(&text).ok_or_else(|| Failed::new("reading the cluster's key", "it is none"))
}

fn at(suite: &mut Suite, files: u64) -> Outcome {
    let runtime = runtime()?;
    let mut made = full(suite, &runtime, files, SERVERS)?;
    let prefix = name(files);
    let book = &mut suite.book;
    book.value(&format!("{prefix}.start"), QUARRY, Unit::Seconds, made.started);
    let pid = made.bed.cluster.master.process().pid();
    runtime.block_on(async {
        let mut latencies = Latencies::new()?;
        let meter = Meter::begin()?;
        for _ in 0..ASKED {
            let began = Instant::now();
            made.client.list_page(DIR, Bytes::new(), 0).await.during("listing")?;
            latencies.add(began.elapsed());
        }
        let listed = meter.end("list.first", 1, 0, &latencies, 0.0)?;
        for n in (0..LOOKUPS).map(|n| n * (files / LOOKUPS).max(1)) {
            made.client.stat(&format!("{DIR}/measurement-{n:08}.dat")).await.during("looking up a file")?;
        }
        let used = proc::memory(pid, "VmRSS").unwrap_or_default();
        let mut first = listed.clone();
        first.seconds = listed.latency_us.p50 as f64 / 1e6;
        book.add(&format!("{prefix}.list.first"), QUARRY, Unit::Seconds, &first);
        let per_file = (used as f64 - made.empty as f64).max(0.0) / files as f64;
        note(book, &prefix, "per-file", per_file);

        let began = Instant::now();
        let cpu = proc::cpu(pid).unwrap_or_default();
        let mut swarm = Swarm::start(&made.bed.cluster.master.address, &key(&made.bed)?, SERVERS, files).await?;
        swarm.reported(SERVERS, REPORTS).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = proc::cpu(pid).unwrap_or_default() - cpu;
        let replicas = files * u64::from(COPIES);
        let reported = proc::memory(pid, "VmRSS").unwrap_or_default();
        note(book, &prefix, "per-replica", (reported as f64 - used as f64).max(0.0) / replicas as f64);
        book.value(&format!("{prefix}.reports"), QUARRY, Unit::Operations, replicas as f64 / seconds);
        book.value(
            &format!("{prefix}.reports.master-cpu-ns-per-replica"),
            QUARRY,
            Unit::Times,
            cpu * 1e9 / replicas as f64,
        );
        Ok(())
    })
}

/// In the table stands the figure of the most files.
fn note(book: &mut crate::book::Book, prefix: &str, what: &str, bytes: f64) {
    book.value(&format!("{prefix}.memory.{what}.bytes"), QUARRY, Unit::Times, bytes);
    book.rows.retain(|row| row.case != format!("memory.{what}"));
    book.value(&format!("memory.{what}"), QUARRY, Unit::Times, bytes);
}

fn name(files: u64) -> String {
    if files.is_multiple_of(1_000_000) { format!("files{}m", files / 1_000_000) } else { format!("files{files}") }
}
