//! Connections to chunkservers: few, and used again.

use std::{sync::Arc, time::Duration};

use quarry_env::{World, clock::timeout};
use quarry_proto::WireError;
use quarry_types::{ClusterId, ErrorCode, ServerId, limits::CONNECT_DEADLINE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    frames::{self, Conn},
    idle::IdleConns,
    local::Local,
};

/// For how long a caller waits while all connections are in use.
const SLOT_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Pool {
    world: World,
    local: Arc<Local>,
    slots: Arc<Semaphore>,
    connections: usize,
    idle: IdleConns,
}

/// A connection in use. Dropping it closes it; [`Pool::put`] keeps it for the next one.
pub(crate) struct Pooled {
    pub(crate) conn: Conn,
    pub(crate) slot: Slot,
}

/// The right to one connection.
pub(crate) struct Slot {
    server: ServerId,
    address: String,
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
        Pool {
            world,
            local: Arc::clone(local),
            slots: Arc::new(Semaphore::new(connections)),
            connections,
            idle: IdleConns::default(),
        }
    }

    /// A connection to `target`; a new one when `fresh`, else an idle one if there is one.
    pub(crate) async fn get(&self, target: &Target, fresh: bool) -> Result<Pooled, WireError> {
        let waiting = timeout(&*self.world.clock, SLOT_DEADLINE, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(permit)) = waiting else {
            let message = "all connections to chunkservers were in use for too long";
            return Err(WireError::new(ErrorCode::Busy, message));
        };
        let slot = |reused| Slot { server: target.server, address: target.address.clone(), reused, _permit: permit };
        let now = self.world.clock.now();
        if !fresh && let Some(conn) = self.idle.take(now, target.server, &target.address) {
            return Ok(Pooled { conn, slot: slot(true) });
        }
        let mut conn =
            frames::connect(&self.world, &target.address, target.cluster, target.server, CONNECT_DEADLINE).await?;
        self.local.learn(target.server, conn.local_socket.take());
        Ok(Pooled { conn, slot: slot(false) })
    }

    /// Whether so many may still be made that one can be taken before it is needed: whoever needs one now must not wait for it.
    pub(crate) fn has_spare(&self) -> bool {
        self.slots.available_permits() > self.connections / 2
    }

    /// Keeps a connection on which no conversation is under way.
    pub(crate) fn put(&self, pooled: Pooled) {
        let Pooled { conn, slot } = pooled;
        self.idle.put(self.world.clock.now(), slot.server, slot.address, conn);
    }
}

#[cfg(test)]
mod tests {
    use quarry_env::kv::NoKv;

    use super::*;
    use crate::ClientConfig;

    #[tokio::test]
    async fn s9_what_is_not_needed_yet_takes_no_more_than_half_of_all_connections() {
        let world = World::real(Arc::new(NoKv));
        let local = Local::new(world.clone(), &ClientConfig::new(["a:1"]));
        for (connections, spare) in [(2, 1), (5, 3), (64, 32)] {
            let pool = Pool::new(world.clone(), &local, connections);
            let mut taken = Vec::new();
            while pool.has_spare() {
                taken.push(Arc::clone(&pool.slots).acquire_owned().await);
            }
            assert_eq!(taken.len(), spare, "of {connections}");
        }
    }
}
