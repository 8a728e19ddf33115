//! The watermark of open chunks, and the sealing of those that nobody writes any more, or that are in the way of a drain.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use quarry_master_core::{command::ServerWish, query, tables::ReadTables};
use quarry_types::{ChunkId, ServerId};

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
    let leaving: Arc<BTreeSet<ServerId>> = Arc::new(leaving(leading));
    let mut after = None;
    loop {
        let leaving = leaving.clone();
        let (watermark, left, next) = shared
            .peek(move |tables| {
                let (left, next) = left_open(tables, &leaving, after)?;
                Ok((query::open_watermark(tables)?, left, next))
            })
            .await?;
        // Committed by this leader or before: ids only grow, so no chunk below can open any more.
        leading.open_watermark.fetch_max(watermark.0, Ordering::AcqRel);
        let sealer = &Sealer::new(shared.clone(), leading.clone());
        futures::stream::iter(left)
            .for_each_concurrent(SEALING_AT_ONCE, |chunk| async move {
                if let Err(error) = sealer.seal(chunk, SEAL_PATIENCE).await {
                    tracing::info!(%chunk, %error, "a chunk that is to be sealed stays open for now");
                }
            })
            .await;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(false),
        }
    }
}

/// The servers that are to be emptied.
fn leaving(leading: &Leading) -> BTreeSet<ServerId> {
    let soft = leading.soft();
    let leaves =
        |server: &ServerId| matches!(soft.servers.wish(*server), ServerWish::Draining | ServerWish::Decommissioned);
    soft.servers.rows().map(|(server, _)| server).filter(leaves).collect()
}

/// Open chunks whose file nobody has the right to write, or that are written on a server that is to be emptied, and where
/// to go on. A writer may keep a chunk open for as long as it lives: it goes on in a new one elsewhere.
fn left_open(
    tables: &dyn ReadTables,
    leaving: &BTreeSet<ServerId>,
    after: Option<ChunkId>,
) -> Result<(Vec<ChunkId>, Option<ChunkId>), query::Fault> {
    let page = query::open_chunks(tables, after, STEP)?;
    let hold = query::hold(tables)?;
    let mut left = Vec::new();
    for chunk in &page {
        if hold.as_ref().is_some_and(|hold| hold.is_inherited(chunk.id)) {
            continue;
        }
        let leaves = chunk.record.members.iter().any(|member| leaving.contains(member));
        if leaves || query::inode(tables, chunk.record.inode)?.is_none_or(|inode| inode.lease.0 == 0) {
            left.push(chunk.id);
        }
    }
    let next = page.last().filter(|_| page.len() == STEP).map(|chunk| chunk.id);
    Ok((left, next))
}
