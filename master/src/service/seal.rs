//! Sealing a chunk where it stands: its members are fenced, the smallest length among them is committed, and only then do
//! they cut what lies beyond.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_env::Instant;
use quarry_master_core::{
    command::{Durability, Kind, OpId, SealedChunk},
    detector::Health,
    query::{self, ChunkRecord},
    reply::{Reply, SealedAt},
    rows::ChunkState,
    seal::{self, SealDecision, WaitReason},
};
use quarry_proto::{WireError, v1};
use quarry_types::{
    ChunkId, Crc32, ErrorCode, InodeId, LeaseId, Receipt, ServerId,
    limits::{DEAD_AFTER, FENCE_DEADLINE},
};

use super::{Receipts, Service, check};
use crate::{
    commit,
    error::{Fault, fault},
    shared::{Leading, Shared, unexpected},
};

/// A client asks for a seal.
#[derive(Clone, Debug)]
pub struct SealChunkCall {
    /// Which operation of which session.
    pub op: OpId,
    /// The file.
    pub inode: InodeId,
    /// The right to write it.
    pub lease: LeaseId,
    /// The chunk.
    pub chunk: ChunkId,
    /// Answer only when enough durable replicas hold it (S1).
    pub durable: bool,
    /// How long to wait for members.
    pub deadline: Duration,
}

/// Between two rounds of fencing while no decision is possible.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

impl Service {
    /// Seals an open chunk of the caller's file. Of one that is sealed already, says where.
    pub async fn seal_chunk(&self, call: SealChunkCall) -> Result<SealedAt, Fault> {
        check::op(&call.op)?;
        let leading = self.shared.leading()?;
        leading.soft().renewals.session(call.op.session, self.shared.now());
        let (lease, chunk) = (call.lease, call.chunk);
        let (lease, record) =
            self.shared.read(move |tables| Ok((query::lease(tables, lease)?, query::chunk(tables, chunk)?))).await?;
        if lease.is_none_or(|l| l.session != call.op.session || l.inode != call.inode) {
            let why = format!("writer lease {} on {} has ended; open the file again", call.lease, call.inode);
            return Err(fault(ErrorCode::LeaseLost, why));
        }
        self.renew(&leading, call.lease)?;
        if record.is_some_and(|r| r.inode != call.inode) {
            let why = format!("chunk {chunk} is not one of {}", call.inode);
            return Err(fault(ErrorCode::Mismatch, why));
        }
        let until = self.shared.now().plus(call.deadline);
        let sealed = Sealer::new(self.shared.clone(), leading.clone()).seal(chunk, call.deadline).await;
        let at = sealed.map_err(|error| went_with_its_file(error, &call))?;
        let whole = at.length == 0 || !call.durable;
        if whole || self.await_replicas(&leading, call.lease, vec![chunk], until).await? {
            return Ok(at);
        }
        let why = format!("chunk {chunk} has too few durable replicas; start its chunkservers and try again");
        Err(fault(ErrorCode::UnderReplicated, why))
    }
}

/// A chunk that is not there any more when its seal is committed went with its file, because the lease ended meanwhile.
fn went_with_its_file(error: Fault, call: &SealChunkCall) -> Fault {
    if error.code != ErrorCode::NotFound {
        return error;
    }
    let (lease, inode) = (call.lease, call.inode);
    let why =
        format!("writer lease {lease} on {inode} ended while chunk {} was sealed; open the file again", call.chunk);
    fault(ErrorCode::LeaseLost, why)
}

/// Seals chunks with the authority of one leadership.
#[derive(Clone)]
pub struct Sealer {
    shared: Arc<Shared>,
    leading: Arc<Leading>,
}

fn nothing_kept(chunk: ChunkId) -> SealedAt {
    SealedAt { chunk, length: 0, crc: Crc32::EMPTY, replicas: 0 }
}

fn sealed_at(chunk: ChunkId, record: &ChunkRecord) -> SealedAt {
    let replicas = u32::try_from(record.holders.len()).unwrap_or(u32::MAX);
    SealedAt { chunk, length: record.length, crc: record.crc, replicas }
}

impl Sealer {
    /// For one leadership.
    pub fn new(shared: Arc<Shared>, leading: Arc<Leading>) -> Self {
        Sealer { shared, leading }
    }

    /// Seals `chunk`, waiting at most `deadline` for enough of its members. Sealed already, or gone because nothing of it
    /// was kept: says so.
    pub async fn seal(&self, chunk: ChunkId, deadline: Duration) -> Result<SealedAt, Fault> {
        let until = self.shared.now().plus(deadline);
        loop {
            let Some(record) = self.shared.read(move |tables| Ok(query::chunk(tables, chunk)?)).await? else {
                return Ok(nothing_kept(chunk));
            };
            match record.state {
                ChunkState::Sealed => return Ok(sealed_at(chunk, &record)),
                ChunkState::Doomed => return Ok(nothing_kept(chunk)),
                ChunkState::Open => {}
            }
            let (receipts, failures) = self.fence(chunk, &record.members, until).await;
            let durability = self.durability(&record.members);
            let doubted = self.doubted(&receipts).await?;
            let unreachable_for = self.unreachable_for(&record, &receipts);
            match seal::decide(durability, &record.members, &receipts, &doubted, unreachable_for) {
                SealDecision::Seal { length, crc, holders } => {
                    return self.record(&record, SealedChunk { chunk, length, crc, holders }).await;
                }
                SealDecision::Wait(why) if self.shared.now() >= until => return Err(wait_fault(chunk, why, &failures)),
                SealDecision::Wait(why) => {
                    tracing::debug!(%chunk, ?why, "cannot be sealed yet");
                    self.shared.world.clock.sleep(ROUND_PAUSE.min(until.since(self.shared.now()))).await;
                }
            }
        }
    }

