//! What operators want of chunkservers, and how far it has come.

use std::time::Duration;

use quarry_env::Instant;
use quarry_master_core::{command::ServerWish, detector::Health};
use quarry_proto::v1;
use quarry_types::{ChunkId, ErrorCode, ReplicaState, ServerId};

use super::Service;
use crate::{
    error::{Fault, fault},
    shared::{Leading, Soft},
};

/// Replicas looked at in one go.
const STEP: usize = 4096;
/// A shorter maintenance is over before anybody notices it.
const MAINTENANCE_MS_MIN: u64 = 1000;

/// What is left on a server.
#[derive(Default)]
struct Left {
    chunks: u64,
    bytes: u64,
    open: u64,
    replicas: u64,
    reason: Option<String>,
}

impl Service {
    /// Changes what is wanted of a server. The same again is fine.
    pub async fn set_server(
        &self,
        server: ServerId,
        wish: ServerWish,
        for_ms: u64,
    ) -> Result<v1::ServerProgressReply, Fault> {
        let leading = self.shared.leading()?;
        self.known(&leading, server)?;
        if wish == ServerWish::Maintenance && for_ms < MAINTENANCE_MS_MIN {
            let why = format!("a maintenance of {for_ms} ms; choose {MAINTENANCE_MS_MIN} ms or more");
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        tracing::info!(%server, wish = wish.word(), for_ms, "an operator changes what is wanted of a chunkserver");
        self.shared.set_server(&leading, server, wish, for_ms, false).await?;
        // What follows from it is noted by the next look.
        self.server_progress(server).await
    }

    fn known(&self, leading: &Leading, server: ServerId) -> Result<(), Fault> {
        if leading.soft().servers.rows().any(|(known, _)| known == server) {
            return Ok(());
        }
        Err(fault(ErrorCode::NotFound, format!("there is no chunkserver {server}; `quarry status` lists them")))
    }

    /// How far a drain, a maintenance or a decommission has come.
    pub async fn server_progress(&self, server: ServerId) -> Result<v1::ServerProgressReply, Fault> {
        let leading = self.shared.leading()?;
        self.known(&leading, server)?;
        let mut left = Left::default();
        let mut from = ChunkId(0);
        loop {
            let page = leading.soft().locations.chunks_of(server, from, STEP);
            count(&leading.soft(), server, &page, &mut left, self.shared.now());
            match page.last().and_then(|last| last.0.checked_add(1)).filter(|_| page.len() == STEP) {
                Some(next) => from = ChunkId(next),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        let (soft, now) = (leading.soft(), self.shared.now());
        let (wish, queue) = (soft.servers.wish(server), &soft.repairing.queue);
        let leaving = matches!(wish, ServerWish::Draining | ServerWish::Decommissioned);
        let unknown = unknown(&soft, server).filter(|_| leaving);
        left.reason = unknown.or(left.reason);
        let settled = soft.repairing.is_settled(&soft.locations) && left.reason.is_none();
        let done = leaving && settled && left.chunks == 0 && left.open == 0;
        let rate = queue.rate(now.0).filter(|_| left.reason.is_none());
        let eta = rate.map(|rate| Duration::from_millis(left.bytes.saturating_mul(1000) / rate.max(1)));
        Ok(v1::ServerProgressReply {
            wish: wish_number(wish).into(),
            state: soft.servers.state(server, now).into(),
            chunks_left: if leaving { left.chunks } else { 0 },
            bytes_left: if leaving { left.bytes } else { 0 },
            open_left: left.open,
            replicas: left.replicas,
            eta_ms: eta.map_or(0, |eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            eta_known: eta.is_some() || done,
            done,
            reason: left.reason.unwrap_or_default(),
            maintenance_left_ms: soft.servers.maintenance_left_ms(server),
        })
    }
}

/// Why what is left on a server cannot be said: it has not reported to this leader. What it holds is known by the records of its
/// chunks only then, and nothing on it is needed for certain once no chunk in the cluster wants a copy.
fn unknown(soft: &Soft, server: ServerId) -> Option<String> {
    if soft.locations.number(server).is_some() {
        return None;
    }
    let totals = soft.repairing.queue.totals();
    let short: u64 = totals.by_missing.iter().filter(|(missing, _)| **missing > 0).map(|(_, chunks)| chunks).sum();
    let settled = soft.repairing.is_settled(&soft.locations);
    (short > 0 || totals.bytes_left > 0 || !settled).then(|| {
        format!(
            "it has not reported to this master since that leads, so what is on it may be needed: {short} chunks in the cluster \
             miss replicas; start it, or wait until none does"
        )
    })
}

/// Counts what is left on a server. Of one that answers that is every replica that can be read, until it is dropped: each
/// goes once it has a successor, so the number only falls. Of one that is gone it is what has no successor yet.
fn count(soft: &Soft, server: ServerId, page: &[ChunkId], left: &mut Left, now: Instant) {
    let alive = soft.servers.health(server, now) == Health::Alive;
    for chunk in page {
        let Some(replica) = soft.locations.replica(server, *chunk) else { continue };
        left.replicas += 1;
        let entry = soft.repairing.queue.get(*chunk);
        let needed = entry.is_some_and(|entry| entry.need.wants_copy());
        let last = entry.is_some_and(|entry| entry.need.good == 0);
        match replica.state {
            // What can be read of it may be all that there is.
            ReplicaState::Quarantined if last => {
                left.chunks += 1;
                left.bytes += replica.length;
                left.reason.get_or_insert_with(|| last_words(*chunk));
            }
            ReplicaState::Quarantined => continue,
            ReplicaState::Open => left.open += 1,
            ReplicaState::Fenced | ReplicaState::Sealed if alive || needed => {
                left.chunks += 1;
                left.bytes += replica.length;
            }
            ReplicaState::Fenced | ReplicaState::Sealed => continue,
        }
        let blocked = entry.and_then(|entry| entry.reason.as_ref()).filter(|reason| reason.is_blocked());
        if let Some(reason) = blocked
            && left.reason.is_none()
        {
            left.reason = Some(format!("chunk {chunk}: {reason}; {}", reason.remedy()));
        }
    }
}

fn last_words(chunk: ChunkId) -> String {
    format!(
        "chunk {chunk} has no good replica, and the bad one here may hold the last bytes of it; get what can be read \
         (`quarry explain chunk {chunk}` names the file), or remove its file"
    )
}

/// As the wire says it.
pub fn wish_number(wish: ServerWish) -> v1::ServerWish {
    match wish {
        ServerWish::Active => v1::ServerWish::Active,
        ServerWish::Draining => v1::ServerWish::Draining,
        ServerWish::Maintenance => v1::ServerWish::Maintenance,
        ServerWish::Decommissioned => v1::ServerWish::Decommissioned,
    }
}
