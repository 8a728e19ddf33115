//! The injected world.
//!
//! Everything a Quarry process takes from its surroundings enters through [`World`]: time, the network,
//! the disk, the metadata store, randomness and the place where blocking work runs. Servers and the client
//! get a `World` in their constructors and never reach around it (`clippy.toml` bans the direct calls), so
//! that the very same code runs on real machines and inside a simulation.
//!
//! | module | seam | real one | simulated one (`quarry-env-sim`) |
//! |---|---|---|---|
//! | [`clock`] | [`Clock`] | tokio's clock and the system's wall clock | tokio's paused clock |
//! | [`net`] | [`Net`] | TCP | turmoil |
//! | [`local`] | [`Net`], too | Unix sockets | none: every call says so |
//! | [`disk`] | [`Disk`], [`DiskFile`] | files | pages that forget what was not synced |
//! | [`kv`] | [`Kv`], [`KvFactory`] | RocksDB (`quarry-env-rocks`) | sorted map that forgets what was not synced |
//! | [`random`] | [`Random`] | the operating system | ChaCha from a seed |
//! | [`blocking`] | [`Blocking`] | tokio's blocking pool, bounded | inline |
//!
//! This crate must not know chunks, files, servers or any protocol.

pub mod blocking;
pub mod clock;
pub mod disk;
pub mod kv;
pub mod local;
pub mod net;
pub mod random;
mod real;

use std::sync::Arc;

pub use blocking::Blocking;
pub use clock::{BootInstant, Clock, Instant};
pub use disk::{Disk, DiskFile, DiskSpace, OpenMode, SyncPoint};
pub use kv::{Batch, Kv, KvError, KvFactory, KvOptions, Recovery, Space};
pub use net::{Listener, Net, Stream};
pub use random::Random;

/// Everything a process takes from its surroundings. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Monotonic and wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Byte streams between machines.
    pub net: Arc<dyn Net>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Opens metadata stores. A client has none: [`kv::NoKv`].
    pub kv: Arc<dyn KvFactory>,
    /// Random numbers.
    pub random: Arc<dyn Random>,
    /// Where blocking work runs.
    pub blocking: Arc<dyn Blocking>,
}

impl World {
    /// The real machine, with the given metadata stores.
    #[must_use]
    pub fn real(kv: Arc<dyn KvFactory>) -> Self {
        real::world(kv)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
