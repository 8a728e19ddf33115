//! The machines of the simulated cluster and what runs on them.

use std::{sync::Arc, time::Duration};

use quarry_chunkserver::{
    server::{Chunkserver, ChunkserverConfig},
    store::DirConfig,
};
use quarry_chunkserver_core::{Durability, scrub::Pace};
use quarry_env_sim::SimMachine;
use quarry_master::{InitConfig, Master, MasterConfig, init};
use quarry_types::ClusterKey;

use super::{
    books::{Books, OfMaster, OfServer, Server},
    watched::watched,
};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

pub const MASTER: &str = "master:9400";
/// Where a chunkserver keeps everything.
pub const DATA: &str = "/data";

/// The master and the chunkservers of a cluster that was created.
pub struct Machines {
    pub master: SimMachine,
    pub servers: Vec<(&'static str, SimMachine)>,
    /// Watches what they write.
    pub books: Arc<Books>,
    plan: Plan,
    key: ClusterKey,
}

/// What a cluster is made of.
#[derive(Clone)]
pub struct Plan {
    /// The chunkservers and their racks.
    pub servers: Vec<(&'static str, &'static str)>,
    /// Bytes that each may use.
    pub capacity: Option<u64>,
    pub master: MasterConfig,
    /// As an operator would set them.
    pub settings: Vec<(&'static str, String)>,
}

impl Plan {
    /// Every server on a rack of its own. Waits are as short as the others here, so that runs go through what comes after.
    pub fn new(servers: &[&'static str]) -> Self {
        let settings = vec![("trash", "3s".into()), ("orphan-grace", "5s".into())];
        Plan {
            servers: servers.iter().map(|name| (*name, *name)).collect(),
            capacity: None,
            master: master_config(),
            settings,
        }
    }
}

pub fn builder(seed: u64) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(5));
    builder
}

/// How masters of these tests run, unless one wants it otherwise.
pub fn master_config() -> MasterConfig {
    MasterConfig { listen: MASTER.into(), advertise: Some(MASTER.into()), http: None, ..MasterConfig::new("/master") }
}

impl Machines {
    /// Creates the cluster on the master's disk, and cuts its power then.
    pub fn create(seed: u64, plan: Plan) -> Self {
        let master = SimMachine::new("master", seed);
        let mut init = InitConfig { advertise: MASTER.into(), ..InitConfig::new("/master") };
        for (name, value) in &plan.settings {
            init.settings.change(name, value).expect("settings that are there");
        }
        let mut sim = builder(seed).build();
        let (machine, key_file) = (master.clone(), init.key_file.clone());
        sim.client("master", async move {
            init::init(&machine.boot(), &init).await?;
            Ok(())
        });
        sim.run().expect("the cluster is created");
        let text = quarry_env::Disk::read_small(master.disk(), &key_file, 4096).expect("init left a key");
        master.power_loss();
        let key = ClusterKey::from_file(&String::from_utf8_lossy(&text)).expect("a key");
        let servers: Vec<_> = plan.servers.iter().map(|(name, _)| (*name, SimMachine::new(name, seed))).collect();
        let watched = servers.iter().zip(&plan.servers);
        let watched =
            watched.map(|((name, machine), (_, rack))| Server { name, rack, disk: machine.disk().clone() }).collect();
        let books = Arc::new(Books::new(watched));
        Machines { master, servers, books, plan, key }
    }

    /// Lets them run in `sim`.
    pub fn start(&self, sim: &mut turmoil::Sim<'_>) {
        let (machine, config) = (self.master.clone(), self.plan.master.clone());
        let books = Arc::clone(&self.books);
        sim.host("master", move || serve_master(machine.clone(), config.clone(), Arc::clone(&books)));
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
            masters: vec![MASTER.into()],
            listen: format!("{name}:9410"),
            advertise: Some(format!("{name}:9410")),
            rack: rack.into(),
            durability: Durability::Sealed,
            // Often, so that scrubbing is part of every run.
            scrub: Pace { period: Duration::from_secs(60), rate: 32 << 20 },
            http: None,
            local_socket: None,
        }
    }
}

async fn serve_master(machine: SimMachine, config: MasterConfig, books: Arc<Books>) -> Outcome {
    match Master::start(watched(machine.boot(), "state-", Arc::new(OfMaster(books))), config).await {
        // It is not dropped: a machine without power says goodbye to nobody (and tonic would do so in random order).
        Ok(master) => end(&machine, master.failed().await).await,
        Err(error) => end(&machine, error.to_string()).await,
    }
}

async fn serve_chunks(machine: SimMachine, config: ChunkserverConfig, watcher: OfServer) -> Outcome {
    match Chunkserver::start(watched(machine.boot(), "index", Arc::new(watcher)), config).await {
        Ok(_running) => std::future::pending().await,
        Err(error) => end(&machine, error.to_string()).await,
    }
}

/// A process may end when its disk has lost power, and for no other reason.
async fn end(machine: &SimMachine, why: String) -> Outcome {
    if !machine.disk().is_off() {
        return Err(why.into());
    }
    std::future::pending().await
}
