//! The simulator of whole clusters: the master's own decisions over years of simulated failures.
//!
//! It links the cores only, so that it builds in seconds and cannot do I/O. What it will hold is the world (events in
//! virtual time), models of servers, disks and networks, faults, workloads and reports; the decisions are the ones
//! of [`quarry_master_core`], never copies of them.
//!
//! The simulation of the real servers and the real client, on a simulated network and disk, is a test:
//! `tests/tests/sim_world.rs`, over `env/sim`.

pub use quarry_chunkserver_core as chunkserver;
pub use quarry_master_core as master;
