use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quarry_env::Instant;
use quarry_master_core::{
    command::Durability,
    query::{self, ServerView},
    rows::{ChunkState, Totals},
};
use quarry_proto::v1;
use quarry_types::{ChunkId, limits::DEAD_AFTER};

use super::{Service, durability};
use crate::{
    error::Fault,
    lookups,
    shared::{Leading, Soft},
};

/// Servers read in one go.
const SERVERS_STEP: usize = 1000;
/// Chunk records compared in one go.
const CHUNKS_STEP: usize = 2000;
/// A count of all chunks is used again for this share of the time it took to make, and at least for a moment: however
/// often the status is asked for, counting costs little.
const REUSE_FACTOR: u32 = 10;
const REUSE_MIN: Duration = Duration::from_millis(200);

/// The last count of all chunks.
#[derive(Default)]
pub struct StatusCache {
    counted: Mutex<Option<Counted>>,
    counting: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct Counted {
    health: ChunkHealth,
    until: Instant,
    since: Instant,
}

/// Sealed chunks that lack replicas.
#[derive(Clone, Copy, Default)]
struct ChunkHealth {
    under_replicated: u64,
    missing: u64,
}

impl Service {
    /// The state of the cluster.
    pub async fn status(&self) -> Result<v1::StatusReply, Fault> {
        let leading = self.shared.leading()?;
        let totals = self.shared.read(|tables| query::totals(tables)).await?;
        let servers = self.servers().await?;
        let ready = ready(&leading, &servers, self.shared.now());
        let health = if ready { self.count(&leading).await? } else { ChunkHealth::default() };
        let soft = leading.soft();
        let now = self.shared.now();
        let chunkservers: Vec<_> = servers.iter().map(|server| server_status(&soft, server, now)).collect();
        Ok(v1::StatusReply {
            cluster: self.shared.cluster.to_bytes().into(),
            leadership: Some(leading.leadership.into()),
            masters: self.shared.group.status(),
            totals: Some(all_totals(&totals, health, &chunkservers)),
            notices: notices(&soft, &servers, ready, &chunkservers),
            chunkservers,
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    /// All servers that the replicated state knows, by id.
    async fn servers(&self) -> Result<Vec<ServerView>, Fault> {
        let mut servers: Vec<ServerView> = Vec::new();
        loop {
            let after = servers.last().map(|s| s.id);
            let page = self.shared.peek(move |tables| Ok(query::servers(tables, after, SERVERS_STEP)?)).await?;
            let last = page.len() < SERVERS_STEP;
            servers.extend(page);
            if last {
                return Ok(servers);
            }
        }
    }

    /// Compares every sealed chunk with what servers report, in bounded steps. Concurrent calls share one count.
    async fn count(&self, leading: &Arc<Leading>) -> Result<ChunkHealth, Fault> {
        let _one_at_a_time = self.status.counting.lock().await;
        let began = self.shared.now();
        let last = *self.status.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.filter(|c| c.until > began && c.since == leading.since) {
            return Ok(last.health);
        }
        let mut health = ChunkHealth::default();
        let mut after = ChunkId(0);
        loop {
            let leading = leading.clone();
            let now = self.shared.now();
            let (step, next) = self
                .shared
                .peek(move |tables| {
                    let page = lookups::chunks(tables, after, CHUNKS_STEP)?;
                    let next = page.last().filter(|_| page.len() == CHUNKS_STEP).map(|chunk| chunk.id);
                    let soft = leading.soft();
                    let mut step = ChunkHealth::default();
                    page.iter().for_each(|chunk| step.add(&soft, chunk, now));
                    Ok((step, next))
                })
                .await?;
            health.under_replicated += step.under_replicated;
            health.missing += step.missing;
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        let took = self.shared.now().since(began);
        let until = self.shared.now().plus((took * REUSE_FACTOR).max(REUSE_MIN));
        let counted = Counted { health, until, since: leading.since };
        *self.status.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
        Ok(health)
    }
}

impl ChunkHealth {
    fn add(&mut self, soft: &Soft, chunk: &query::ChunkView, now: Instant) {
        let record = &chunk.record;
        if record.state != ChunkState::Sealed {
            return;
        }
        let good = soft
            .locations
            .holders(chunk.id)
            .filter(|(server, replica)| {
                // Where the receipt came before the report of the change, the record knows better.
                let reported = replica.serves(record.length, record.crc)
                    || (replica.state == quarry_types::ReplicaState::Open && record.holders.contains(server));
                reported
                    && soft.servers.get(*server).is_some()
                    && soft.servers.health(*server, now) != quarry_master_core::detector::Health::Dead
                    && !soft.locations.doubts(*server, chunk.id)
            })
            .count();
        if good == 0 {
            self.missing += 1;
        }
        if good < record.wanted as usize {
            self.under_replicated += 1;
        }
    }
}

/// A new leader counts only after servers had time to report, or all have.
fn ready(leading: &Leading, servers: &[ServerView], now: Instant) -> bool {
    let soft = leading.soft();
    now.since(leading.since) >= DEAD_AFTER * 2 || servers.iter().all(|s| soft.locations.number(s.id).is_some())
}

fn server_status(soft: &Soft, server: &ServerView, now: Instant) -> v1::ChunkserverStatus {
    let registered = soft.servers.get(server.id);
    let disks = registered.map(|s| s.disks.clone()).unwrap_or_default();
    let sum = |of: fn(&v1::DiskInfo) -> u64| disks.iter().fold(0u64, |sum, disk| sum.saturating_add(of(disk)));
    v1::ChunkserverStatus {
        server: server.id.to_bytes().into(),
        address: server.record.address.clone(),
        rack: server.record.rack.clone(),
        state: soft.servers.health(server.id, now).word().into(),
        capacity_bytes: sum(|d| d.capacity_bytes),
        used_bytes: sum(|d| d.used_bytes),
        chunks: soft.locations.count(server.id),
        disks,
        durability: durability(server.record.durability).into(),
        quarantined: soft.locations.quarantined(server.id),
        silent_ms: soft
            .servers
            .silent(server.id, now)
            .map_or(0, |silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn all_totals(totals: &Totals, health: ChunkHealth, servers: &[v1::ChunkserverStatus]) -> v1::Totals {
    v1::Totals {
        files: totals.files,
        chunks: totals.chunks,
        open: totals.open,
        under_replicated: health.under_replicated,
        corrupt: servers.iter().map(|s| s.quarantined).sum(),
        missing: health.missing,
        directories: totals.directories,
        doomed: totals.doomed,
    }
}

fn notices(soft: &Soft, servers: &[ServerView], ready: bool, statuses: &[v1::ChunkserverStatus]) -> Vec<String> {
    let mut notices = Vec::new();
    if !ready {
        notices.push(
            "this master leads since a moment ago: missing replicas are counted when servers have reported".into(),
        );
    }
    if servers.is_empty() {
        notices.push("no chunkserver has registered yet: nothing can be stored".into());
    }
    let buffered: Vec<_> = servers.iter().filter(|s| s.record.durability == Durability::Buffered).collect();
    if !buffered.is_empty() {
        notices.push(format!(
            "{} chunkservers run with buffered durability: a power loss can take what they acknowledged",
            buffered.len()
        ));
    }
    for server in servers.iter().filter(|s| s.record.old_image) {
        notices.push(format!("chunkserver {} came back with an old image: its replicas are being verified", server.id));
    }
    let by_id: BTreeMap<_, _> = servers.iter().zip(statuses).map(|(s, status)| (s.id, status)).collect();
    for (id, status) in by_id {
        for disk in status.disks.iter().filter(|d| d.failed) {
            notices.push(format!("disk {} of chunkserver {id} failed", disk.path));
        }
        if soft.servers.get(id).is_none() && ready {
            notices.push(format!("chunkserver {id} has not registered with this master"));
        }
    }
    notices
}
