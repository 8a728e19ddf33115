//! A file as it was opened: its version, its length, and where its chunks are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_env::clock::timeout;
use quarry_proto::{convert, v1};
use quarry_types::{ChunkId, ClusterId, ErrorCode, ReplicaState, ServerId, limits::LOCATE_PAGE};

use super::{
    Counters,
    conversation::{Conversation, Next, Wanted},
};
use crate::{
    ChunkInfo, ChunkState, ClientError, FileInfo, FileKind,
    client::Shared,
    namespace::Located,
    pool::Target,
    retry::Backoff,
    session::namespace,
    stale::{Lookups, is_of_the_master},
};

/// Chunks whose places are remembered; past it all are asked for again.
const REMEMBERED_MAX: usize = 16 * LOCATE_PAGE;
/// After one member said how far an open chunk can be read: how long to wait for others, who may know of more.
const OTHERS: Duration = Duration::from_secs(1);
/// How long a file that was opened for answers of any master waits for the leader, when hints did not help: an election
/// takes less.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);
/// One complaint to the master.
const COMPLAINT_DEADLINE: Duration = Duration::from_secs(5);

/// A part of a chunk that belongs to the file as it was opened.
pub(super) struct Part {
    pub(super) chunk: ChunkInfo,
    /// In the chunk.
    pub(super) from: u64,
    pub(super) to: u64,
}

pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    lookups: Lookups,
    pub(super) info: FileInfo,
    pub(super) cluster: ClusterId,
    /// Bytes that can be read.
    pub(super) length: u64,
    pub(super) counters: Counters,
    /// By file offset.
    places: Mutex<BTreeMap<u64, ChunkInfo>>,
}

impl Opened {
    pub(super) async fn open(lookups: &Lookups, path: &str) -> Result<Arc<Opened>, ClientError> {
        let info = lookups.stat(path).await?;
        if info.kind == FileKind::Directory {
            return Err(ClientError::new(ErrorCode::IsADirectory, format!("opening {path}"), "it is a directory"));
        }
        let mut file = Opened {
            shared: Arc::clone(&lookups.shared),
            lookups: lookups.clone(),
            cluster: ClusterId::default(),
            length: info.length,
            counters: Counters::default(),
            places: Mutex::default(),
            info,
        };
        if file.info.length > 0 || file.info.open {
            let page = lookups.locate(&file.info, 0, 0).await?;
            file.cluster = convert::cluster(&page.cluster, "cluster")
                .map_err(|e| ClientError::from_wire(&format!("opening {path}"), e))?;
            file.remember(page);
        }
        if file.info.open {
            file.length = file.readable().await?;
        }
        Ok(Arc::new(file))
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, ChunkInfo>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, page: Located) {
        let mut places = self.places();
        if places.len() >= REMEMBERED_MAX {
            places.clear();
        }
        places.extend(page.chunks.into_iter().map(|chunk| (chunk.offset, chunk)));
    }

    /// How far a file that is being written can be read: what is sealed, and of its open chunk what every member has.
    async fn readable(&self) -> Result<u64, ClientError> {
        let world = &self.shared.world;
        let start = world.clock.now();
        let mut backoff = Backoff::default();
        let mut sealed = self.info.length;
        let mut lookups = self.lookups.clone();
        loop {
            let page = lookups.locate(&self.info, sealed, 0).await?;
            let (last, more) = (page.chunks.last().cloned(), page.more);
            self.remember(page);
            match last {
                Some(chunk) if chunk.state == ChunkState::Open => {
                    if let Some(readable) = self.ask_readable(&chunk).await {
                        return Ok(chunk.offset + readable);
                    }
                    // It may have been sealed since, with other servers.
                    lookups = lookups.of_the_leader();
                    sealed = sealed.max(chunk.offset);
                }
                Some(chunk) if more => {
                    sealed = chunk.offset + chunk.length;
                    continue;
                }
                Some(chunk) => return Ok(sealed.max(chunk.offset + chunk.length)),
                None => return Ok(sealed),
            }
            let patience = self.shared.config.deadline;
            if world.clock.now().since(start) >= patience {
                let message = format!("no chunkserver said within {patience:?} how far its open chunk can be read");
                return Err(ClientError::new(ErrorCode::Unavailable, format!("opening {}", self.info.path), message));
            }
            world.clock.sleep(backoff.pause(world.random.next_u64())).await;
        }
    }

