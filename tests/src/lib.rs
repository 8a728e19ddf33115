//! The harness of the whole-system tests: real processes on this machine, each on a port that the kernel picks, in
//! a temporary directory, ended when the test ends.
//!
//! | module | holds |
//! |---|---|
//! | [`cluster`] | a master and chunkservers as processes; kill, stop, continue, restart |
//! | [`process`] | one process that ends with its guard |
//! | [`cli`] | running `quarry` and reading what it prints |
//! | [`data`] | reproducible bytes and their checksums |
//! | [`wait`] | waiting for a condition, with a deadline |
//!
//! It knows the binaries from the outside only: their flags, their ports, what they print.

pub mod cli;
pub mod cluster;
pub mod data;
pub mod process;
pub mod wait;

pub use cli::Output;
pub use cluster::{Cluster, Options};
