use std::collections::{BTreeMap, BTreeSet};

use quarry_env::Instant;
use quarry_master_core::{
    detector::Health,
    query::{self, ChunkView},
    rows::{ChunkState, Server},
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ErrorCode, InodeId, ReplicaState, ServerId, limits::LOCATE_PAGE};

use super::{Service, hints::hinted};
use crate::{
    error::{Fault, fault},
    reading::Reading,
    shared::{Leading, Soft},
};

/// Where the chunks of a file are.
#[derive(Clone, Copy, Debug)]
pub struct LocateCall {
    /// The file, as it was when it was opened.
    pub inode: InodeId,
    /// Its version then.
    pub version: u64,
    /// First offset of interest.
    pub offset: u64,
    /// Chunks at most; 0: as many as one answer holds.
    pub limit: u32,
}

impl Service {
    /// The chunks of a file from an offset on, and whether more follow. By the leader: where they are as far as chunkservers
    /// have reported; by another master: hints, see `hints`.
    pub async fn locate(&self, call: LocateCall, reading: &Reading) -> Result<v1::LocateReply, Fault> {
        let limit = usize::try_from(call.limit).unwrap_or(LOCATE_PAGE);
        let limit = if limit == 0 { LOCATE_PAGE } else { limit.min(LOCATE_PAGE) };
        let ((found, remembered), age) = self
            .shared
            .read_as(reading, move |tables| {
                let Some(inode) = query::inode(tables, call.inode)? else { return Ok((None, BTreeMap::new())) };
                if inode.is_directory() {
                    return Ok((None, BTreeMap::new()));
                }
                let rows = query::rows(tables, call.inode, call.offset, limit)?;
                let mut remembered = BTreeMap::new();
                for server in rows.chunks.iter().flat_map(|c| c.record.members.iter().chain(&c.record.holders)) {
                    if !remembered.contains_key(server)
                        && let Some(known) = query::server(tables, *server)?
                    {
                        remembered.insert(*server, known);
                    }
                }
                Ok((Some((inode.version, rows)), remembered))
            })
            .await?;
        let Some((version, rows)) = found else {
            let why = format!("there is no file {} (any more); open its path again", call.inode);
            return Err(fault(ErrorCode::NotFound, why));
        };
        // What was there at the version that was opened is there still: files only grow. An unknown version is a mistake.
        if call.version > version {
            let why = format!("file {} has version {version}, not {}; open its path again", call.inode, call.version);
            return Err(fault(ErrorCode::Conflict, why));
        }
        let chunks = match self.shared.present() {
            Some(leading) => self.located(&leading, &rows.chunks, &remembered),
            None => hinted(&rows.chunks, &remembered, self.shared.world.random.next_u64()),
        };
        let cluster = self.shared.cluster.to_bytes().into();
        Ok(v1::LocateReply { chunks, more: rows.more, cluster, staleness: age.map(Into::into) })
    }

    fn located(
        &self,
        leading: &Leading,
        chunks: &[ChunkView],
        remembered: &BTreeMap<ServerId, Server>,
    ) -> Vec<v1::ChunkInfo> {
        let chance = self.shared.world.random.next_u64();
        let (soft, now) = (leading.soft(), self.shared.now());
        let info = |chunk: &ChunkView| {
            let mut replicas: Vec<Found> = replicas(&soft, chunk)
                .into_iter()
                .map(|(server, state)| Found {
                    reachable: is_reachable(&soft, server, now),
                    alive: soft.servers.health(server, now) == Health::Alive,
                    load: soft.servers.get(server).map_or(0, |s| s.active_reads),
                    server,
                    state,
                })
                .collect();
            replicas.sort_by_key(|found| found.rank(chunk.id, chance));
            chunk_info(chunk, replicas.iter().map(|found| replica_info(&soft, remembered, found)).collect())
        };
        chunks.iter().map(info).collect()
    }
}

/// A chunk with its replicas, best first.
pub(super) fn chunk_info(chunk: &ChunkView, replicas: Vec<v1::ReplicaInfo>) -> v1::ChunkInfo {
    let record = &chunk.record;
    v1::ChunkInfo {
        chunk: chunk.id.0,
        offset: record.offset,
        length: record.length,
        crc: record.crc.0,
        state: chunk_state(record.state).into(),
        replicas,
    }
}

