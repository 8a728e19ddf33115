//! The numbers that bound a simulation.

/// Chunkservers: as many as a cluster takes.
pub const SERVERS_MAX: usize = quarry_master_core::limits::SERVERS_MAX;
/// Disks of one server: a replica's place has six bits for them.
pub const DISKS_MAX: usize = 64;
/// Chunks: at 100 million a run takes about 4 GiB.
pub const CHUNKS_MAX: usize = 200_000_000;
/// Lines of a timeline; further ones are counted.
pub const TIMELINE_MAX: usize = 2000;
/// Points of a plot.
pub const POINTS: usize = 400;
/// Runs of a sweep.
pub const RUNS_MAX: usize = 100_000;
/// Faults by chance of one kind, and chunks written, that are expected in a run: about an hour's work.
pub const HAPPENINGS_MAX: u64 = 100_000_000;
