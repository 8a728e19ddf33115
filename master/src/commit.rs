//! After a seal is committed: members cut what lies beyond, verify, and their receipts are recorded as holders.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_master_core::{
    command::{ConfirmReplicas, Kind},
    reply::SealedAt,
};
use quarry_proto::{WireError, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, Receipt, ServerId};

use crate::{
    error::{Fault, fault},
    service::Receipts,
    shared::{Leading, Shared},
};

/// A member reads a whole chunk to verify what it keeps; a busy disk takes its time.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(15);

/// A sealed chunk's length and CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its bytes.
    pub length: u64,
    /// Their CRC.
    pub crc: Crc32,
}

impl From<&SealedAt> for Sealed {
    fn from(at: &SealedAt) -> Self {
        Sealed { chunk: at.chunk, length: at.length, crc: at.crc }
    }
}

impl From<Sealed> for v1::CommittedSeal {
    fn from(from: Sealed) -> Self {
        v1::CommittedSeal { chunk: from.chunk.0, length: from.length, crc: from.crc.0 }
    }
}

/// The one receipt that a command about one chunk is answered with.
pub fn receipt_of(
    receipts: &Receipts<'_>,
    result: v1::CommandResult,
    server: ServerId,
    chunk: ChunkId,
) -> Result<Receipt, Fault> {
    receipts_of(receipts, result, server)?.remove(&chunk).unwrap_or_else(|| Err(silent(server, chunk)))
}

/// What a command is answered with, by chunk: a receipt, or why there is none. Each receipt is verified once.
fn receipts_of(
    receipts: &Receipts<'_>,
    result: v1::CommandResult,
    server: ServerId,
) -> Result<BTreeMap<ChunkId, Result<Receipt, Fault>>, Fault> {
    let mut answers = BTreeMap::new();
    for signed in &result.receipts {
        let receipt = receipts.verify(signed)?;
        if receipt.server == server {
            answers.insert(receipt.chunk, Ok(receipt));
        }
    }
    for failure in result.failures {
        let error = WireError::from(failure.error.unwrap_or_default());
        answers.insert(ChunkId(failure.chunk), Err(error.of_server(server)));
    }
    Ok(answers)
}

fn silent(server: ServerId, chunk: ChunkId) -> Fault {
    fault(ErrorCode::Internal, format!("chunkserver {server} answered without a word on chunk {chunk}"))
        .of_server(server)
}

/// Tells one server several committed seals; per chunk, the receipt of a replica that now agrees or why it does not.
pub async fn tell(
    shared: &Shared,
    leading: &Leading,
    server: ServerId,
    seals: &[Sealed],
    verify: bool,
) -> Result<BTreeMap<ChunkId, Result<Receipt, Fault>>, Fault> {
    let list: Vec<v1::CommittedSeal> = seals.iter().map(|seal| (*seal).into()).collect();
    let body = if verify {
        v1::command::Body::Verify(v1::Verify { seals: list })
    } else {
        v1::command::Body::CommitSeals(v1::CommitSeals { seals: list })
    };
    let result = leading.dispatch.call(server, body, COMMIT_DEADLINE).await?;
    let receipts = Receipts::new(shared, leading);
    let mut told = receipts_of(&receipts, result, server)?;
    let mut answers = BTreeMap::new();
    for seal in seals {
        let answer = told.remove(&seal.chunk).unwrap_or_else(|| Err(silent(server, seal.chunk)));
        let answer = answer.and_then(|receipt| {
            if (receipt.length, receipt.crc) == (seal.length, seal.crc) && receipts.is_durable(&receipt) {
                leading.soft().locations.receipt(&receipt);
                return Ok(receipt);
            }
            let why = format!("chunkserver {server} holds another {} than was committed, or not durably", seal.chunk);
            Err(fault(ErrorCode::Mismatch, why).of_server(server))
        });
        answers.insert(seal.chunk, answer);
    }
    Ok(answers)
}

/// Commits a seal at `members` and records those that confirm it and are not among `known` holders.
pub async fn confirm(shared: &Shared, leading: &Leading, at: &SealedAt, members: &[ServerId], known: &[ServerId]) {
    let seals = [Sealed::from(at)];
    let mut calls: FuturesUnordered<_> =
        members.iter().map(|m| async { (*m, tell(shared, leading, *m, &seals, false).await) }).collect();
    let mut confirmed = Vec::new();
    while let Some((member, answers)) = calls.next().await {
        match answers.and_then(|mut answers| answers.remove(&at.chunk).unwrap_or_else(|| Err(missing(member)))) {
            Ok(_) if known.contains(&member) => {}
            Ok(_) => confirmed.push(member),
            Err(error) => tracing::debug!(chunk = %at.chunk, %member, %error, "has not committed the seal yet"),
        }
    }
    record(shared, at.chunk, confirmed).await;
}

fn missing(server: ServerId) -> Fault {
    fault(ErrorCode::Internal, "no answer").of_server(server)
}

/// Records servers as holders of a chunk. A failure is made good when they report the replica again.
pub async fn record(shared: &Shared, chunk: ChunkId, servers: Vec<ServerId>) {
    if servers.is_empty() {
        return;
    }
    if let Err(error) =
        shared.propose(Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers, gone: Vec::new() })).await
    {
        tracing::debug!(%chunk, %error, "holders were not recorded");
    }
}
