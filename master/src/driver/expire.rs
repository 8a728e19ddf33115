//! Ends writer leases and sessions that nobody renewed.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use quarry_master_core::{
    command::{ExpireLease, ExpireSessions, Kind},
    limits::EXPIRE_SESSIONS_MAX,
    query,
};
use quarry_types::{LeaseId, SessionId};

use crate::{
    error::Fault,
    service::Sealer,
    shared::{Leading, Shared},
};

/// Rows read in one go.
const STEP: usize = 1000;
/// Leases ended at the same time.
const ENDING_AT_ONCE: usize = 32;
/// What one round gives the members of a lapsed writer's open chunk; the next round tries again.
const SEAL_PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn step(shared: &Arc<Shared>, leading: &Arc<Leading>) -> Result<bool, Fault> {
    let leases = all_leases(shared).await?;
    let lapsed = leading.soft().renewals.lapsed_leases(&leases, shared.now(), shared.lease);
    futures::stream::iter(lapsed)
        .for_each_concurrent(ENDING_AT_ONCE, |lease| async move {
            if let Err(error) = end(shared, leading, lease).await {
                tracing::warn!(%lease, %error, "a lapsed writer lease could not be ended yet");
            }
        })
        .await;
    let sessions = all_sessions(shared).await?;
    let silent = leading.soft().renewals.silent_sessions(&sessions, shared.now(), shared.session);
    for some in silent.chunks(EXPIRE_SESSIONS_MAX) {
        tracing::info!(sessions = some.len(), "silent sessions end");
        shared.propose(Kind::ExpireSessions(ExpireSessions { sessions: some.to_vec() })).await?;
    }
    Ok(false)
}

/// Of a visible file, what its members have is kept: its open chunk is sealed first. An atomic put goes as a whole.
async fn end(shared: &Arc<Shared>, leading: &Arc<Leading>, lease: LeaseId) -> Result<(), Fault> {
    let (found, hold) = shared.peek(move |tables| Ok((query::lease(tables, lease)?, query::hold(tables)?))).await?;
    let Some(found) = found else { return Ok(()) };
    // A put is not aborted, and what an earlier lineage had open is not sealed, before an operator lets go (S6).
    if hold.is_some_and(|hold| !found.visible || found.open.iter().any(|chunk| hold.is_inherited(*chunk))) {
        return Ok(());
    }
    tracing::info!(%lease, inode = %found.inode, "a writer lease was not renewed and ends");
    if found.visible {
        let sealer = Sealer::new(shared.clone(), leading.clone());
        for chunk in found.open {
            sealer.seal(chunk, SEAL_PATIENCE).await?;
        }
    }
    shared.propose(Kind::ExpireLease(ExpireLease { lease })).await.map(|_| ())
}

async fn all_leases(shared: &Shared) -> Result<Vec<LeaseId>, Fault> {
    let mut all: Vec<LeaseId> = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or_default();
        let page = shared.peek(move |tables| Ok(query::leases(tables, after, STEP)?)).await?;
        all.extend(page.iter().map(|lease| lease.id));
        if page.len() < STEP {
            return Ok(all);
        }
    }
}

async fn all_sessions(shared: &Shared) -> Result<Vec<SessionId>, Fault> {
    let mut all: Vec<SessionId> = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or_default();
        let page = shared.peek(move |tables| Ok(query::sessions(tables, after, STEP)?)).await?;
        let last = page.len() < STEP;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}
