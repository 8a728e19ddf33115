//! Receipts: verified here, once, before they become part of a command.

use std::collections::BTreeSet;

use quarry_master_core::{
    command::{Durability, SealedChunk},
    query::{self, ChunkRecord},
};
use quarry_proto::{signed, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, Receipt, ServerId, limits::REPLICAS_MAX};

use crate::{
    error::{Fault, fault},
    shared::{Leading, Shared},
};

/// Verifies receipts for one cluster.
pub struct Receipts<'a> {
    shared: &'a Shared,
    leading: &'a Leading,
}

fn mismatch(why: String) -> Fault {
    fault(ErrorCode::Mismatch, why)
}

impl<'a> Receipts<'a> {
    /// For one leadership.
    pub fn new(shared: &'a Shared, leading: &'a Leading) -> Self {
        Receipts { shared, leading }
    }

    /// One receipt, if its signature and its cluster are right.
    pub fn verify(&self, signed: &v1::Signed) -> Result<Receipt, Fault> {
        let receipt: Receipt = signed::open::<v1::Receipt>(&self.shared.key, signed)?.try_into()?;
        if receipt.cluster != self.shared.cluster {
            return Err(mismatch(format!("a receipt is of cluster {}", receipt.cluster)).of_server(receipt.server));
        }
        Ok(receipt)
    }

    /// Whether a receipt counts as a replica that survives what its server promises to survive.
    pub fn is_durable(&self, receipt: &Receipt) -> bool {
        let soft = self.leading.soft();
        let buffered = soft.servers.get(receipt.server).is_some_and(|s| s.durability == Durability::Buffered);
        receipt.durable || buffered
    }

    /// The seals that a writer hands in, each from receipts that all agree with it and come from the chunk's members
    /// (S2). The records are read here, so a chunk that is sealed already only has to agree.
    pub async fn seals(&self, handed_in: Vec<v1::SealedChunk>) -> Result<Vec<SealedChunk>, Fault> {
        let mut seals = Vec::with_capacity(handed_in.len());
        for sealed in handed_in {
            if sealed.receipts.is_empty() || sealed.receipts.len() > REPLICAS_MAX as usize {
                let why = format!("a seal of chunk {} has {} receipts", ChunkId(sealed.chunk), sealed.receipts.len());
                return Err(fault(ErrorCode::InvalidArgument, why));
            }
            let seal = SealedChunk {
                chunk: ChunkId(sealed.chunk),
                length: sealed.length,
                crc: Crc32(sealed.crc),
                holders: vec![],
            };
            let receipts = sealed.receipts.iter().map(|r| self.verify(r)).collect::<Result<Vec<_>, _>>()?;
            seals.push((seal, receipts));
        }
        if seals.is_empty() {
            return Ok(Vec::new());
        }
        let chunks: Vec<ChunkId> = seals.iter().map(|(seal, _)| seal.chunk).collect();
        let records = self
            .shared
            .glance(move |tables| {
                Ok(chunks.into_iter().map(|id| query::chunk(tables, id)).collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let mut checked = Vec::with_capacity(seals.len());
        for ((mut seal, receipts), record) in seals.into_iter().zip(records) {
            seal.holders = self.agreeing(&seal, &receipts, record)?;
            // Readers may come before the server's own report does.
            let mut soft = self.leading.soft();
            receipts.iter().for_each(|receipt| soft.locations.receipt(receipt));
            checked.push(seal);
        }
        Ok(checked)
    }

    fn agreeing(
        &self,
        seal: &SealedChunk,
        receipts: &[Receipt],
        record: Option<ChunkRecord>,
    ) -> Result<Vec<ServerId>, Fault> {
        let chunk = seal.chunk;
        let Some(record) = record else {
            // Only writers say seals, and what they write stays as long as their lease.
            let why = format!(
                "chunk {chunk} is not there any more: the lease of its writer has ended: it ran out, or the file was removed or \
                 replaced"
            );
            return Err(fault(ErrorCode::LeaseLost, why));
        };
        let mut holders = BTreeSet::new();
        for receipt in receipts {
            let of = receipt.server;
            if receipt.chunk != chunk {
                return Err(mismatch(format!("a receipt for chunk {} stands in for chunk {chunk}", receipt.chunk)));
            }
            if !record.members.contains(&of) {
                return Err(mismatch(format!("chunkserver {of} is no member of chunk {chunk}")).of_server(of));
            }
            if (receipt.length, receipt.crc) != (seal.length, seal.crc) {
                let why = format!(
                    "chunkserver {of} has {} bytes with CRC {} of chunk {chunk}, and the seal says {} with {}; ask for the \
                     chunk to be sealed where it stands",
                    receipt.length, receipt.crc, seal.length, seal.crc
                );
                return Err(mismatch(why).of_server(of));
            }
            if self.is_durable(receipt) {
                holders.insert(of);
            }
        }
        Ok(holders.into_iter().collect())
    }
}
