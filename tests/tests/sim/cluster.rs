//! The machines of the simulated cluster and what runs on them.

use std::time::Duration;

use quarry_chunkserver::{
    server::{Chunkserver, ChunkserverConfig},
    store::DirConfig,
};
use quarry_chunkserver_core::{Durability, scrub::Pace};
use quarry_env_sim::SimMachine;
use quarry_master::{InitConfig, Master, MasterConfig, init};
use quarry_types::ClusterKey;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

pub const MASTER: &str = "master:9400";

/// The master and the chunkservers of a cluster that was created.
pub struct Machines {
    pub master: SimMachine,
    pub servers: Vec<(&'static str, SimMachine)>,
    key: ClusterKey,
    config: MasterConfig,
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
    pub fn create(seed: u64, servers: &[&'static str], config: MasterConfig, reader_grace: Duration) -> Self {
        let master = SimMachine::new("master", seed);
        let mut init = InitConfig { advertise: MASTER.into(), ..InitConfig::new("/master") };
        init.settings.reader_grace_ms = u64::try_from(reader_grace.as_millis()).expect("a short time");
        // As short as the other waits, so that runs go through what comes after them.
        for (name, value) in [("trash", "3s"), ("orphan-grace", "5s")] {
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
        Machines {
            master,
            servers: servers.iter().map(|name| (*name, SimMachine::new(name, seed))).collect(),
            key: ClusterKey::from_file(&String::from_utf8_lossy(&text)).expect("a key"),
            config,
        }
    }

    /// Lets them run in `sim`.
    pub fn start(&self, sim: &mut turmoil::Sim<'_>) {
        let (machine, config) = (self.master.clone(), self.config.clone());
        sim.host("master", move || serve_master(machine.clone(), config.clone()));
        for (name, machine) in self.servers.iter().cloned() {
            let key = self.key.clone();
            sim.host(name, move || serve_chunks(machine.clone(), name, key.clone()));
        }
    }
}

async fn serve_master(machine: SimMachine, config: MasterConfig) -> Outcome {
    match Master::start(machine.boot(), config).await {
        // It is not dropped: a machine without power says goodbye to nobody (and tonic would do so in random order).
        Ok(master) => end(&machine, master.failed().await).await,
        Err(error) => end(&machine, error.to_string()).await,
    }
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
        // Often, so that scrubbing is part of every run.
        scrub: Pace { period: Duration::from_secs(60), rate: 32 << 20 },
        http: None,
    };
    match Chunkserver::start(machine.boot(), config).await {
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
