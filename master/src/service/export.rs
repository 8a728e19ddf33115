use quarry_master_core::{repair::Quality, rows::ChunkState};
use quarry_proto::v1;
use quarry_types::ChunkId;

use super::Service;
use crate::{error::Fault, lookups, repairing, shared::Soft};

/// Chunks looked at for one page.
const STEP: usize = 1000;

impl Service {
    /// A page of the sealed chunks behind `after`, with who holds them. Each page is what it was when the page was made.
    pub async fn export_chunks(&self, after: ChunkId) -> Result<v1::ExportChunksReply, Fault> {
        let leading = self.shared.leading()?;
        let page = self.shared.read(move |tables| Ok(lookups::chunks(tables, after, STEP)?)).await?;
        let next_after = page.last().filter(|_| page.len() == STEP).map_or(0, |last| last.id.0);
        let (soft, now) = (leading.soft(), self.shared.now());
        let sealed = page.iter().filter(|view| view.record.state == ChunkState::Sealed);
        let chunks = sealed.map(|view| exported(&soft, view, now)).collect();
        Ok(v1::ExportChunksReply { chunks, next_after })
    }
}

fn exported(soft: &Soft, view: &quarry_master_core::query::ChunkView, now: quarry_env::Instant) -> v1::ExportedChunk {
    let facts = repairing::facts(soft, view.id, &view.record, now);
    let holders = facts.holders.iter().map(|holder| holder.server.to_bytes().into()).collect();
    let bad = (0u32..).zip(&facts.holders).filter(|(_, holder)| holder.quality != Quality::Good).map(|(at, _)| at);
    v1::ExportedChunk { chunk: view.id.0, length: facts.length, wanted: facts.wanted, holders, bad: bad.collect() }
}
