//! A writer that hears nothing from the masters while it completes a file, until its lease has run out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quarry_client::{CreateOptions, ErrorCode};
use quarry_env_sim::SimMachine;

use crate::{
    books::Life,
    cluster::{Machines, Outcome, Plan, builder},
    data, masters,
    plot::{pass, servers_up, until},
    worker::{self, CHUNK_BYTES},
};

const SERVERS: [&str; 3] = ["chunk1", "chunk2", "chunk3"];
const WRITER: &str = "writer";
/// Of the file, all of them full. The master learns of the end of the first with the request for the last.
const CHUNKS: usize = 3;
const LEASE: Duration = Duration::from_secs(3);
/// Long enough for the lease to run out and the put to end, and shorter than what a client waits.
const SILENCE: Duration = Duration::from_secs(5);

/// How far the writer is.
const WRITES: usize = 0;
const WROTE: usize = 1;
const MAY_FINISH: usize = 2;
const ENDED: usize = 3;

/// A put that was ended is not completed any more (S1): what its chunks held is given up. What completes it is on its way
/// meanwhile.
pub fn complete_behind_the_lease(seed: u64) {
    let machines = Machines::create(seed, Plan { lease: LEASE, ..Plan::new(&SERVERS) }, vec![WRITER]);
    let mut sim = builder(seed).build();
    machines.start(&mut sim);
    let progress = Arc::new(AtomicUsize::new(WRITES));
    let (noted, machine) = (Arc::clone(&progress), SimMachine::new(WRITER, seed));
    sim.host(WRITER, move || write(machine.clone(), seed, Arc::clone(&noted)));
    let (books, master) = (&machines.books, masters::NAMES[0]);
    let is_sealed = || books.chunks().into_values().any(|chunk| matches!(chunk.life, Life::Sealed(_)));
    until(&mut sim, "a seal", || is_sealed() && progress.load(Ordering::Relaxed) == WROTE);

    sim.hold(WRITER, master);
    progress.store(MAY_FINISH, Ordering::Relaxed);
    pass(&mut sim, SILENCE);
    sim.release(WRITER, master);
    until(&mut sim, "an answer", || progress.load(Ordering::Relaxed) == ENDED);
    if let Some(broken) = books.broken() {
        panic!("seed {seed}: {broken}");
    }
}

async fn write(machine: SimMachine, seed: u64, progress: Arc<AtomicUsize>) -> Outcome {
    let (client, world) = worker::connect(&machine, &[masters::address(masters::NAMES[0])]).await?;
    servers_up(&client, &world, SERVERS.len()).await?;
    let bytes = data::bytes(seed, usize::try_from(CHUNK_BYTES)? * CHUNKS);
    let mut writer = client.create("/file", &CreateOptions::default()).await?;
    writer.write_bytes(bytes.clone().into()).await?;
    writer.flush_durable().await?;
    progress.store(WROTE, Ordering::Relaxed);
    while progress.load(Ordering::Relaxed) < MAY_FINISH {
        world.clock.sleep(Duration::from_millis(10)).await;
    }
    let finished = writer.finish().await;
    tracing::info!(?finished, "the put has ended");
    // Whoever was not answered does not know: it is there with all its bytes, or not at all.
    let there = loop {
        match client.stat("/file").await {
            Ok(_) => break true,
            Err(error) if error.code() == ErrorCode::NotFound => break false,
            Err(_) => world.clock.sleep(Duration::from_millis(100)).await,
        }
    };
    if let Err(error) = &finished {
        assert_eq!(error.code(), ErrorCode::LeaseLost, "{error}");
    }
    assert!(there || finished.is_err(), "S1: it was put and is not there: {finished:?}");
    if there {
        let (mut reader, mut back) = (client.open("/file").await?, Vec::new());
        while let Some(part) = reader.next_bytes().await? {
            back.extend_from_slice(&part);
        }
        assert!(back == bytes, "S1: {} bytes of {} came back", back.len(), bytes.len());
    }
    progress.store(ENDED, Ordering::Relaxed);
    std::future::pending().await
}
