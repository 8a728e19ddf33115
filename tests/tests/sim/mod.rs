//! A cluster in one process, and what happens to it.

pub mod trace;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quarry_chunkserver::{
    server::{Chunkserver, ChunkserverConfig},
    store::DirConfig,
};
use quarry_chunkserver_core::Durability;
use quarry_client::{Client, ClientConfig, CreateOptions};
use quarry_env_sim::SimMachine;
use quarry_master::{InitConfig, Master, MasterConfig, init};
use quarry_tests::data;
use quarry_types::ClusterKey;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const MASTER: &str = "master:9400";
const SERVERS: [&str; 3] = ["chunk1", "chunk2", "chunk3"];
/// Small, so that a run is fast and yet has many chunks.
const CHUNK_BYTES: u64 = 512 << 10;
/// Several chunks and an odd rest.
const FILE_BYTES: usize = (4 << 20) + 12_345;
/// What the client hands over at once.
const PIECE_BYTES: usize = 100_000;

fn builder(seed: u64) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(5));
    builder
}

/// Creates the cluster on the master's disk.
fn create(master: &SimMachine, seed: u64) -> ClusterKey {
    let config = InitConfig { advertise: MASTER.into(), ..InitConfig::new("/master") };
    let mut sim = builder(seed).build();
    let machine = master.clone();
    let key_file = config.key_file.clone();
    sim.client("master", async move {
        init::init(&machine.boot(), &config).await?;
        Ok(())
    });
    sim.run().expect("the cluster is created");
    let text = quarry_env::Disk::read_small(master.disk(), &key_file, 4096).expect("init left a key");
    master.power_loss();
    ClusterKey::from_file(&String::from_utf8_lossy(&text)).expect("a key")
}

async fn serve_master(machine: SimMachine) -> Outcome {
    let config = MasterConfig { listen: MASTER.into(), advertise: Some(MASTER.into()), ..MasterConfig::new("/master") };
    let master = Master::start(machine.boot(), config).await?;
    Err(master.failed().await.into())
}

async fn serve_chunks(machine: SimMachine, name: &'static str, key: ClusterKey) -> Outcome {
    let config = ChunkserverConfig {
        dirs: vec![DirConfig { path: "/data".into(), capacity: None }],
        key,
        masters: vec![MASTER.into()],
        listen: format!("{name}:9410"),
        advertise: Some(format!("{name}:9410")),
        rack: format!("rack of {name}"),
        durability: Durability::Sealed,
    };
    let _running = Chunkserver::start(machine.boot(), config).await?;
    std::future::pending().await
}

/// How far the client is; the simulation's loop looks at it between steps.
#[derive(Default)]
struct Progress {
    written: AtomicUsize,
    finished: AtomicUsize,
}

async fn wait_for_servers(client: &Client, world: &quarry_env::World) -> Outcome {
    loop {
        let status = client.status().await?;
        if status.chunkservers.len() == SERVERS.len() {
            return Ok(());
        }
        world.clock.sleep(Duration::from_millis(100)).await;
    }
}

async fn put_and_get(machine: SimMachine, seed: u64, progress: Arc<Progress>) -> Outcome {
    let world = machine.boot();
    let config =
        ClientConfig { chunk_bytes: CHUNK_BYTES, request_id: "simulated-put".into(), ..ClientConfig::new([MASTER]) };
    let client = Client::connect(world.clone(), config).await?;
    wait_for_servers(&client, &world).await?;
    let bytes = Bytes::from(data::bytes(seed, FILE_BYTES));
    let options = CreateOptions { parents: true, ..CreateOptions::default() };
    let mut writer = client.create("/deep/file", &options).await?;
    for start in (0..bytes.len()).step_by(PIECE_BYTES) {
        writer.write_bytes(bytes.slice(start..bytes.len().min(start + PIECE_BYTES))).await?;
        progress.written.store(start, Ordering::Relaxed);
    }
    let finished = writer.finish().await?;
    progress.finished.store(1, Ordering::Relaxed);
    tracing::info!(?finished, "put");
    assert_eq!(finished.file.length, FILE_BYTES as u64);
    assert!(finished.stats.seals_on_failure >= 1, "the crash missed the put: {:?}", finished.stats);
    assert!(finished.fewest_replicas >= 2);

    let mut reader = client.open("/deep/file").await?;
    let mut back = Vec::new();
    while let Some(part) = reader.next_bytes().await? {
        back.extend_from_slice(&part);
    }
    tracing::info!(stats = ?reader.stats(), crc = crc32fast::hash(&back), "got");
    assert!(back == bytes, "{} bytes came back for {}", back.len(), bytes.len());
    client.close().await?;
    Ok(())
}

/// Puts a file of many chunks, cuts the power of a chunkserver half-way, gets the file back while that server restarts.
pub fn put_and_get_through_a_crash(seed: u64) {
    let master = SimMachine::new("master", seed);
    let key = create(&master, seed);
    let servers = SERVERS.map(|name| SimMachine::new(name, seed));
    let mut sim = builder(seed).build();
    sim.host("master", move || serve_master(master.clone()));
    for (name, machine) in SERVERS.iter().zip(servers.clone()) {
        let key = key.clone();
        sim.host(*name, move || serve_chunks(machine.clone(), name, key.clone()));
    }
    let progress = Arc::new(Progress::default());
    sim.client("client", put_and_get(SimMachine::new("client", seed), seed, Arc::clone(&progress)));
    let victim = usize::try_from(seed).expect("64 bits") % SERVERS.len();
    let (mut crashed, mut bounced) = (false, false);
    while !sim.step().unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
        if !crashed && progress.written.load(Ordering::Relaxed) > FILE_BYTES / 2 {
            crashed = true;
            sim.crash(SERVERS[victim]);
            servers[victim].power_loss();
        }
        if crashed && !bounced && progress.finished.load(Ordering::Relaxed) > 0 {
            bounced = true;
            sim.bounce(SERVERS[victim]);
        }
    }
    assert!(bounced, "seed {seed}: the put ended before the crash");
    let chunks = servers.iter().flat_map(|s| s.disk().files()).filter(|f| is_chunk(&f.0)).count();
    assert!(chunks >= 2 * FILE_BYTES / usize::try_from(CHUNK_BYTES).expect("small"), "only {chunks} chunk files");
}

fn is_chunk(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "chunk")
}
