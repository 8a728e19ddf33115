//! What the machine can do: the same work without Quarry, in a process of its own, so that its processor time is its own.
//!
//! `quarry-bench floor NAME` prints one [`Measured`] as JSON.

mod echo;
mod kv;
mod pread;
mod read;
pub mod ring;
mod rpc;
pub mod serve;
mod write;

use std::{path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};

use crate::{error::Outcome, measured::Measured};

/// When the floor of writing syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// Never.
    None,
    /// Each of the three files each 64 MiB, as chunks are sealed.
    Chunk,
    /// Each of the three files once, at the end.
    End,
}

/// A floor.
#[derive(Clone, Debug, Subcommand)]
pub enum Floor {
    /// One process that copies the same bytes to three files and checksums them once
    Write {
        /// Where the files are made
        #[arg(long)]
        dir: PathBuf,
        /// Bytes of each
        #[arg(long)]
        bytes: u64,
        /// When they are synced
        #[arg(long)]
        sync: Sync,
    },
    /// Reads a cached file and checksums it
    Read {
        /// The file; made when it is missing
        #[arg(long)]
        file: PathBuf,
        /// Its bytes
        #[arg(long)]
        bytes: u64,
    },
    /// Reads 64 KiB at random offsets of a cached file and checksums them
    Pread {
        /// The file; made when it is missing
        #[arg(long)]
        file: PathBuf,
        /// Its bytes
        #[arg(long)]
        bytes: u64,
        /// Bytes of each read
        #[arg(long)]
        size: usize,
        /// Reads
        #[arg(long)]
        operations: u64,
    },
    /// RocksDB: small records written in synced batches
    Kv {
        /// Where the store is made
        #[arg(long)]
        dir: PathBuf,
        /// Records of a batch
        #[arg(long)]
        batch: u32,
        /// For how long
        #[arg(long)]
        seconds: f64,
    },
    /// Empty gRPC calls to another process
    Rpc {
        /// At once
        #[arg(long)]
        concurrency: u32,
        /// For how long
        #[arg(long)]
        seconds: f64,
    },
    /// Empty frames to another process and back, one after the other
    Echo {
        /// Round trips
        #[arg(long)]
        operations: u64,
    },
    /// The other end of `rpc`; prints its address and serves until its standard input ends
    ServeRpc,
    /// The other end of `echo`
    ServeEcho,
}

/// Measures one; a server measures nothing.
///
/// # Errors
/// What the system said.
pub fn run(floor: &Floor) -> Outcome<Option<Measured>> {
    let for_seconds = Duration::from_secs_f64;
    Ok(Some(match floor {
        Floor::Write { dir, bytes, sync } => write::run(dir, *bytes, *sync)?,
        Floor::Read { file, bytes } => read::run(file, *bytes)?,
        Floor::Pread { file, bytes, size, operations } => pread::run(file, *bytes, *size, *operations)?,
        Floor::Kv { dir, batch, seconds } => kv::run(dir, *batch, for_seconds(*seconds))?,
        Floor::Rpc { concurrency, seconds } => rpc::run(*concurrency, for_seconds(*seconds))?,
        Floor::Echo { operations } => echo::run(*operations)?,
        Floor::ServeRpc => return rpc::serve().map(|()| None),
        Floor::ServeEcho => return echo::serve().map(|()| None),
    }))
}