/// The place of a server among equals, which chance decides, for each reader and chunk: readers spread, and every replica
/// is read at times. One that never is could be bad without being noticed.
pub(super) fn spread(server: ServerId, chunk: ChunkId, chance: u64) -> u64 {
    let (high, low) = server.0.as_u64_pair();
    (high ^ low ^ chunk.0 ^ chance).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Clients may well reach a server that its peers reach, also one that never registered with this leader.
fn is_reachable(soft: &Soft, server: ServerId, now: Instant) -> bool {
    match soft.servers.health(server, now) {
        Health::Alive | Health::Suspect => soft.servers.get(server).is_some(),
        Health::Partitioned => true,
        Health::Dead => false,
    }
}

struct Found {
    server: ServerId,
    state: ReplicaState,
    reachable: bool,
    alive: bool,
    load: u32,
}

impl Found {
    /// Reachable before unreachable, good before bad, idle before busy, and then by chance.
    fn rank(&self, chunk: ChunkId, chance: u64) -> (bool, u8, bool, u32, u64) {
        let state = match self.state {
            ReplicaState::Sealed => 0,
            ReplicaState::Fenced => 1,
            ReplicaState::Open => 2,
            ReplicaState::Quarantined => 3,
        };
        (!self.reachable, state, !self.alive, self.load, spread(self.server, chunk, chance))
    }
}

/// The servers that hold a chunk as far as is known: by their reports, and by its record as long as a server's report of
/// this leadership is not here.
fn replicas(soft: &Soft, chunk: &ChunkView) -> Vec<(ServerId, ReplicaState)> {
    let record = &chunk.record;
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (server, replica) in soft.locations.holders(chunk.id) {
        seen.insert(server);
        let state = match record.state {
            ChunkState::Sealed if replica.serves(record.length, record.crc) => replica.state,
            // Not cut yet, or not what was committed: either way not to be read.
            ChunkState::Sealed if replica.state == ReplicaState::Quarantined => ReplicaState::Quarantined,
            ChunkState::Sealed if record.holders.contains(&server) && replica.state == ReplicaState::Open => {
                // Its receipt came, and the report of the change is under way.
                ReplicaState::Fenced
            }
            ChunkState::Sealed => ReplicaState::Open,
            ChunkState::Open | ChunkState::Doomed => replica.state,
        };
        found.push((server, state));
    }
    let (hints, state) = match record.state {
        ChunkState::Sealed if record.holders.is_empty() => (&record.members, ReplicaState::Fenced),
        ChunkState::Sealed => (&record.holders, ReplicaState::Sealed),
        ChunkState::Open | ChunkState::Doomed => (&record.members, ReplicaState::Open),
    };
    for server in hints {
        // A server whose inventory is known and does not have it does not hold it. One that was just told to write does
        // not report it yet.
        let unknown = soft.locations.number(*server).is_none() || record.state == ChunkState::Open;
        if unknown && seen.insert(*server) {
            found.push((*server, state));
        }
    }
    found
}

fn replica_info(soft: &Soft, remembered: &BTreeMap<ServerId, Server>, found: &Found) -> v1::ReplicaInfo {
    let (address, rack) = match (soft.servers.get(found.server), remembered.get(&found.server)) {
        (Some(known), _) => (known.address.clone(), known.rack.clone()),
        (None, Some(known)) => (known.address.clone(), known.rack.clone()),
        (None, None) => Default::default(),
    };
    v1::ReplicaInfo {
        server: found.server.to_bytes().into(),
        address,
        rack,
        state: v1::ReplicaState::from(found.state).into(),
        reachable: found.reachable,
    }
}

fn chunk_state(state: ChunkState) -> v1::ChunkState {
    match state {
        ChunkState::Open => v1::ChunkState::Open,
        ChunkState::Sealed => v1::ChunkState::Sealed,
        ChunkState::Doomed => v1::ChunkState::Doomed,
    }
}
