//! Copies, drops and cancellations on their way to chunkservers, and what becomes of them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_master_core::{
    command::{ConfirmReplicas, Kind},
    query::{self, ChunkRecord},
    repair::queue::Needless,
};
use quarry_proto::{WireError, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, ReplicaState, ServerId};

use crate::{
    commit::{Sealed, receipt_of},
    error::{Fault, fault},
    locations::Replica,
    service::Receipts,
    shared::{CopyCounts, Leading, Shared},
};

/// A copy gets so much more time than its pace asks for.
const PATIENCE: u32 = 4;
/// And at least this.
const COPY_DEADLINE_MIN: Duration = Duration::from_secs(30);
/// A cancellation is answered within this.
const CANCEL_DEADLINE: Duration = Duration::from_secs(15);
/// A drop is waited for much longer: until its answer, or the end of the registration, the replica counts nowhere (S7), and an
/// answer that comes when nobody waits any more tells nobody.
const DROP_DEADLINE: Duration = Duration::from_secs(600);

/// What a chunkserver is to do.
pub(super) enum Order {
    /// Copy a chunk.
    Copy {
        /// The chunk as it was sealed.
        seal: Sealed,
        /// The source that the budget was charged for.
        source: ServerId,
        /// Who copies.
        target: ServerId,
        /// From whom, best first.
        sources: Vec<ServerId>,
        /// Bytes per second.
        pace: u64,
    },
    /// Drop a replica.
    Drop {
        /// Of this chunk.
        chunk: ChunkId,
        /// Whose.
        server: ServerId,
        /// The registration of the server in which this was decided.
        registration: u64,
        /// What it is expected to be.
        seal: Sealed,
    },
    /// End a copy.
    Cancel(Needless),
}

/// A chunk as its record says it was sealed.
pub(super) fn sealed(chunk: ChunkId, record: &ChunkRecord) -> Sealed {
    Sealed { chunk, length: record.length, crc: record.crc }
}

/// What a replica that is to be dropped is expected to be: the server refuses when it is something else by then.
pub(super) fn seal_to_drop(chunk: ChunkId, record: &ChunkRecord, replica: Option<&Replica>, bad: bool) -> Sealed {
    match replica {
        Some(replica) if bad && replica.state == ReplicaState::Quarantined => {
            Sealed { chunk, length: 0, crc: Crc32::EMPTY }
        }
        Some(replica) if bad => Sealed { chunk, length: replica.length, crc: replica.crc },
        _ => sealed(chunk, record),
    }
}

/// Has an order carried out, and enters into the books what became of it.
pub(super) async fn carry_out(shared: &Arc<Shared>, leading: &Arc<Leading>, order: Order) {
    match order {
        Order::Copy { seal, source, target, sources, pace } => {
            let copied = copy(shared, leading, seal, target, &sources, pace).await;
            copy_ended(shared, leading, seal, source, target, copied);
        }
        Order::Drop { chunk, server, registration, seal } => {
            let dropped = drop_replica(leading, server, registration, seal).await;
            drop_ended(shared, leading, chunk, server, dropped).await;
        }
        Order::Cancel(Needless { chunk, target }) => {
            tracing::info!(%chunk, %target, "a copy is not needed any more and is cancelled");
            let body = v1::command::Body::CancelCopies(v1::CancelCopies { chunks: vec![chunk.0] });
            if let Err(error) = leading.dispatch.call(target, body, CANCEL_DEADLINE).await {
                tracing::debug!(%chunk, %target, %error, "a copy may go on although it is not needed");
            }
        }
    }
}

async fn copy(
    shared: &Shared,
    leading: &Leading,
    seal: Sealed,
    target: ServerId,
    sources: &[ServerId],
    pace: u64,
) -> Result<(), Fault> {
    let members = {
        let soft = leading.soft();
        let member = |server: &ServerId| v1::Member {
            server: server.to_bytes().into(),
            address: soft.servers.address(*server).to_owned(),
        };
        sources.iter().map(member).collect()
    };
    let expected = Duration::from_millis(seal.length.saturating_mul(1000) / pace.max(1));
    let limit = (expected * PATIENCE).max(COPY_DEADLINE_MIN);
    let copy = v1::Copy { seal: Some(seal.into()), sources: members, bytes_per_second: pace };
    let result = leading.dispatch.call(target, v1::command::Body::Copy(copy), limit).await?;
    let receipts = Receipts::new(shared, leading);
    let receipt = receipt_of(&receipts, result, target, seal.chunk)?;
    if (receipt.length, receipt.crc) != (seal.length, seal.crc) || !receipts.is_durable(&receipt) {
        let why = format!("chunkserver {target} copied {} to something else than was sealed", seal.chunk);
        return Err(fault(ErrorCode::Mismatch, why).of_server(target));
    }
    leading.soft().locations.receipt(&receipt);
    confirm(shared, leading, seal.chunk, vec![target]).await
}

