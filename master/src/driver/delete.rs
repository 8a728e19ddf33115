//! Deletes doomed chunks on their servers, and forgets those that no server holds any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use quarry_master_core::{
    command::{ForgetDoomed, Kind, ServerWish},
    keys,
    query::{self, ChunkView},
    tables::{ReadTables, Table},
};
use quarry_proto::{WireError, v1};
use quarry_types::{ChunkId, ErrorCode, InodeId, ServerId, planted};

use crate::{
    error::{Fault, fault},
    shared::{Leading, Shared, Soft},
};

/// Doomed chunks looked at in one go.
const STEP: usize = 1000;
/// Chunks in one command.
pub(super) const CHUNKS_PER_COMMAND: usize = 256;
/// Removing files takes a while on a busy disk.
const DELETE_DEADLINE: Duration = Duration::from_secs(15);
/// Servers talked to at the same time.
const SERVERS_AT_ONCE: usize = 64;

/// Tells a server to delete chunks; those that it deleted, or leaves a tombstone for.
pub(super) async fn send(leading: &Leading, server: ServerId, chunks: &[ChunkId]) -> Result<Vec<ChunkId>, Fault> {
    if leading.is_held() {
        return Err(fault(ErrorCode::Conflict, "deletions are held back until `quarry metadata release`"));
    }
    let body = v1::command::Body::Delete(v1::Delete { chunks: chunks.iter().map(|c| c.0).collect() });
    let result = leading.dispatch.call(server, body, DELETE_DEADLINE).await?;
    let failed: BTreeSet<u64> = result.failures.iter().map(|f| f.chunk).collect();
    for failure in result.failures {
        let error = WireError::from(failure.error.unwrap_or_default());
        tracing::warn!(%server, chunk = %ChunkId(failure.chunk), %error, "a replica could not be deleted yet");
    }
    Ok(chunks.iter().filter(|c| !failed.contains(&c.0)).copied().collect())
}

/// The servers that have confirmed, of chunks that still wait for others.
type Confirmed = BTreeMap<ChunkId, BTreeSet<ServerId>>;

pub(super) struct Deletion<'a> {
    shared: &'a Shared,
    leading: &'a Leading,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the next look begins: chunks that wait for a server which is away must not hold up others.
    after: Option<ChunkId>,
    confirmed: Confirmed,
}

impl<'a> Deletion<'a> {
    pub fn new(shared: &'a Shared, leading: &'a Leading) -> Self {
        Deletion { shared, leading, state: Mutex::default() }
    }

    pub fn stepper(self) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + 'a>> {
        let this = Arc::new(self);
        move || {
            let this = this.clone();
            Box::pin(async move { this.step().await })
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn step(&self) -> Result<bool, Fault> {
        if self.leading.is_held() {
            return Ok(false);
        }
        let after = self.state().after;
        let doomed = self.shared.peek(move |tables| Ok(query::doomed(tables, after, STEP)?)).await?;
        if planted!("delete-before-doomed") {
            self.delete_removed().await?;
        }
        let more = doomed.len() == STEP;
        self.state().after = doomed.last().filter(|_| more).map(|chunk| chunk.id);
        let mut by_server: BTreeMap<ServerId, Vec<ChunkId>> = BTreeMap::new();
        for chunk in &doomed {
            for server in self.holders(chunk) {
                by_server.entry(server).or_default().push(chunk.id);
            }
        }
        by_server.retain(|server, _| self.leading.dispatch.reaches(*server));
        futures::stream::iter(by_server)
            .for_each_concurrent(SERVERS_AT_ONCE, |(server, chunks)| self.delete(server, chunks))
            .await;
        self.forget(&doomed).await?;
        // With more pages the walk goes on at once; a page full of chunks that wait is left behind all the same.
        Ok(more)
    }

    /// A planted bug: chunks of what was removed are deleted although nothing has doomed them.
    async fn delete_removed(&self) -> Result<(), Fault> {
        let removed = |tables: &dyn ReadTables| {
            let mut all = Vec::new();
            for (key, _) in tables.scan(Table::Removed, &[], None, STEP)? {
                let inode = keys::read_two(&key).map_or(InodeId(0), |(_, inode)| InodeId(inode));
                all.extend(query::rows(tables, inode, 0, STEP)?.chunks);
            }
            Ok(all)
        };
        for chunk in self.shared.peek(removed).await? {
            for server in self.holders(&chunk) {
                // Who cannot be reached keeps it.
                let _away = send(self.leading, server, &[chunk.id]).await;
            }
        }
        Ok(())
    }

    /// The servers that have to confirm and have not yet.
    fn holders(&self, chunk: &ChunkView) -> Vec<ServerId> {
        let state = self.state();
        let confirmed = state.confirmed.get(&chunk.id);
        let soft = self.leading.soft();
        let mut servers: BTreeSet<ServerId> = soft.locations.holders(chunk.id).map(|(server, _)| server).collect();
        servers.extend(chunk.record.members.iter().chain(&chunk.record.holders));
        servers.retain(|server| !is_known_empty(&soft, *server, chunk.id, self.leading));
        servers.into_iter().filter(|server| confirmed.is_none_or(|done| !done.contains(server))).collect()
    }

    async fn delete(&self, server: ServerId, chunks: Vec<ChunkId>) {
        for some in chunks.chunks(CHUNKS_PER_COMMAND) {
            match send(self.leading, server, some).await {
                Ok(deleted) => {
                    let mut state = self.state();
                    for chunk in deleted {
                        state.confirmed.entry(chunk).or_default().insert(server);
                    }
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "doomed chunks wait for their server");
                    return;
                }
            }
        }
    }

    async fn forget(&self, doomed: &[ChunkView]) -> Result<(), Fault> {
        let gone: Vec<ChunkId> = doomed.iter().filter(|c| self.holders(c).is_empty()).map(|c| c.id).collect();
        if !gone.is_empty() {
            self.shared.propose(Kind::ForgetDoomed(ForgetDoomed { chunks: gone.clone() })).await?;
            let mut state = self.state();
            gone.iter().for_each(|chunk| {
                state.confirmed.remove(chunk);
            });
        }
        Ok(())
    }
}

/// A server that was named as a member or holder, but reported to this leader without the chunk, or is decommissioned and
/// away: should it ever come back, what it has of the chunk is an orphan. One that is connected is asked all the same: its
/// answer is a tombstone against a grant that is still on its way.
fn is_known_empty(soft: &Soft, server: ServerId, chunk: ChunkId, leading: &Leading) -> bool {
    if leading.dispatch.reaches(server) {
        return false;
    }
    let reported_without = soft.locations.number(server).is_some() && soft.locations.replica(server, chunk).is_none();
    reported_without || soft.servers.wish(server) == ServerWish::Decommissioned
}