    /// Asks all members: each knows a lower bound, and the primary usually most.
    async fn ask_readable(&self, chunk: &ChunkInfo) -> Option<u64> {
        let shared = &self.shared;
        let mut asking: FuturesUnordered<_> =
            chunk
                .replicas
                .iter()
                .filter(|replica| replica.state != ReplicaState::Quarantined)
                .map(|replica| {
                    let target =
                        Target { cluster: self.cluster, server: replica.server, address: replica.address.clone() };
                    async move {
                        Conversation::begin(shared, &target, Wanted { chunk, from: 0, to: 0, beside: false }).await
                    }
                })
                .collect();
        let mut most = None;
        loop {
            let limit = if most.is_some() { OTHERS } else { shared.config.stall.saturating_mul(2) };
            match timeout(&*shared.world.clock, limit, asking.next()).await {
                Ok(Some(Ok((talk, Next::End(readable))))) => {
                    talk.finish(shared);
                    most = most.max(Some(readable));
                }
                Ok(Some(Ok(_) | Err(_))) => {}
                Ok(None) | Err(_) => return most,
            }
        }
    }

    /// The part of a chunk that begins at file offset `at`, which is below the length.
    pub(super) async fn part(&self, at: u64) -> Result<Part, ClientError> {
        if let Some(part) = self.known_part(at) {
            return Ok(part);
        }
        let page = self.lookups.locate(&self.info, at, 0).await?;
        self.remember(page);
        self.known_part(at).ok_or_else(|| {
            let message = format!("the master knows no chunk at file offset {at} of {}", self.length);
            ClientError::new(ErrorCode::NotFound, format!("reading {}", self.info.path), message)
        })
    }

    fn known_part(&self, at: u64) -> Option<Part> {
        let places = self.places();
        let (offset, chunk) = places.range(..=at).next_back()?;
        let end = match chunk.state {
            ChunkState::Open => self.length,
            ChunkState::Sealed | ChunkState::Doomed => (offset + chunk.length).min(self.length),
        };
        (at < end).then(|| Part { chunk: chunk.clone(), from: at - offset, to: end - offset })
    }

    /// Where the chunk at file offset `offset` is now.
    pub(super) async fn relocate(&self, offset: u64) -> Result<ChunkInfo, ClientError> {
        let page = self.located_anew(offset).await?;
        let found = page.chunks.first().filter(|chunk| chunk.offset == offset).cloned();
        self.remember(page);
        found.ok_or_else(|| {
            let message = format!("the master knows no chunk at file offset {offset} any more; open the file again");
            ClientError::new(ErrorCode::NotFound, format!("reading {}", self.info.path), message)
        })
    }

    /// Those who were named before did not have it: the leader knows more than hints. While none can be asked, those who were
    /// busy or away for a moment are tried again, where the file was opened for that.
    async fn located_anew(&self, offset: u64) -> Result<Located, ClientError> {
        let leader = self.lookups.of_the_leader();
        if !self.lookups.may_be_stale() {
            return leader.locate(&self.info, offset, 1).await;
        }
        let asked = timeout(&*self.shared.world.clock, LEADER_PATIENCE, leader.locate(&self.info, offset, 1)).await;
        match asked {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) if !is_of_the_master(error.code()) => Err(error),
            Ok(Err(_)) | Err(_) => self.lookups.locate(&self.info, offset, 1).await,
        }
    }

    /// Tells the master of a bad replica, in the background.
    pub(super) fn report(&self, chunk: ChunkId, server: ServerId, code: ErrorCode) {
        let Ok(permit) = Arc::clone(&self.shared.complaints).try_acquire_owned() else { return };
        let masters = Arc::clone(&self.shared.masters);
        let request =
            v1::ReportReplicaRequest { chunk: chunk.0, server: server.to_bytes().into(), code: code.number() };
        tokio::spawn(async move {
            let told = masters
                .call_within(COMPLAINT_DEADLINE, "reporting a bad replica", request, |channel, request| {
                    Box::pin(async move { namespace(channel).report_replica(request).await })
                })
                .await;
            if let Err(failed) = told {
                tracing::debug!(%chunk, %server, error = %failed.error, "a bad replica could not be reported");
            }
            drop(permit);
        });
    }
}