    /// Fences the members that can be reached; their verified receipts, and why others have none. Once one has
    /// answered, the others have [`FENCE_DEADLINE`] in all.
    async fn fence(
        &self,
        chunk: ChunkId,
        members: &[ServerId],
        until: Instant,
    ) -> (Vec<Receipt>, BTreeMap<ServerId, WireError>) {
        let limit = until.since(self.shared.now()).min(FENCE_DEADLINE);
        let mut calls: FuturesUnordered<_> = members.iter().map(|m| self.fence_one(chunk, *m, limit)).collect();
        let (mut receipts, mut failures) = (Vec::new(), BTreeMap::new());
        while let Some((member, answer)) = calls.next().await {
            match answer {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    failures.insert(member, error);
                }
            }
        }
        (receipts, failures)
    }

    async fn fence_one(
        &self,
        chunk: ChunkId,
        member: ServerId,
        limit: Duration,
    ) -> (ServerId, Result<Receipt, WireError>) {
        let body = v1::command::Body::Fence(v1::Fence { chunks: vec![chunk.0] });
        let answer = async {
            let result = self.leading.dispatch.call(member, body, limit).await?;
            commit::receipt_of(&Receipts::new(&self.shared, &self.leading), result, member, chunk)
        };
        (member, answer.await)
    }

    /// Members that may lack what they acknowledged: their disk is an old image of itself, or they know nothing of a chunk that
    /// is older than their start. Asked after the fences, so that a start between is known.
    async fn doubted(&self, receipts: &[Receipt]) -> Result<Vec<ServerId>, Fault> {
        let members: Vec<ServerId> = receipts.iter().map(|receipt| receipt.server).collect();
        let rows = self
            .shared
            .peek(move |tables| {
                Ok(members.into_iter().map(|m| query::server(tables, m)).collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let soft = self.leading.soft();
        let doubtful = receipts.iter().zip(rows).filter(|(receipt, row)| {
            let forgotten = row.as_ref().is_some_and(|row| seal::may_have_forgotten(receipt, row.first_chunk));
            forgotten || soft.locations.doubts(receipt.server, receipt.chunk)
        });
        Ok(doubtful.map(|(receipt, _)| receipt.server).collect())
    }

    /// What the weakest of the members means by an acknowledgement; of one that is not registered, the worst.
    fn durability(&self, members: &[ServerId]) -> Durability {
        let soft = self.leading.soft();
        let of = |m: &ServerId| soft.servers.get(*m).map(|s| s.durability);
        let any_buffered = soft.servers.durability() == Durability::Buffered;
        let unknown = if any_buffered { Durability::Buffered } else { Durability::Sealed };
        members.iter().map(|m| of(m).unwrap_or(unknown)).max().unwrap_or(Durability::Sealed)
    }

    /// For how long all members that did not answer have been dead; zero while one of them is not.
    fn unreachable_for(&self, record: &ChunkRecord, receipts: &[Receipt]) -> Duration {
        let (soft, now) = (self.leading.soft(), self.shared.now());
        let dead_for = |member: &ServerId| match soft.servers.health(*member, now) {
            Health::Dead => {
                let silent = soft.servers.silent(*member, now).unwrap_or_else(|| now.since(self.leading.since));
                silent.saturating_sub(DEAD_AFTER)
            }
            Health::Alive | Health::Suspect | Health::Partitioned => Duration::ZERO,
        };
        let missing = record.members.iter().filter(|m| !receipts.iter().any(|r| r.server == **m));
        missing.map(dead_for).min().unwrap_or(Duration::ZERO)
    }

    async fn record(&self, record: &ChunkRecord, seal: SealedChunk) -> Result<SealedAt, Fault> {
        let holders = seal.holders.clone();
        let at = match self.shared.propose(Kind::Seal(seal)).await? {
            Reply::Sealed(at) => at,
            other => return Err(unexpected(&other)),
        };
        tracing::info!(chunk = %at.chunk, length = at.length, replicas = at.replicas, "sealed where it stood");
        self.leading.soft().sealed(at.chunk, &record.members);
        if at.length > 0 {
            // Members cut and confirm in the background: the writer need not wait, and a member that misses this is told
            // when it reports the replica.
            let (shared, leading, members) = (self.shared.clone(), self.leading.clone(), record.members.clone());
            let at = at.clone();
            tokio::spawn(async move {
                commit::confirm(&shared, &leading, &at, &members, &holders).await;
            });
        }
        Ok(at)
    }
}

fn wait_fault(chunk: ChunkId, why: WaitReason, failures: &BTreeMap<ServerId, WireError>) -> Fault {
    let reason = match why {
        WaitReason::NoReceipt => "none of its members can be reached",
        WaitReason::OnlyRestarted => {
            "only members that restarted can be reached, and they may lack what they acknowledged without fsync"
        }
        WaitReason::Disagreement => "its members disagree about the same bytes, and nothing says which is right",
    };
    let list: Vec<String> = failures.iter().map(|(server, error)| format!("{server}: {error}")).collect();
    let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) };
    let message = format!("chunk {chunk} cannot be sealed now: {reason}{list}; start its chunkservers and try again");
    fault(ErrorCode::Unavailable, message)
}
