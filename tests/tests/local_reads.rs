//! Clients that read the chunks of servers on their machine from the files themselves.

use std::{fs, sync::Arc, time::Duration};

use quarry_client::{Client, ClientConfig, FileReader};
use quarry_env::{World, kv::NoKv};
use quarry_tests::{Cluster, Options, damage::flip, data, pages::metric, wait};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);
/// One chunk, of more than one packet.
const LENGTH: usize = 5 * (1 << 20) + 77;
const PACKET: usize = 1 << 20;

/// A client in this process.
struct Reading {
    runtime: Runtime,
    client: Client,
}

impl Reading {
    fn start(cluster: &Cluster, local_reads: bool) -> Reading {
        let runtime = Runtime::new().expect("a runtime");
        let config = ClientConfig { local_reads, ..ClientConfig::new(cluster.masters.split(',')) };
        let client = runtime.block_on(Client::connect(World::real(Arc::new(NoKv)), config)).expect("a client");
        Reading { runtime, client }
    }

    fn open(&self, name: &str) -> FileReader {
        self.runtime.block_on(self.client.open(name)).expect("the file is there")
    }

    /// Reads `length` bytes at `offset`.
    fn read(&self, file: &FileReader, offset: usize, length: usize) -> Vec<u8> {
        self.runtime.block_on(file.read_range(offset as u64, length)).expect("it can be read").to_vec()
    }

    /// Reads the file, which holds `bytes`, once it can be read from its servers' files.
    fn locally(&self, name: &str, bytes: &[u8]) -> FileReader {
        wait::until("a read from a file", PATIENCE, || {
            let file = self.open(name);
            assert!(self.read(&file, 0, bytes.len()) == bytes, "what was put is read");
            match file.stats() {
                stats if stats.local_bytes == bytes.len() as u64 => Ok(file),
                // Its seal may not be known everywhere yet.
                stats => Err(format!("{stats:?}")),
            }
        })
    }
}

/// A cluster with a file of one chunk.
fn with_file(options: &Options, replicas: &str) -> (Cluster, Vec<u8>) {
    let (cluster, bytes) = (Cluster::start(options), data::bytes(1, LENGTH));
    cluster.put("/f", &["--replicas", replicas], &bytes);
    (cluster, bytes)
}

/// A metric, over all chunkservers that run.
fn sum(cluster: &mut Cluster, name: &str) -> f64 {
    let name = format!("quarry_chunkserver_{name}_total");
    cluster.servers.iter_mut().map(|server| metric(server.process(), &name).expect("it is shown")).sum()
}

/// Chunk files of the cluster that this process has open.
fn held(cluster: &Cluster) -> usize {
    let dir = cluster.path("");
    let open = fs::read_dir("/proc/self/fd").expect("our own descriptors").flatten();
    let paths = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.filter(|path| path.starts_with(&dir) && path.to_string_lossy().contains(".chunk")).count()
}

/// Reads `/f`, which holds `bytes`.
fn read_in_many_ways(reading: &Reading, bytes: &[u8]) -> FileReader {
    let mut file = reading.open("/f");
    for (offset, length) in [(0, LENGTH), (3, 10), (PACKET - 1, PACKET + 2), (LENGTH - 5, 5), (70_000, 1 << 16)] {
        assert!(reading.read(&file, offset, length) == bytes[offset..offset + length], "{length} at {offset}");
    }
    let mut all = Vec::new();
    while let Some(part) = reading.runtime.block_on(file.next_bytes()).expect("it can be read") {
        all.extend_from_slice(&part);
    }
    assert!(all == bytes);
    file
}

#[test]
fn a_sealed_chunk_is_read_from_its_file_and_its_server_serves_nothing() {
    let (mut cluster, bytes) = with_file(&Options::default(), "3");
    let reading = Reading::start(&cluster, true);
    reading.locally("/f", &bytes);
    assert!(sum(&mut cluster, "files_given_out") >= 1.0);
    let served = wait::until("reads without a server", PATIENCE, || {
        let before = sum(&mut cluster, "client_read_bytes");
        let file = read_in_many_ways(&reading, &bytes);
        assert_eq!((file.stats().failovers, file.stats().corrupt), (0, 0));
        // Another server may not know its seal yet.
        let after = sum(&mut cluster, "client_read_bytes");
        if after > before { Err(format!("{} bytes were served", after - before)) } else { Ok(after) }
    });

    // Until they are told that it is not to be so.
    let reading = Reading::start(&cluster, false);
    let file = reading.open("/f");
    assert!(reading.read(&file, 0, LENGTH) == bytes);
    assert_eq!(file.stats().local_bytes, 0);
    assert!(sum(&mut cluster, "client_read_bytes") - served >= LENGTH as f64);
}

