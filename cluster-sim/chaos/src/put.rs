//! One file through the loss of a chunkserver, and a flush whose members go.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quarry_client::{Client, ClientConfig, CreateMode, CreateOptions, ErrorCode};
use quarry_env_sim::SimMachine;

use crate::{
    cluster::{Machines, Outcome, Plan, builder},
    data, masters, worker,
};

const SERVERS: [&str; 3] = ["chunk1", "chunk2", "chunk3"];
/// Small, so that a run is fast and yet has many chunks.
const CHUNK_BYTES: u64 = 512 << 10;
/// Several chunks and an odd rest.
const FILE_BYTES: usize = (4 << 20) + 12_345;
/// What the client hands over at once.
const PIECE_BYTES: usize = 100_000;
/// Steps of the simulation, of a millisecond each, after which a piece is acknowledged.
const STEPS_TO_ACK: u32 = 500;

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
    let config = ClientConfig {
        chunk_bytes: CHUNK_BYTES,
        request_id: "simulated-put".into(),
        ..ClientConfig::new([masters::address(masters::NAMES[0])])
    };
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
    let machines = Machines::create(seed, Plan::new(&SERVERS), vec!["client"]);
    let mut sim = builder(seed).build();
    machines.start(&mut sim);
    let progress = Arc::new(Progress::default());
    sim.client("client", put_and_get(SimMachine::new("client", seed), seed, Arc::clone(&progress)));
    let victim = usize::try_from(seed).expect("64 bits") % SERVERS.len();
    let (mut crashed, mut bounced) = (false, false);
    while !sim.step().unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
        if !crashed && progress.written.load(Ordering::Relaxed) > FILE_BYTES / 2 {
            crashed = true;
            // In this order, so that what is dropped finds no disk to write to.
            machines.servers[victim].1.power_loss();
            sim.crash(SERVERS[victim]);
        }
        if crashed && !bounced && progress.finished.load(Ordering::Relaxed) > 0 {
            bounced = true;
            sim.bounce(SERVERS[victim]);
        }
    }
    assert!(bounced, "seed {seed}: the put ended before the crash");
    let chunks = machines.servers.iter().flat_map(|s| s.1.disk().files()).filter(|f| is_chunk(&f.0)).count();
    assert!(chunks >= 2 * FILE_BYTES / usize::try_from(CHUNK_BYTES).expect("small"), "only {chunks} chunk files");
}

fn is_chunk(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "chunk")
}

/// A flush whose chunk broke: what one member alone has durably is not enough, and what two have is.
pub fn flush_with_members_gone(seed: u64, gone: usize) {
    let machines = Machines::create(seed, Plan::new(&SERVERS), vec!["client"]);
    let mut sim = builder(seed).build();
    machines.start(&mut sim);
    let progress = Arc::new(Progress::default());
    let (noted, machine) = (Arc::clone(&progress), SimMachine::new("client", seed));
    sim.client("client", async move {
        let (client, world) = worker::connect(&machine, &[masters::address(masters::NAMES[0])]).await?;
        wait_for_servers(&client, &world).await?;
        let options = CreateOptions { mode: CreateMode::Visible, ..CreateOptions::default() };
        let mut writer = client.create("/file", &options).await?;
        writer.write_bytes(data::bytes(seed, PIECE_BYTES).into()).await?;
        // Long enough for the bytes to be acknowledged and the machines to go.
        noted.written.store(PIECE_BYTES, Ordering::Relaxed);
        world.clock.sleep(Duration::from_secs(1)).await;
        let flushed = writer.flush_durable().await;
        assert_eq!(flushed.is_ok(), gone < 2, "S1: {gone} of three members are gone: {flushed:?}");
        if let Err(error) = flushed {
            assert_eq!(error.code(), ErrorCode::UnderReplicated, "{error}");
        }
        Ok(())
    });
    let victim = usize::try_from(seed).expect("64 bits") % SERVERS.len();
    let mut steps = 0;
    while !sim.step().unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
        steps += u32::from(progress.written.load(Ordering::Relaxed) > 0);
        if steps == STEPS_TO_ACK {
            for server in (victim..victim + gone).map(|n| n % SERVERS.len()) {
                machines.servers[server].1.power_loss();
                sim.crash(SERVERS[server]);
            }
        }
    }
}
