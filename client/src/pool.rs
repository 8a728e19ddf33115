//! Connections to chunkservers: few, and used again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quarry_env::{Instant, World, clock::timeout};
use quarry_proto::WireError;
use quarry_types::{ClusterId, ErrorCode, ServerId, limits::CONNECT_DEADLINE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    frames::{self, Conn},
    local::Local,
};

/// An idle connection is used again within this; the server may close an older one.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// Idle connections kept to one server.
const IDLE_PER_SERVER: usize = 4;
/// Idle connections kept in all.
const IDLE_MAX: usize = 64;
/// For how long a caller waits while all connections are in use.
const SLOT_DEADLINE: Duration = Duration::from_secs(30);

type Key = (ServerId, String);

pub(crate) struct Pool {
    world: World,
    local: Arc<Local>,
    slots: Arc<Semaphore>,
    idle: Mutex<BTreeMap<Key, Vec<(Instant, Conn)>>>,
}

/// A connection in use. Dropping it closes it; [`Pool::put`] keeps it for the next one.
pub(crate) struct Pooled {
    pub(crate) conn: Conn,
    pub(crate) slot: Slot,
}

/// The right to one connection.
pub(crate) struct Slot {
    key: Key,
    /// It was idle before: the server may have closed it since.
    pub(crate) reused: bool,
    _permit: OwnedSemaphorePermit,
}

/// Where a chunkserver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) cluster: ClusterId,
    pub(crate) server: ServerId,
    pub(crate) address: String,
}

impl Pool {
    /// `local` is told which servers are on this machine.
    pub(crate) fn new(world: World, local: &Arc<Local>, connections: usize) -> Self {
        Pool { world, local: Arc::clone(local), slots: Arc::new(Semaphore::new(connections)), idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Vec<(Instant, Conn)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `target`; a new one when `fresh`, else an idle one if there is one.
    pub(crate) async fn get(&self, target: &Target, fresh: bool) -> Result<Pooled, WireError> {
        let waiting = timeout(&*self.world.clock, SLOT_DEADLINE, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(permit)) = waiting else {
            let message = "all connections to chunkservers were in use for too long";
            return Err(WireError::new(ErrorCode::Busy, message));
        };
        let key = (target.server, target.address.clone());
        if !fresh && let Some(conn) = self.take_idle(&key) {
            return Ok(Pooled { conn, slot: Slot { key, reused: true, _permit: permit } });
        }
        let mut conn =
            frames::connect(&self.world, &target.address, target.cluster, target.server, CONNECT_DEADLINE).await?;
        self.local.learn(target.server, conn.local_socket.take());
        Ok(Pooled { conn, slot: Slot { key, reused: false, _permit: permit } })
    }

    /// Keeps a connection on which no conversation is under way.
    pub(crate) fn put(&self, pooled: Pooled) {
        let now = self.world.clock.now();
        let mut idle = self.idle();
        idle.retain(|_, conns| {
            conns.retain(|(since, _)| now.since(*since) < IDLE_FOR);
            !conns.is_empty()
        });
        if idle.values().map(Vec::len).sum::<usize>() >= IDLE_MAX {
            return;
        }
        let conns = idle.entry(pooled.slot.key).or_default();
        if conns.len() < IDLE_PER_SERVER {
            conns.push((now, pooled.conn));
        }
    }

    fn take_idle(&self, key: &Key) -> Option<Conn> {
        let now = self.world.clock.now();
        let mut idle = self.idle();
        let conns = idle.get_mut(key)?;
        let found = std::iter::from_fn(|| conns.pop()).find(|(since, _)| now.since(*since) < IDLE_FOR);
        if conns.is_empty() {
            idle.remove(key);
        }
        found.map(|(_, conn)| conn)
    }
}
