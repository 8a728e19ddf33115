//! A leader that is cut off from the other masters, and a client that goes on asking it while another one leads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quarry_client::ErrorCode;
use quarry_env_sim::SimMachine;

use crate::{
    books::Books,
    cluster::{Machines, Outcome, Plan, builder},
    masters,
    plot::{pass, until},
    worker,
};

const SERVERS: [&str; 3] = ["chunk1", "chunk2", "chunk3"];
const WRITER: &str = "writer";
const READER: &str = "reader";
/// Directories that are made after the cut before it is mended.
const MADE_MEANWHILE: usize = 5;
/// How long the reader asks after that.
const ASKED_FOR: Duration = Duration::from_secs(3);
/// After a start: each master has heard of the others and takes part.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(50);

/// What the clients know of each other.
#[derive(Default)]
struct Known {
    /// Directories whose making was acknowledged: 0, 1, ….
    made: AtomicUsize,
    /// The most that the reader has seen.
    seen: AtomicUsize,
}

fn directory(number: usize) -> String {
    format!("/made-{number}")
}

/// Whoever still thinks that it leads must not answer from what it has (S4): by then more may have been acknowledged elsewhere.
pub fn ask_a_deposed_leader(seed: u64) {
    let machines = Machines::create(seed, Plan { masters: 3, ..Plan::new(&SERVERS) }, vec![WRITER, READER]);
    let mut sim = builder(seed).build();
    machines.start(&mut sim);
    let (known, books) = (Arc::new(Known::default()), Arc::clone(&machines.books));
    let (noted, writer, all) = (Arc::clone(&known), SimMachine::new(WRITER, seed), machines.addresses());
    sim.host(WRITER, move || make(writer.clone(), all.clone(), Arc::clone(&noted)));
    until(&mut sim, "a first directory", || known.made.load(Ordering::Relaxed) > 0);
    pass(&mut sim, SETTLED);

    let deposed = books.leader();
    let (noted, judge, reader) = (Arc::clone(&known), Arc::clone(&books), SimMachine::new(READER, seed));
    let only = vec![masters::address(masters::NAMES[deposed])];
    sim.host(READER, move || look(reader.clone(), only.clone(), Arc::clone(&noted), Arc::clone(&judge)));
    until(&mut sim, "a look", || known.seen.load(Ordering::Relaxed) > 0);

    let others = || masters::NAMES.iter().enumerate().filter(|(at, _)| *at != deposed).map(|(_, name)| *name);
    others().for_each(|other| sim.partition(masters::NAMES[deposed], other));
    let before = known.made.load(Ordering::Relaxed);
    until(&mut sim, "another leader", || known.made.load(Ordering::Relaxed) >= before + MADE_MEANWHILE);
    assert_ne!(books.leader(), deposed, "seed {seed}: it is cut off from the others");
    pass(&mut sim, ASKED_FOR);

    others().for_each(|other| sim.repair(masters::NAMES[deposed], other));
    let made = known.made.load(Ordering::Relaxed);
    until(&mut sim, "a look at what was made meanwhile", || known.seen.load(Ordering::Relaxed) >= made);
    if let Some(broken) = books.broken() {
        panic!("seed {seed}: {broken}");
    }
}

/// Makes one directory after another.
async fn make(machine: SimMachine, masters: Vec<String>, known: Arc<Known>) -> Outcome {
    let (client, world) = worker::connect(&machine, &masters).await?;
    loop {
        let next = known.made.load(Ordering::Relaxed);
        // Made before although its answer was lost, it is there: with parents that is no error.
        if client.mkdir(&directory(next), true).await.is_ok() {
            known.made.store(next + 1, Ordering::Relaxed);
        }
        world.clock.sleep(PAUSE).await;
    }
}

/// Looks at the last directory that was acknowledged.
async fn look(machine: SimMachine, masters: Vec<String>, known: Arc<Known>, books: Arc<Books>) -> Outcome {
    let (client, world) = worker::connect(&machine, &masters).await?;
    loop {
        let made = known.made.load(Ordering::Relaxed);
        match client.stat(&directory(made - 1)).await {
            Ok(_) => drop(known.seen.fetch_max(made, Ordering::Relaxed)),
            Err(error) if error.code() == ErrorCode::NotFound => {
                books.judge(READER, Some(format!("S4: {} was acknowledged before: {error}", directory(made - 1))));
            }
            // Nobody can say just now.
            Err(_) => {}
        }
        world.clock.sleep(PAUSE).await;
    }
}
