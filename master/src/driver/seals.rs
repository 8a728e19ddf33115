//! The watermark of open chunks, and the sealing of those that nobody writes any more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use quarry_master_core::{query, tables::ReadTables};
use quarry_types::ChunkId;

use crate::{
    error::Fault,
    service::Sealer,
    shared::{Leading, Shared},
};

/// Open chunks looked at in one go.
const STEP: usize = 1000;
/// Chunks sealed at the same time.
const SEALING_AT_ONCE: usize = 32;
/// What one round gives the members; the next round tries again.
const SEAL_PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn step(shared: &Arc<Shared>, leading: &Arc<Leading>) -> Result<bool, Fault> {
    let mut after = None;
    loop {
        let (watermark, left, next) = shared
            .peek(move |tables| {
                let (left, next) = left_open(tables, after)?;
                Ok((query::open_watermark(tables)?, left, next))
            })
            .await?;
        // Committed by this leader or before: ids only grow, so no chunk below can open any more.
        leading.open_watermark.fetch_max(watermark.0, Ordering::AcqRel);
        let sealer = &Sealer::new(shared.clone(), leading.clone());
        futures::stream::iter(left)
            .for_each_concurrent(SEALING_AT_ONCE, |chunk| async move {
                if let Err(error) = sealer.seal(chunk, SEAL_PATIENCE).await {
                    tracing::info!(%chunk, %error, "a chunk without a writer stays open for now");
                }
            })
            .await;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(false),
        }
    }
}

/// Open chunks whose file nobody has the right to write, and where to go on.
fn left_open(tables: &dyn ReadTables, after: Option<ChunkId>) -> Result<(Vec<ChunkId>, Option<ChunkId>), query::Fault> {
    let page = query::open_chunks(tables, after, STEP)?;
    let mut left = Vec::new();
    for chunk in &page {
        if query::inode(tables, chunk.record.inode)?.is_none_or(|inode| inode.lease.0 == 0) {
            left.push(chunk.id);
        }
    }
    let next = page.last().filter(|_| page.len() == STEP).map(|chunk| chunk.id);
    Ok((left, next))
}
