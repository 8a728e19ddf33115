//! The load on a peer: the same bytes and as many at once as `quarry bench` has.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use crate::{
    error::{Failed, Outcome},
    floor::ring,
    measured::{Latencies, Measured, Meter},
    proc,
};

/// A peer's files.
pub trait Files: Send + Sync {
    /// Writes a file of `bytes` bytes from `ring`, which repeats.
    ///
    /// # Errors
    /// What the peer said.
    fn put(&self, name: &str, ring: &[u8], bytes: u64) -> Outcome;
    /// Reads all of a file and returns its length.
    ///
    /// # Errors
    /// What the peer said.
    fn get(&self, name: &str) -> Outcome<u64>;
    /// Its length.
    ///
    /// # Errors
    /// What the peer said.
    fn stat(&self, name: &str) -> Outcome<u64>;
    /// Removes it.
    ///
    /// # Errors
    /// What the peer said.
    fn remove(&self, name: &str) -> Outcome;
}

/// Runs operations on files.
pub struct Load {
    files: Box<dyn Files>,
    pids: Vec<u32>,
    ring: Vec<u8>,
    /// Names differ from those of any other load: peers keep what was removed for a while.
    prefix: String,
}

impl Load {
    /// On these files of a peer whose processes are these.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(files: Box<dyn Files>, pids: Vec<u32>) -> Outcome<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("load{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Load { files, pids, ring: ring::ring()?, prefix })
    }

    /// Puts `count` files of `bytes` bytes.
    ///
    /// # Errors
    /// The first of an operation; so with the others.
    pub fn put(&self, case: &str, at_once: u32, count: u64, bytes: u64) -> Outcome<Measured> {
        self.run(case, at_once, count, |name| self.files.put(name, &self.ring, bytes).map(|()| bytes))
    }

    /// Gets them.
    pub fn get(&self, case: &str, at_once: u32, count: u64, bytes: u64) -> Outcome<Measured> {
        self.run(case, at_once, count, |name| check(name, self.files.get(name)?, bytes))
    }

    /// Looks them up.
    pub fn stat(&self, case: &str, at_once: u32, count: u64, bytes: u64) -> Outcome<Measured> {
        self.run(case, at_once, count, |name| check(name, self.files.stat(name)?, bytes).map(|_| 0))
    }

    /// Removes them.
    pub fn remove(&self, case: &str, at_once: u32, count: u64) -> Outcome<Measured> {
        self.run(case, at_once, count, |name| self.files.remove(name).map(|()| 0))
    }

    fn run(
        &self,
        case: &str,
        at_once: u32,
        count: u64,
        operation: impl Fn(&str) -> Outcome<u64> + Sync,
    ) -> Outcome<Measured> {
        let next = AtomicU64::new(0);
        let (cpu, meter) = (proc::cpu_of(&self.pids), Meter::begin()?);
        let worker = || {
            let (mut latencies, mut bytes) = (Latencies::new()?, 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Failed>((latencies, bytes));
                }
                let began = Instant::now();
                bytes += operation(&format!("{}-{number:07}", self.prefix))?;
                latencies.add(began.elapsed());
            }
        };
        let ended: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
            let lost = |_| Err(Failed::new(case, "a thread ended"));
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(lost)).collect()
        });
        let (mut all, mut bytes) = (Latencies::new()?, 0);
        for one in ended {
            let (latencies, moved) = one?;
            all.merge(&latencies)?;
            bytes += moved;
        }
        meter.end(case, at_once, bytes, &all, proc::cpu_of(&self.pids) - cpu)
    }
}

fn check(name: &str, found: u64, wanted: u64) -> Outcome<u64> {
    if found == wanted { Ok(found) } else { Err(Failed::new(name, format!("{found} of {wanted} bytes are there"))) }
}
