//! A chunk that is open while a member's disk becomes an old image of itself, and nobody else kept running.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quarry_client::{CreateMode, CreateOptions};
use quarry_env_sim::{SimDisk, SimMachine};
use turmoil::Sim;

use crate::{
    books::Life,
    cluster::{Machines, Outcome, Plan, builder},
    data, masters,
    plot::{pass, until},
    truth::{self, Kept},
    worker,
};

const SERVERS: [&str; 3] = ["chunk1", "chunk2", "chunk3"];
const WRITER: &str = "writer";
const BYTES: usize = 100_000;
/// Long enough for servers to register and to be trusted, if they are, before the chunk is sealed.
const LEASE: Duration = Duration::from_secs(20);
/// Until a server that started has registered and the master has compared what it has.
const SETTLED: Duration = Duration::from_secs(5);

/// How far the writer is.
const WAITS: usize = 0;
const MAY_WRITE: usize = 1;
const FLUSHED: usize = 2;

/// What one flushed is there, although a member comes back with a disk from before the chunk and all others restarted (S1, S11).
pub fn flush_and_put_an_image_back(seed: u64) {
    let machines = Machines::create(seed, Plan { lease: LEASE, ..Plan::new(&SERVERS) }, vec![WRITER]);
    let mut sim = builder(seed).build();
    machines.start(&mut sim);
    let progress = Arc::new(AtomicUsize::new(WAITS));
    let (noted, writer) = (Arc::clone(&progress), SimMachine::new(WRITER, seed));
    sim.host(WRITER, move || write(writer.clone(), seed, Arc::clone(&noted)));
    let victim = usize::try_from(seed).expect("64 bits") % SERVERS.len();
    // None: the counter goes on as if nothing had been. One: the same number comes twice. More: it goes back.
    let starts_since = seed / 3 % 3;
    let disk = machines.servers[victim].1.disk().clone();

    until(&mut sim, "its first start", || starts(&disk) == Some(1));
    pass(&mut sim, SETTLED);
    let image = disk.image();
    for start in 2..2 + starts_since {
        stop(&mut sim, &machines, victim);
        sim.bounce(SERVERS[victim]);
        until(&mut sim, "another start", || starts(&disk) == Some(start));
    }
    pass(&mut sim, SETTLED);
    progress.store(MAY_WRITE, Ordering::Relaxed);
    until(&mut sim, "a flush", || progress.load(Ordering::Relaxed) == FLUSHED);
    let books = &machines.books;
    assert!(books.records().iter().all(|records| records.len() == 1), "all three take part");

    sim.crash(WRITER);
    (0..SERVERS.len()).for_each(|server| stop(&mut sim, &machines, server));
    disk.put_image(&image);
    sim.bounce(SERVERS[victim]);
    pass(&mut sim, SETTLED);
    for other in (0..SERVERS.len()).filter(|other| *other != victim) {
        sim.bounce(SERVERS[other]);
    }
    let sealed = || books.chunks().values().find_map(|chunk| (chunk.life != Life::Open).then_some(chunk.life));
    until(&mut sim, "the seal", || sealed().is_some());
    let Some(Life::Sealed(seal)) = sealed() else { panic!("seed {seed}: S1: the chunk is {:?}", sealed()) };
    assert_eq!(seal.length, BYTES as u64, "seed {seed}: S1: what was flushed");
    let good =
        || books.chunks().into_keys().any(|chunk| books.good(&books.records(), chunk, seal).len() == SERVERS.len());
    until(&mut sim, "three replicas", good);
    if let Some(broken) = books.broken() {
        panic!("seed {seed}: {broken}");
    }
}

async fn write(machine: SimMachine, seed: u64, progress: Arc<AtomicUsize>) -> Outcome {
    let (client, world) = worker::connect(&machine, &[masters::address(masters::NAMES[0])]).await?;
    loop {
        let up = client.status().await?.chunkservers.iter().filter(|server| server.up).count();
        if up == SERVERS.len() && progress.load(Ordering::Relaxed) == MAY_WRITE {
            break;
        }
        world.clock.sleep(Duration::from_millis(100)).await;
    }
    let options = CreateOptions { mode: CreateMode::Visible, ..CreateOptions::default() };
    let mut writer = client.create("/file", &options).await?;
    writer.write_bytes(data::bytes(seed, BYTES).into()).await?;
    writer.flush_durable().await?;
    progress.store(FLUSHED, Ordering::Relaxed);
    std::future::pending().await
}

/// How often a server's disk was started on.
fn starts(disk: &SimDisk) -> Option<u64> {
    let rows = truth::index_rows(disk, truth::META, Kept::Durable);
    let row = rows.get(truth::START_COUNTER)?;
    Some(u64::from_le_bytes(row.as_slice().try_into().ok()?))
}

fn stop(sim: &mut Sim<'_>, machines: &Machines, server: usize) {
    machines.servers[server].1.power_loss();
    sim.crash(SERVERS[server]);
}