#[test]
fn s3_a_flipped_bit_is_found_by_who_reads_the_file_and_another_replica_is_used() {
    let (mut cluster, bytes) = with_file(&Options::default(), "3");
    let reading = Reading::start(&cluster, true);
    reading.locally("/f", &bytes);
    let gave = |server: &mut quarry_tests::cluster::Server| {
        metric(server.process(), "quarry_chunkserver_files_given_out_total").is_some_and(|count| count > 0.0)
    };
    let first = cluster.servers.iter_mut().position(gave).expect("one gave its file");
    let (_, path) = cluster.chunk_files().into_iter().find(|(server, _)| *server == first).expect("it has the chunk");
    flip(&path, 2_345_678);

    wait::until("the bad replica to be met", PATIENCE, || {
        let file = reading.open("/f");
        assert!(reading.read(&file, 0, LENGTH) == bytes, "not a wrong byte");
        match file.stats() {
            // It is met once: then it is reported, and nobody is sent there again. Others may fail too in the same read, as
            // long as their seals are not committed.
            stats if stats.corrupt >= 1 && stats.failovers >= stats.corrupt => Ok(()),
            stats => Err(format!("{stats:?}")),
        }
    });
    wait::until("the server's own check", PATIENCE, || {
        let log = cluster.servers[first].log();
        if log.contains("a replica is quarantined") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn s6_a_deleted_chunk_is_let_go_by_who_holds_its_file() {
    let settings = ["trash=0", "reader-grace=0", "orphan-grace=0"].map(String::from).to_vec();
    let (cluster, bytes) = with_file(&Options { settings, ..Options::default() }, "3");
    let reading = Reading::start(&cluster, true);
    let file = reading.locally("/f", &bytes);
    assert!(held(&cluster) >= 1, "the file is held for the next read");
    cluster.quarry(&["rm", "--now", "/f"]).ok();
    wait::until("the deletion", PATIENCE, || match cluster.chunk_files() {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{files:?}")),
    });
    // Nobody reads, and nobody asks.
    wait::until("files that are let go", PATIENCE, || match held(&cluster) {
        0 => Ok(()),
        held => Err(format!("{held} are held")),
    });
    let late = reading.runtime.block_on(file.read_range(0, LENGTH));
    assert!(late.is_err(), "no server gives it out any more");
}

#[test]
fn a_client_that_cannot_reach_the_socket_reads_over_the_network() {
    let (mut cluster, bytes) = with_file(&Options::default(), "3");
    for server in &cluster.servers {
        fs::rename(server.data.join("local.sock"), server.data.join("elsewhere.sock")).expect("the socket is there");
    }
    let reading = Reading::start(&cluster, true);
    let file = reading.open("/f");
    assert!(reading.read(&file, 0, LENGTH) == bytes);
    let stats = file.stats();
    assert_eq!((stats.local_bytes, stats.failovers), (0, 0), "it is no failure of the replica: {stats:?}");
    assert!(sum(&mut cluster, "files_given_out") < 0.5);
    assert!(sum(&mut cluster, "client_read_bytes") >= LENGTH as f64);
}

#[test]
fn a_server_without_a_local_socket_is_read_over_the_network() {
    let args = ["--local-socket", "none"].map(String::from).to_vec();
    let (cluster, bytes) = with_file(&Options { chunkserver_args: args, ..Options::default() }, "3");
    let reading = Reading::start(&cluster, true);
    let file = reading.open("/f");
    assert!(reading.read(&file, 0, LENGTH) == bytes);
    assert_eq!((file.stats().local_bytes, file.stats().failovers), (0, 0));
    assert!(cluster.servers.iter().all(|server| !server.data.join("local.sock").exists()));
}

#[test]
fn a_server_that_is_killed_does_not_break_a_read_under_way() {
    let (mut cluster, bytes) = with_file(&Options::default(), "1");
    let reading = Reading::start(&cluster, true);
    reading.locally("/f", &bytes);
    let holder = cluster.placed("/f").concat().into_iter().next().expect("it has one replica");
    let mut file = reading.open("/f");
    let mut all =
        reading.runtime.block_on(file.next_bytes()).expect("it can be read").expect("it is not empty").to_vec();
    cluster.servers[holder].kill();
    while let Some(part) = reading.runtime.block_on(file.next_bytes()).expect("it goes on without its server") {
        all.extend_from_slice(&part);
    }
    assert!(all == bytes);
    assert_eq!(file.stats().local_bytes, LENGTH as u64);
    // A server that was killed leaves its socket; it is replaced.
    cluster.servers[holder].restart();
    let again = Reading::start(&cluster, true);
    again.locally("/f", &bytes);
}
