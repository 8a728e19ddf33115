use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    command::{Durability, ServerWish},
    detector::Health,
    query::{self, ServerView},
    repair::queue::ROWS_MAX,
    rows::Totals,
};
use quarry_proto::v1;
use quarry_types::{ServerId, limits::DISK_NO_NEW_PERCENT};

use super::{Service, durability};
use crate::{
    error::Fault,
    shared::{Leading, Soft},
};

/// Servers read in one go.
const SERVERS_STEP: usize = 1000;
/// A status waits at most this long until the leader has looked at what just changed.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
const CATCH_UP_STEP: Duration = Duration::from_millis(20);

impl Service {
    /// The state of the cluster.
    pub async fn status(&self) -> Result<v1::StatusReply, Fault> {
        let leading = self.shared.leading()?;
        let (totals, settings, hold) = self
            .shared
            .read(|tables| Ok((query::totals(tables)?, query::settings(tables)?, query::hold(tables)?)))
            .await?;
        let (servers, masters) = (self.servers().await?, self.masters().await);
        self.catch_up(&leading).await;
        let soft = leading.soft();
        let now = self.shared.now();
        let chunkservers: Vec<_> = servers.iter().map(|server| server_status(&soft, server, now)).collect();
        let mut notices = super::masters::differences(&masters);
        notices.extend(hold.iter().map(super::metadata::notice));
        notices.extend(self::notices(&soft, &servers, &chunkservers, now));
        notices.extend(super::rebalance::off(&soft, &settings));
        notices.extend(super::masters::notices(&masters.masters));
        notices.extend(super::masters::upgrade_notice(&masters));
        Ok(v1::StatusReply {
            cluster: self.shared.cluster.to_bytes().into(),
            leadership: Some(leading.leadership.into()),
            masters: masters.masters,
            totals: Some(all_totals(&totals, &soft, &chunkservers)),
            notices,
            held: hold.is_some(),
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

    /// Waits until the leader has looked at everything that had changed when this was called, or has given it its time.
    pub(super) async fn catch_up(&self, leading: &Leading) {
        let began = self.shared.now();
        let mut looked = leading.soft().repairing.looked;
        while self.shared.now().since(began) < CATCH_UP_MAX {
            {
                let soft = leading.soft();
                if soft.servers.has_health_changes(self.shared.now()) {
                    looked = soft.repairing.looked;
                }
                let idle =
                    soft.repairing.has_looked(&soft.locations) && !soft.servers.has_health_changes(self.shared.now());
                if !soft.repairing.ready
                    || (idle && soft.repairing.survey.is_over())
                    || soft.repairing.looked > looked + 1
                {
                    return;
                }
            }
            self.shared.world.clock.sleep(CATCH_UP_STEP).await;
        }
    }
}

fn server_status(soft: &Soft, server: &ServerView, now: Instant) -> v1::ChunkserverStatus {
    let registered = soft.servers.get(server.id);
    let disks = registered.map(|s| s.disks.clone()).unwrap_or_default();
    // Of one that is silent the disks are still its own; how it is at work is not known.
    let working = registered.filter(|_| is_heard(soft, server.id, now));
    let sum = |of: fn(&v1::DiskInfo) -> u64| disks.iter().fold(0u64, |sum, disk| sum.saturating_add(of(disk)));
    v1::ChunkserverStatus {
        server: server.id.to_bytes().into(),
        address: server.record.address.clone(),
        rack: server.record.rack.clone(),
        state: soft.servers.state(server.id, now).into(),
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
        degraded: working.and_then(|s| s.vitals().sickness()).into_iter().collect(),
        maintenance_left_ms: soft.servers.maintenance_left_ms(server.id),
        cpu_percent: working.map_or(0, |s| s.cpu_percent),
        latency_us: working.map_or(0, |s| s.latency_us),
        scrubbed_bytes: registered.map_or(0, |s| s.scrubbed_bytes),
        oldest_verified_ms: registered.map_or(0, |s| s.oldest_verified_ms),
        up: is_up(soft, server.id, now),
    }
}

/// Its beats come, or have been missing for a moment only.
fn is_heard(soft: &Soft, server: ServerId, now: Instant) -> bool {
    matches!(soft.servers.health(server, now), Health::Alive | Health::Suspect)
}

/// Registered, and its beats come. One that came and went too often is suspect for its past only.
fn is_up(soft: &Soft, server: ServerId, now: Instant) -> bool {
    let registered = soft.servers.get(server).is_some();
    let beats = soft.servers.health(server, now) == Health::Alive || soft.servers.damped(server, now).is_some();
    registered && beats
}

/// What is to be said of a server that is not there, and what to do about it. One that is expected away is no surprise.
fn absence(soft: &Soft, server: ServerId, now: Instant) -> Option<String> {
    let wish = soft.servers.wish(server);
    if matches!(wish, ServerWish::Maintenance | ServerWish::Decommissioned) || !soft.repairing.ready {
        return None;
    }
    let silent = soft.servers.silent(server, now).map_or(0, |silent| silent.as_secs());
    let who = format!("chunkserver {server} ({})", soft.servers.address(server));
    let gone = "start it again, or `quarry decommission` it if it is gone for good";
    match soft.servers.health(server, now) {
        Health::Dead if wish == ServerWish::Draining => Some(format!(
            "{who} is dead while it is being drained, silent for {silent} s: the drain goes on from other replicas; {gone}"
        )),
        Health::Dead => {
            Some(format!("{who} is dead, silent for {silent} s: what it held is copied from others; {gone}"))
        }
        Health::Partitioned => Some(format!(
            "{who} is partitioned: this master has not heard of it for {silent} s, but its peers reach it; look at the \
             network between them"
        )),
        Health::Alive | Health::Suspect => None,
    }
}

fn all_totals(totals: &Totals, soft: &Soft, servers: &[v1::ChunkserverStatus]) -> v1::Totals {
    let ledger = soft.repairing.queue.totals();
    v1::Totals {
        files: totals.files,
        chunks: totals.chunks,
        open: totals.open,
        under_replicated: ledger.by_missing.iter().filter(|(missing, _)| **missing > 0).map(|(_, chunks)| chunks).sum(),
        corrupt: servers.iter().map(|s| s.quarantined).sum(),
        missing: ledger.lost,
        directories: totals.directories,
        doomed: totals.doomed,
    }
}

fn is_full(disk: &v1::DiskInfo) -> bool {
    let taken = u128::from(disk.capacity_bytes.saturating_sub(disk.available_bytes)) * 100;
    taken >= u128::from(disk.capacity_bytes) * u128::from(DISK_NO_NEW_PERCENT)
}

/// Below so many servers that a put cannot reach its minimum, writes are refused: that is said before anyone tries.
fn too_few_servers(soft: &Soft, servers: &[ServerView], now: Instant) -> Option<String> {
    let able = soft.servers.candidates(now).iter().filter(|c| c.is_active() && c.available_bytes > 0).count();
    let min = soft.repairing.policy.min_replicas;
    (able < min as usize && !servers.is_empty()).then(|| {
        format!(
            "writes are refused: {able} chunkservers can take chunks, and min-replicas is {min}; start chunkservers, free \
             room, end drains, or lower `min-replicas` (`quarry settings`)"
        )
    })
}

/// Why more may be missing than is counted.
pub(super) fn uncounted(soft: &Soft) -> Option<String> {
    let repairing = &soft.repairing;
    if !repairing.ready {
        let why = "this master leads since a moment ago: missing replicas are counted when servers have reported";
        return Some(why.into());
    }
    if !repairing.survey.is_over() {
        let why = "this master still looks at all chunks: not every missing replica is counted yet";
        return Some(why.into());
    }
    (!repairing.queue.is_whole()).then(|| {
        format!(
            "the ledger has {ROWS_MAX} rows, for the most endangered chunks; {} others were counted when all chunks were looked at \
             last, and get a row when there is room",
            repairing.queue.left_out()
        )
    })
}

fn notices(soft: &Soft, servers: &[ServerView], statuses: &[v1::ChunkserverStatus], now: Instant) -> Vec<String> {
    let mut notices: Vec<String> = uncounted(soft).into_iter().collect();
    let ready = soft.repairing.ready;
    notices.extend(soft.repairing.brake(&soft.servers, now).map(|why| format!("repair holds: {why}")));
    notices.extend(too_few_servers(soft, servers, now));
    notices.extend(soft.servers.refusals(now).map(str::to_owned));
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
    notices.extend(in_maintenance(soft));
    let lost = soft.repairing.queue.totals().lost;
    if lost > 0 && ready {
        notices.push(format!(
            "{lost} chunks have no good replica in reach: bring back a chunkserver or a disk that held them; `quarry repairs` \
             names the files"
        ));
    }
    for server in servers.iter().filter(|s| s.record.old_image) {
        notices.push(format!("chunkserver {} came back with an old image: its replicas are being verified", server.id));
    }
    let by_id: BTreeMap<_, _> = servers.iter().zip(statuses).map(|(s, status)| (s.id, status)).collect();
    for (id, status) in by_id {
        for disk in status.disks.iter().filter(|d| d.failed) {
            notices.push(format!(
                "disk {} of chunkserver {id} failed: {}; its chunks are copied from others; replace the disk",
                disk.path, disk.failed_reason
            ));
        }
        for disk in status.disks.iter().filter(|d| !d.failed && is_full(d) && is_heard(soft, id, now)) {
            notices.push(format!(
                "disk {} of chunkserver {id} is over {DISK_NO_NEW_PERCENT} % full and takes no new chunks; free some room",
                disk.path
            ));
        }
        for why in &status.degraded {
            notices.push(format!("chunkserver {id} takes new chunks only in need: {why}"));
        }
        if soft.servers.get(id).is_none() && ready {
            notices.push(format!("chunkserver {id} has not registered with this master"));
        } else {
            notices.extend(absence(soft, id, now));
        }
    }
    notices
}

/// Who is in maintenance, and what that means.
fn in_maintenance(soft: &Soft) -> Option<String> {
    let servers = soft.servers.rows().filter(|(id, _)| soft.servers.wish(*id) == ServerWish::Maintenance);
    let names: Vec<String> = servers.map(|(_, row)| row.address.clone()).collect();
    let word = if names.len() == 1 { "chunkserver is" } else { "chunkservers are" };
    (!names.is_empty()).then(|| {
        format!(
            "{} {word} in maintenance ({}): nothing new goes there, and what only misses those is not copied while another \
             replica is in reach",
            names.len(),
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use quarry_master_core::{command::Verdict, rows};
    use quarry_types::{ChunkId, ClusterKey};

    use super::*;
    use crate::servers::{Registered, Start};

    fn at(ms: u64) -> Instant {
        Instant(Duration::from_millis(ms))
    }

    /// A server with busy processors that beats up to `beats` seconds.
    fn soft_with(wish: ServerWish, beats: u64) -> (Soft, ServerView) {
        let mut soft = Soft::new(ClusterKey::new([1; 32]));
        let id = ServerId::from_random(1);
        let record = rows::Server {
            address: "h:1".into(),
            rack: "r".into(),
            start_counter: 1,
            durability: Durability::Sealed,
            old_image: false,
            wish,
            maintenance_until_ms: 1_000_000,
            automatic: false,
            verdict: Verdict::None,
            start_id: 1,
            first_chunk: ChunkId(1),
        };
        soft.servers.expect(id, record.clone(), at(0));
        let registered = Registered {
            start: Start { counter: 1, id: 1 },
            registration: 7,
            address: "h:1".into(),
            rack: "r".into(),
            durability: Durability::Sealed,
            disks: Vec::new(),
        };
        soft.servers.register(id, registered, at(0));
        for second in 0..=beats {
            let beat = v1::Beat { registration: 7, cpu_percent: 100, latency_us: 9, ..Default::default() };
            assert!(soft.servers.beat(id, &beat, None, at(second * 1000)).is_some());
        }
        soft.repairing.ready = true;
        (soft, ServerView { id, record })
    }

    fn told(soft: &Soft, server: &ServerView, now: Instant) -> (v1::ChunkserverStatus, Vec<String>) {
        let status = server_status(soft, server, now);
        let servers = std::slice::from_ref(server);
        let notices = notices(soft, servers, std::slice::from_ref(&status), now);
        let told = notices.into_iter().filter(|notice| notice.contains("chunkserver ")).collect();
        (status, told)
    }

    #[test]
    fn how_busy_a_dead_server_was_is_not_said_but_that_it_is_dead_is() {
        let (soft, server) = soft_with(ServerWish::Active, 5);
        let (status, told_of) = told(&soft, &server, at(5100));
        assert_eq!((status.cpu_percent, status.latency_us, status.degraded.len(), status.up), (100, 9, 1, true));
        assert!(told_of.len() == 1 && told_of[0].contains("processors"), "{told_of:?}");
        let (status, told_of) = told(&soft, &server, at(20_000));
        assert_eq!((status.cpu_percent, status.latency_us, status.degraded.len(), status.up), (0, 0, 0, false));
        assert!(told_of.len() == 1 && told_of[0].contains("(h:1) is dead, silent for 15 s"), "{told_of:?}");
    }

    #[test]
    fn a_server_that_dies_while_it_is_drained_is_a_loss_unless_it_said_goodbye() {
        let (mut soft, server) = soft_with(ServerWish::Draining, 5);
        assert!(!soft.servers.is_expected_away(server.id));
        soft.servers.goodbye(server.id);
        assert!(soft.servers.is_expected_away(server.id));
        let beat = v1::Beat { registration: 7, ..Default::default() };
        assert!(soft.servers.beat(server.id, &beat, None, at(9000)).is_some());
        assert!(!soft.servers.is_expected_away(server.id), "it is back");
        let (mut active, server) = soft_with(ServerWish::Active, 5);
        active.servers.goodbye(server.id);
        assert!(
            !active.servers.is_expected_away(server.id),
            "without a maintenance nobody said how long it may be away"
        );
    }

    #[test]
    fn what_an_operator_wants_of_a_server_does_not_hide_whether_it_is_up_or_gone() {
        for wish in [ServerWish::Draining, ServerWish::Maintenance, ServerWish::Decommissioned] {
            let (mut soft, server) = soft_with(wish, 5);
            assert!(told(&soft, &server, at(5100)).0.up, "{wish:?}");
            soft.servers.goodbye(server.id);
            let (status, told_of) = told(&soft, &server, at(5200));
            assert!(!status.up, "{wish:?}");
            let drained = told_of.iter().any(|notice| notice.contains("dead while it is being drained"));
            assert_eq!(drained, wish == ServerWish::Draining, "{told_of:?}");
            assert!(soft.servers.is_expected_away(server.id), "{wish:?}: a stop that was announced is no loss");
        }
    }
}
