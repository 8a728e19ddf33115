//! Other systems on the same machine, with the same data: three servers, three copies.
//!
//! A peer is started, measured, stopped and cleaned up by the suite. One that is not installed is left out, loudly.

mod load;
mod moosefs;
mod ports;
mod seaweedfs;
mod spawned;

use std::path::Path;

use crate::{
    bed::{Durability, fresh},
    book::Book,
    error::Outcome,
    measured::Measured,
};
use load::{Files, Load};

/// Large files at once.
const STREAMS: u32 = 4;

/// A running peer.
pub trait Peer {
    /// As it stands in the results.
    fn name(&self) -> &'static str;
    /// All its processes.
    fn pids(&self) -> Vec<u32>;
    /// Its files, written with this durability.
    fn files(&self, durability: Durability) -> Box<dyn Files>;

    /// Puts one large file and gets it.
    ///
    /// # Errors
    /// What the peer said.
    fn stream(&self, bytes: u64, durability: Durability) -> Outcome<[Measured; 2]> {
        let load = Load::new(self.files(durability), self.pids())?;
        let put = load.put("stream.put", 1, 1, bytes)?;
        let got = load.get("stream.get", 1, 1, bytes)?;
        load.remove("stream.remove", 1, 1)?;
        Ok([put, got])
    }

    /// The same with four files at once, which have `bytes` together.
    ///
    /// # Errors
    /// What the peer said.
    fn parallel(&self, bytes: u64, durability: Durability) -> Outcome<[Measured; 2]> {
        let load = Load::new(self.files(durability), self.pids())?;
        let (count, each) = (u64::from(STREAMS), bytes / u64::from(STREAMS));
        let put = load.put("parallel.put", STREAMS, count, each)?;
        let got = load.get("parallel.get", STREAMS, count, each)?;
        load.remove("parallel.remove", STREAMS, count)?;
        Ok([put, got])
    }

    /// Puts, stats, gets and removes many small files.
    ///
    /// # Errors
    /// What the peer said.
    fn small(&self, bytes: u64, files: u64, at_once: u32, durability: Durability) -> Outcome<[Measured; 4]> {
        let load = Load::new(self.files(durability), self.pids())?;
        Ok([
            load.put("small.put", at_once, files, bytes)?,
            load.stat("small.stat", at_once, files, bytes)?,
            load.get("small.get", at_once, files, bytes)?,
            load.remove("small.remove", at_once, files)?,
        ])
    }
}

/// Starts every peer that is installed, to write with this durability.
///
/// # Errors
/// Never for one that is missing or does not start: that is a note in the book.
pub fn all(work: &Path, durability: Durability, book: &mut Book) -> Outcome<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    let seen = |version: String, book: &mut Book| {
        if !book.machine.peers.contains(&version) {
            book.machine.peers.push(version);
        }
    };
    match moosefs::MooseFs::start(&fresh(work, "moosefs")?, durability) {
        Ok(peer) => {
            seen(peer.version(), book);
            peers.push(Box::new(peer));
        }
        Err(why) => book.note(format!("SKIPPED: MooseFS; {why}")),
    }
    match seaweedfs::SeaweedFs::start(&fresh(work, "seaweedfs")?) {
        Ok(peer) => {
            seen(peer.version(), book);
            peers.push(Box::new(peer));
        }
        Err(why) => book.note(format!("SKIPPED: SeaweedFS; {why}")),
    }
    Ok(peers)
}
