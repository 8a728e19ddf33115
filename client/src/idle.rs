//! Connections to chunkservers on which no conversation is under way, kept to be used again.
//!
//! Chunkservers use this module too: for the next member of a pipeline.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quarry_env::Instant;
use quarry_types::ServerId;

use crate::frames::Conn;

/// An idle connection is used again within this; the server may close an older one.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// Idle connections kept to one server.
const IDLE_PER_SERVER: usize = 16;
/// Idle connections kept in all.
const IDLE_MAX: usize = 64;

type Key = (ServerId, String);

/// Idle connections, each to a server at an address. Who takes one must expect that the server has closed it.
#[derive(Default)]
pub struct IdleConns {
    conns: Mutex<BTreeMap<Key, Vec<(Instant, Conn)>>>,
}

impl IdleConns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<(Instant, Conn)>>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection on which no conversation is under way, where there is room for it, and lets go of those that were
    /// idle for too long.
    pub fn put(&self, now: Instant, server: ServerId, address: String, conn: Conn) {
        let mut conns = self.lock();
        conns.retain(|_, conns| {
            conns.retain(|(since, _)| now.since(*since) < IDLE_FOR);
            !conns.is_empty()
        });
        if conns.values().map(Vec::len).sum::<usize>() >= IDLE_MAX {
            return;
        }
        let conns = conns.entry((server, address)).or_default();
        if conns.len() < IDLE_PER_SERVER {
            conns.push((now, conn));
        }
    }

    /// The connection to `server` at `address` that was used last, if there is one.
    pub fn take(&self, now: Instant, server: ServerId, address: &str) -> Option<Conn> {
        let key = (server, address.to_owned());
        let mut all = self.lock();
        let conns = all.get_mut(&key)?;
        let found = std::iter::from_fn(|| conns.pop()).find(|(since, _)| now.since(*since) < IDLE_FOR);
        if conns.is_empty() {
            all.remove(&key);
        }
        found.map(|(_, conn)| conn)
    }
}
