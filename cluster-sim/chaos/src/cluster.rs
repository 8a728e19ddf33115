//! The machines of the simulated cluster and what runs on them.

use std::{sync::Arc, time::Duration};

use quarry_chunkserver::{
    server::{Chunkserver, ChunkserverConfig},
    store::{DirConfig, INDEX_BYTES},
};
use quarry_chunkserver_core::{Durability, scrub::Pace};
use quarry_env_sim::SimMachine;
use quarry_master::{Master, MasterConfig};
use quarry_types::ClusterKey;

use crate::{
    books::{Books, OfMaster, OfServer, Server},
    masters,
    moments::Moments,
    watched::watched,
};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Where a chunkserver keeps everything.
pub const DATA: &str = "/data";
/// Where a master does.
pub const MASTER_DATA: &str = "/master";

/// By how much the first master's wall clock is off, in milliseconds: something from outside the seed, for the test that shows
/// that this would be noticed.
const BIAS_MS: &str = "QUARRY_CHAOS_BIAS_MS";

/// The masters and the chunkservers of a cluster that was created.
pub struct Machines {
    pub masters: Vec<(&'static str, SimMachine)>,
    pub servers: Vec<(&'static str, SimMachine)>,
    /// Watches what they write.
    pub books: Arc<Books>,
    plan: Plan,
    key: ClusterKey,
}

/// What a cluster is made of.
#[derive(Clone)]
pub struct Plan {
    /// How many masters, one or three.
    pub masters: usize,
    /// The chunkservers and their racks.
    pub servers: Vec<(&'static str, &'static str)>,
    /// Bytes that each may use.
    pub capacity: Option<u64>,
    pub durability: Durability,
    /// A writer lease and a session end without a call after this.
    pub lease: Duration,
    pub session: Duration,
    /// As an operator would set them.
    pub settings: Vec<(&'static str, String)>,
}

impl Plan {
    /// One master, and every server on a rack of its own. Waits are as short as the others here, so that runs go through what
    /// comes after.
    pub fn new(servers: &[&'static str]) -> Self {
        let settings = vec![("trash", "3s".into()), ("orphan-grace", "5s".into())];
        let config = MasterConfig::new(MASTER_DATA);
        Plan {
            masters: 1,
            servers: servers.iter().map(|name| (*name, *name)).collect(),
            capacity: None,
            durability: Durability::Sealed,
            lease: config.lease,
            session: config.session,
            settings,
        }
    }

    /// The masters as clients and chunkservers are told them.
    pub fn addresses(&self) -> Vec<String> {
        masters::NAMES.iter().take(self.masters).map(|name| masters::address(name)).collect()
    }

    /// How the master of this name runs.
    pub fn master(&self, name: &str) -> MasterConfig {
        MasterConfig {
            listen: masters::address(name),
            advertise: Some(masters::address(name)),
            http: None,
            lease: self.lease,
            session: self.session,
            key_file: masters::KEY_FILE.into(),
            ..MasterConfig::new(MASTER_DATA)
        }
    }
}

/// Connections and pieces that wait at a machine. A kernel would refuse the next one; turmoil ends the run instead, so it is more
/// than whoever comes back after a long silence finds.
const BACKLOG: usize = 1 << 14;

pub fn builder(seed: u64) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .tcp_capacity(BACKLOG)
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(5));
    builder
}

impl Machines {
    /// Creates the cluster on the masters' disks, and cuts their power then. `others`: who else will be there.
    pub fn create(seed: u64, plan: Plan, others: Vec<&'static str>) -> Self {
        let (masters, key) = masters::create(seed, &plan);
        if let Some(bias_ms) = std::env::var(BIAS_MS).ok().and_then(|text| text.parse().ok()) {
            masters[0].1.set_skew_ms(bias_ms);
        }
        let servers: Vec<_> = plan.servers.iter().map(|(name, _)| (*name, SimMachine::new(name, seed))).collect();
        let watched = servers.iter().zip(&plan.servers);
        let watched =
            watched.map(|((name, machine), (_, rack))| Server { name, rack, disk: machine.disk().clone() }).collect();
        let of = |(name, machine): &(&'static str, SimMachine)| (*name, machine.disk().clone());
        let others = plan.servers.iter().map(|server| server.0).chain(others).collect();
        let moments = Moments::new(masters.iter().map(of).collect(), others);
        let books = Arc::new(Books::new(watched, plan.durability, moments));
        Machines { masters, servers, books, plan, key }
    }

    /// The masters as clients are told them.
    pub fn addresses(&self) -> Vec<String> {
        self.plan.addresses()
    }

    /// Lets them run in `sim`.
    pub fn start(&self, sim: &mut turmoil::Sim<'_>) {
        for (master, (name, machine)) in self.masters.iter().cloned().enumerate() {
            let (config, books) = (self.plan.master(name), Arc::clone(&self.books));
            sim.host(name, move || serve_master(machine.clone(), config.clone(), OfMaster(Arc::clone(&books), master)));
        }
        for (server, (name, machine)) in self.servers.iter().cloned().enumerate() {
            let config = self.config_of(server);
            let books = Arc::clone(&self.books);
            sim.host(name, move || serve_chunks(machine.clone(), config.clone(), OfServer(Arc::clone(&books), server)));
        }
    }

    fn config_of(&self, server: usize) -> ChunkserverConfig {
        let (name, rack) = self.plan.servers[server];
        ChunkserverConfig {
            dirs: vec![DirConfig { path: DATA.into(), capacity: self.plan.capacity }],
            key: self.key.clone(),
            masters: self.plan.addresses(),
            listen: format!("{name}:9410"),
            advertise: Some(format!("{name}:9410")),
            rack: rack.into(),
            durability: self.plan.durability,
            small_chunks: INDEX_BYTES,
            // Often, so that scrubbing is part of every run.
            scrub: Pace { period: Duration::from_secs(60), rate: 32 << 20 },
            http: None,
            local_socket: None,
        }
    }
}

async fn serve_master(machine: SimMachine, config: MasterConfig, watcher: OfMaster) -> Outcome {
    match Master::start(watched(machine.boot(), Arc::new(watcher)), config).await {
        // It is not dropped: a machine without power says goodbye to nobody (and tonic would do so in random order).
        Ok(master) => end(&machine, master.failed().await).await,
        Err(error) => end(&machine, error.to_string()).await,
    }
}

async fn serve_chunks(machine: SimMachine, config: ChunkserverConfig, watcher: OfServer) -> Outcome {
    match Chunkserver::start(watched(machine.boot(), Arc::new(watcher)), config).await {
        Ok(_running) => std::future::pending().await,
        Err(error) => end(&machine, error.to_string()).await,
    }
}

/// A process may end when its disk has lost power or was told to fail, and for no other reason.
async fn end(machine: &SimMachine, why: String) -> Outcome {
    if !machine.disk().is_off() {
        return Err(why.into());
    }
    std::future::pending().await
}
