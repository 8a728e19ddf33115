//! The injected world, simulated.
//!
//! What [`quarry_env::World`] gives a process on a real machine, this crate gives it inside one test: disks that
//! forget what was not synced, metadata stores on top of them, a network that can be held or cut, a clock that
//! costs nothing, and randomness from a seed. The same seed gives the same run.
//!
//! | module | what it is | what can go wrong there |
//! |---|---|---|
//! | [`disk`] | [`SimDisk`]: files and names | power loss, skipped syncs, errors, full disk, flipped bits |
//! | [`kv`] | [`SimKvFactory`]: a store as a log file on a disk | what its disk does |
//! | [`net`] | [`SimNet`]: TCP by turmoil | what the test tells turmoil to do |
//! | [`clock`] | [`SimClock`]: tokio's paused time | wall clocks that differ between machines |
//! | [`random`] | [`SimRandom`]: ChaCha8 from a seed | nothing |
//! | [`blocking`] | [`InlineBlocking`]: the caller's own thread; [`LateBlocking`]: later | it takes its time |
//! | [`machine`] | [`SimMachine`]: all of them for one host, boot after boot | its power |
//!
//! This crate must not know chunks, files, servers or any protocol.

pub mod blocking;
pub mod clock;
pub mod disk;
pub mod kv;
pub mod machine;
pub mod net;
pub mod random;

pub use blocking::{InlineBlocking, LateBlocking};
pub use clock::SimClock;
pub use disk::{DiskOp, Injected, SimDisk, Synced};
pub use kv::{HOUSEKEEPING, SimKvFactory};
pub use machine::SimMachine;
pub use net::SimNet;
pub use random::SimRandom;
