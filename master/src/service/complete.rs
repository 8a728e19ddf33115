use std::time::Duration;

use quarry_env::{Instant, clock::timeout};
use quarry_master_core::{
    command::{Complete, Mutation, OpId},
    query::{self, ChunkRecord},
    reply::{Completed, Reply, SealedAt},
    rows::ChunkState,
    tables::ReadTables,
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ErrorCode, LeaseId};

use super::{Receipts, Service, check};
use crate::{
    commit,
    error::Fault,
    shared::{Leading, unexpected},
};

/// A writer says that its file is complete.
#[derive(Clone, Debug)]
pub struct CompleteCall {
    /// Which operation of which session.
    pub op: OpId,
    /// What the writer knows of the file; without seals.
    pub complete: Complete,
    /// Chunks that ended since the last call.
    pub seals: Vec<v1::SealedChunk>,
    /// How long to wait for durable replicas.
    pub deadline: Duration,
}

/// Between two looks at chunks that have too few replicas.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Chunks read in one go.
const READ_STEP: usize = 1024;

impl Service {
    /// Completes a file as soon as every chunk of it has its least number of durable replicas (S1), or refuses when that
    /// takes longer than the caller waits.
    pub async fn complete(&self, call: CompleteCall) -> Result<Completed, Fault> {
        check::op(&call.op)?;
        let mut complete = call.complete;
        check::mutation(&Mutation::Complete(complete.clone()))?;
        let leading = self.shared.leading()?;
        // Whether the lease has ended is for the command to say: a repeated call finds what the first one did.
        let _renewed = self.renew(&leading, complete.lease);
        let until = self.shared.now().plus(call.deadline);
        complete.seals = Receipts::new(&self.shared, &leading).seals(call.seals).await?;
        loop {
            let answer = self.mutate(call.op.clone(), Mutation::Complete(complete.clone())).await;
            // The seals are recorded even when the completion is refused.
            complete.seals.drain(..).for_each(|seal| leading.soft().sealed(seal.chunk, &seal.holders));
            let refused = match answer {
                Ok(Reply::Completed(done)) => return Ok(done),
                Ok(other) => return Err(unexpected(&other)),
                Err(refused) => refused,
            };
            // This refusal is not remembered, and the seals that came with the command stay recorded.
            let chunks = complete.chunks.iter().map(|c| c.chunk).collect();
            if refused.code != ErrorCode::UnderReplicated
                || !self.await_replicas(&leading, complete.lease, chunks, until).await?
            {
                return Err(refused);
            }
        }
    }

    /// Lets members confirm what they hold until every chunk has enough holders. `false`: time ran out before.
    pub(super) async fn await_replicas(
        &self,
        leading: &Leading,
        lease: LeaseId,
        mut chunks: Vec<ChunkId>,
        until: Instant,
    ) -> Result<bool, Fault> {
        let min = self.shared.glance(|tables| query::settings(tables)).await?.min_replicas;
        loop {
            chunks = self.short_of(min, chunks).await?;
            let Some(first) = chunks.first() else { return Ok(true) };
            if self.shared.now() >= until {
                tracing::info!(chunk = %first, chunks = chunks.len(), "too few durable replicas in time");
                return Ok(false);
            }
            self.ask_members(leading, &chunks, until).await?;
            self.shared.world.clock.sleep(LOOK_PAUSE.min(until.since(self.shared.now()))).await;
            let _renewed = self.renew(leading, lease);
        }
    }

    /// Those of `chunks` that are sealed with fewer holders than they need.
    async fn short_of(&self, min: u32, chunks: Vec<ChunkId>) -> Result<Vec<ChunkId>, Fault> {
        let mut short = Vec::new();
        for step in chunks.chunks(READ_STEP) {
            let too_few = |record: &ChunkRecord| record.holders.len() < min.min(record.wanted) as usize;
            short.extend(self.sealed_records(step).await?.into_iter().filter(|(_, r)| too_few(r)).map(|(id, _)| id));
        }
        Ok(short)
    }

    /// The records of those of `chunks` that are sealed. What is wrong with others the command says.
    async fn sealed_records(&self, chunks: &[ChunkId]) -> Result<Vec<(ChunkId, ChunkRecord)>, Fault> {
        let chunks = chunks.to_vec();
        let read = move |tables: &dyn ReadTables| {
            let mut found = Vec::new();
            for id in chunks {
                found.extend(query::chunk(tables, id)?.filter(|r| r.state == ChunkState::Sealed).map(|r| (id, r)));
            }
            Ok(found)
        };
        self.shared.glance(read).await
    }

    /// Lets the members of chunks confirm what they hold, one chunk after the other while there is time.
    async fn ask_members(&self, leading: &Leading, chunks: &[ChunkId], until: Instant) -> Result<(), Fault> {
        for (chunk, record) in
            self.sealed_records(chunks.get(..READ_STEP.min(chunks.len())).unwrap_or_default()).await?
        {
            let at = SealedAt { chunk, length: record.length, crc: record.crc, replicas: 0 };
            let missing: Vec<_> = record.members.iter().filter(|m| !record.holders.contains(m)).copied().collect();
            let asking = commit::confirm(&self.shared, leading, &at, &missing, &record.holders);
            let limit = until.since(self.shared.now());
            if timeout(&*self.shared.world.clock, limit, asking).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
