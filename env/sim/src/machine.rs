//! One machine: a disk that outlives its processes, and a world for each life of a process.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use quarry_env::World;

use crate::{LateBlocking, SimClock, SimDisk, SimKvFactory, SimNet, SimRandom};

/// One machine of a simulated cluster. Cheap to clone; clones are the same machine.
#[derive(Clone, Debug)]
pub struct SimMachine {
    name: Arc<str>,
    seed: u64,
    disk: SimDisk,
    boots: Arc<AtomicU64>,
    losses: Arc<AtomicU64>,
    skew_ms: Arc<AtomicI64>,
    late_ms: Arc<AtomicU64>,
}

impl SimMachine {
    /// A machine with an empty disk. All its chance comes from `seed` and `name`.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        SimMachine {
            name: name.into(),
            seed,
            disk: SimDisk::new(),
            boots: Arc::default(),
            losses: Arc::default(),
            skew_ms: Arc::default(),
            late_ms: Arc::default(),
        }
    }

    /// Its disk, for faults and inspection.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The world of a process that starts now. Inside turmoil, call it on the host that the process runs on.
    /// Handles of earlier lives keep working until [`SimMachine::kill`] or [`SimMachine::power_loss`].
    #[must_use]
    pub fn boot(&self) -> World {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let disk = self.disk.mount();
        World {
            clock: Arc::new(SimClock::new(Arc::clone(&self.skew_ms))),
            net: Arc::new(SimNet),
            kv: Arc::new(SimKvFactory::new(Arc::clone(&disk))),
            disk,
            random: Arc::new(SimRandom::of(self.seed, &self.name, boot)),
            blocking: Arc::new(LateBlocking::new(
                Arc::clone(&self.late_ms),
                SimRandom::of(self.seed, &format!("{}, late jobs", self.name), boot),
            )),
        }
    }

    /// Kills the processes and keeps what the kernel holds: everything written stays. Worlds of earlier boots are
    /// dead afterwards.
    pub fn kill(&self) {
        self.disk.kill();
    }

    /// Cuts the power: what was not synced is lost, kept or torn, as the seed decides. Worlds of earlier boots are
    /// dead afterwards.
    pub fn power_loss(&self) {
        let loss = self.losses.fetch_add(1, Ordering::Relaxed);
        let mut seed = crate::random::derived(self.seed, &self.name, u64::MAX - loss);
        self.disk.power_loss(rand::RngCore::next_u64(&mut seed));
    }

    /// Lets blocking work of its processes wait for less than so long before it is done; with 0 it is done at once.
    pub fn set_late_ms(&self, late_ms: u64) {
        self.late_ms.store(late_ms, Ordering::Relaxed);
    }

    /// Sets how far this machine's wall clock is off.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}