/// Records who holds a chunk now, and forgets holders that reported without it.
async fn confirm(shared: &Shared, leading: &Leading, chunk: ChunkId, servers: Vec<ServerId>) -> Result<(), Fault> {
    let record = shared.peek(move |tables| Ok(query::chunk(tables, chunk)?)).await?;
    let Some(record) = record else { return Ok(()) };
    let gone: Vec<ServerId> = {
        let soft = leading.soft();
        let lacks = |server: &&ServerId| {
            soft.locations.number(**server).is_some() && soft.locations.replica(**server, chunk).is_none()
        };
        record.holders.iter().filter(lacks).copied().collect()
    };
    shared.propose(Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers, gone })).await.map(|_| ())
}

fn copy_ended(
    shared: &Shared,
    leading: &Leading,
    seal: Sealed,
    source: ServerId,
    target: ServerId,
    copied: Result<(), Fault>,
) {
    let chunk = seal.chunk;
    let (mut soft, now) = (leading.soft(), shared.now().0);
    // One that was cancelled says nothing about what was ordered since.
    let ours = soft.repairing.queue.is_copying(chunk, target);
    count(&shared.copies, seal, ours, copied.is_ok());
    soft.repairing.budget.end(source, target);
    match copied {
        Ok(()) => {
            tracing::info!(%chunk, %source, %target, "copy done");
            if ours {
                soft.repairing.queue.done(chunk, now);
            }
            soft.locations.look_again(chunk);
        }
        Err(error) => {
            tracing::info!(%chunk, %source, %target, %error, "copy failed");
            let who = error.server.unwrap_or(target);
            if ours {
                soft.repairing.queue.failed(chunk, Some(who), error.to_string(), now);
            }
        }
    }
}

/// Counts a copy that ended. One that is not `ours`, as the ledger says, was cancelled.
fn count(copies: &CopyCounts, seal: Sealed, ours: bool, copied: bool) {
    let ended = match copied {
        true => &copies.done,
        false if ours => &copies.failed,
        false => &copies.cancelled,
    };
    ended.fetch_add(1, Ordering::Relaxed);
    if copied {
        copies.bytes.fetch_add(seal.length, Ordering::Relaxed);
    }
}

/// Why a replica was not dropped.
struct NotDropped {
    error: Fault,
    /// The server said so; otherwise it may still be on its way (S7).
    refused: bool,
}

async fn drop_replica(leading: &Leading, server: ServerId, registration: u64, seal: Sealed) -> Result<(), NotDropped> {
    if leading.is_held() {
        let error = fault(ErrorCode::Conflict, "deletions are held back until `quarry metadata release`");
        return Err(NotDropped { error, refused: true });
    }
    let body = v1::command::Body::DropSurplus(v1::DropSurplus { seals: vec![seal.into()] });
    let unsure = |error| NotDropped { error, refused: false };
    let result = leading.dispatch.call_within(server, registration, body, DROP_DEADLINE).await.map_err(unsure)?;
    match result.failures.into_iter().find(|failure| failure.chunk == seal.chunk.0) {
        Some(failure) => {
            let error = WireError::from(failure.error.unwrap_or_default()).of_server(server);
            Err(NotDropped { error, refused: true })
        }
        None => Ok(()),
    }
}

async fn drop_ended(
    shared: &Shared,
    leading: &Leading,
    chunk: ChunkId,
    server: ServerId,
    dropped: Result<(), NotDropped>,
) {
    match dropped {
        Ok(()) => {
            {
                let mut soft = leading.soft();
                let there = soft.locations.replica(server, chunk).is_some();
                soft.repairing.drop_done(chunk, server, there);
                soft.repairing.queue.done(chunk, shared.now().0);
                soft.locations.look_again(chunk);
            }
            if let Err(error) = confirm(shared, leading, chunk, Vec::new()).await {
                tracing::debug!(%chunk, %error, "a holder that is gone is still recorded");
            }
        }
        Err(NotDropped { error, refused }) => {
            tracing::info!(%chunk, %server, %error, "a replica was not dropped");
            let mut soft = leading.soft();
            if refused {
                soft.repairing.drop_refused(chunk, server);
            }
            soft.repairing.queue.failed(chunk, None, error.to_string(), shared.now().0);
        }
    }
}
