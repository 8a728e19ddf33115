//! The harness of the whole-system tests: real processes on this machine, each on a port that the kernel picks, in
//! a temporary directory, ended when the test ends.
//!
//! | module | holds |
//! |---|---|
//! | [`cluster`] | a master and chunkservers as processes; kill, stop, continue, restart |
//! | [`group`] | the masters of a cluster: who leads, replacing one |
//! | [`process`] | one process that ends with its guard |
//! | [`cli`] | running `quarry` and reading what it prints |
//! | [`data`] | reproducible bytes and their checksums |
//! | [`damage`] | damage to chunk files |
//! | [`namespace`] | a network namespace whose way to a port can be cut; needs root |
//! | [`network`] | several of them on one switch, whose links can be cut in one direction; needs root |
//! | [`mount`] | a file system in memory that can be taken away; needs root |
//! | [`pages`] | what servers show over HTTP |
//! | [`wait`] | waiting for a condition, with a deadline |
//!
//! It knows the binaries from the outside only: their flags, their ports, what they print.

pub mod cli;
pub mod cluster;
pub mod damage;
pub mod data;
pub mod group;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod pages;
pub mod process;
pub mod wait;

pub use cli::Output;
pub use cluster::{Cluster, Options};

/// Says loudly that a test did not test anything, and why: only for what the machine does not let us do.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}, because {why}");
}
