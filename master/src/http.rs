//! What the HTTP port shows of a master.
//!
//! A scrape looks at what is known and waits for nothing; its cost grows with the servers, never with the chunks.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use quarry_env::Instant;
use quarry_http::{Pages, Sample, metrics::registry::Registry, register_looked_up};
use quarry_master_core::{command::ServerWish, detector::Health};
use quarry_types::limits::REPLICAS_MAX;
use tokio::sync::watch;

use crate::{
    service::WATCHERS_MAX,
    shared::{Shared, Soft},
};

/// The pages. They do not keep the master's state alive.
pub(crate) fn pages(shared: &Arc<Shared>, stopped: watch::Receiver<bool>) -> Pages {
    let mut registry = Registry::with_prefix("quarry_master");
    let looked_at = Arc::downgrade(shared);
    register_looked_up(&mut registry, move || looked_at.upgrade().map(|shared| samples(&shared)).unwrap_or_default());
    let asked = Arc::downgrade(shared);
    let (leads, stops) = (asked.clone(), stopped.clone());
    Pages::new(registry, move || ready(&asked, &stopped)).leader(move || leader(&leads, &stops))
}

/// It leads, and takes requests.
fn leader(shared: &Weak<Shared>, stopped: &watch::Receiver<bool>) -> Result<(), String> {
    ready(shared, stopped)?;
    let shared = shared.upgrade().ok_or("the master has stopped")?;
    shared.leading().map(drop).map_err(|fault| fault.message)
}

/// It leads and has room for changes, or knows who leads and that a majority stands by that one.
fn ready(shared: &Weak<Shared>, stopped: &watch::Receiver<bool>) -> Result<(), String> {
    let shared = shared.upgrade().ok_or("the master has stopped")?;
    if *stopped.borrow() {
        return Err("the master is stopping".into());
    }
    match shared.leading() {
        Ok(_) if shared.group.was_short_of_room() => Err(format!(
            "the disk of {} is full, and changes are refused: free some room there",
            shared.group.dir().display()
        )),
        Ok(_) => Ok(()),
        Err(_) if shared.group.followed().is_some() => Ok(()),
        Err(fault) => Err(fault.message),
    }
}

fn samples(shared: &Shared) -> Vec<Sample> {
    let mut all = group(shared);
    all.extend(copies(shared));
    all.push(stale_reads(shared));
    // The rest is known to who leads only.
    if let Some(leading) = shared.present() {
        let (soft, now) = (leading.soft(), shared.now());
        all.push(Sample::gauge("epoch", "Epoch of this leadership").value(leading.leadership.epoch.0 as f64));
        all.extend(agreement(&soft, now));
        all.extend(servers(&soft, now));
        all.extend(totals(&soft));
        all.extend(ledger(&soft, now));
    }
    all
}

fn group(shared: &Shared) -> Vec<Sample> {
    let members = shared.group.status();
    let me = members.iter().find(|member| member.id == shared.node.0);
    let leader = Sample::gauge("leader", "1 while this master leads").value(flag(shared.present().is_some()));
    let watchers = Sample::gauge("watchers", "Streams of changes that are open")
        .value(WATCHERS_MAX.saturating_sub(shared.watchers.available_permits()) as f64);
    let of_me = me.into_iter().flat_map(|me| {
        [
            Sample::gauge("term", "Term of the group of masters").value(me.term as f64),
            Sample::gauge("applied_index", "Index of the last command applied here").value(me.applied as f64),
            Sample::gauge("last_log_index", "Index of the last command in the log here").value(me.last_log as f64),
        ]
    });
    let appends = Sample::counter("log_appends", "Times that commands were appended to the log here, each with a sync")
        .value(shared.group.log_appends() as f64);
    [leader, watchers, appends].into_iter().chain(of_me).collect()
}

fn agreement(soft: &Soft, now: Instant) -> Vec<Sample> {
    let mut all = vec![
        Sample::gauge("state_differences", "Masters whose state differed from the others' when it was compared last")
            .value(soft.agreement.alarms().count() as f64),
    ];
    if let Some(last) = soft.agreement.last() {
        let age = now.since(last.at).as_secs_f64();
        all.push(
            Sample::gauge("states_compared_index", "Index of the log where states were compared last")
                .value(last.index as f64),
        );
        all.push(Sample::gauge("states_compared_age_seconds", "How long ago that was").value(age));
    }
    all
}

fn copies(shared: &Shared) -> Vec<Sample> {
    let copies = &shared.copies;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let outcomes = [("done", &copies.done), ("failed", &copies.failed), ("cancelled", &copies.cancelled)];
    let ended = Sample::counter("copies", "Copies that ended, for repair, drains and balancing");
    vec![
        outcomes
            .into_iter()
            .fold(ended, |sample, (outcome, count)| sample.labelled([("outcome", outcome.to_owned())], of(count))),
        Sample::counter("copied_bytes", "Bytes of the copies that are done").value(of(&copies.bytes)),
    ]
}

fn stale_reads(shared: &Shared) -> Sample {
    let outcomes = [("answered", &shared.stale_reads.answered), ("refused", &shared.stale_reads.refused)];
    let reads = Sample::counter("stale_reads", "Reads that were allowed to be a little old");
    outcomes.into_iter().fold(reads, |sample, (outcome, count)| {
        sample.labelled([("outcome", outcome.to_owned())], count.load(Ordering::Relaxed) as f64)
    })
}

fn servers(soft: &Soft, now: Instant) -> Vec<Sample> {
    let health = [Health::Alive, Health::Suspect, Health::Partitioned, Health::Dead].map(Health::word);
    let wishes = [ServerWish::Draining, ServerWish::Maintenance, ServerWish::Decommissioned].map(ServerWish::word);
    let states: Vec<&str> = soft.servers.rows().map(|(server, _)| soft.servers.state(server, now)).collect();
    let by_state = health.into_iter().chain(wishes).fold(
        Sample::gauge("chunkservers", "Chunkservers by state, as `quarry status` shows it"),
        |sample, state| {
            let count = states.iter().filter(|of| **of == state).count();
            sample.labelled([("state", state.to_owned())], count as f64)
        },
    );
    let disks = || soft.servers.registered().flat_map(|(_, server)| &server.disks);
    let corrupt: u64 = soft.servers.registered().map(|(server, _)| soft.locations.quarantined(server)).sum();
    vec![
        by_state,
        Sample::gauge("capacity_bytes", "Room on the disks of all registered chunkservers")
            .value(disks().map(|disk| disk.capacity_bytes as f64).sum()),
        Sample::gauge("used_bytes", "Room that chunk files take there")
            .value(disks().map(|disk| disk.used_bytes as f64).sum()),
        Sample::gauge("failed_disks", "Disks that are out of service")
            .value(disks().filter(|disk| disk.failed).count() as f64),
        Sample::gauge("corrupt_replicas", "Replicas that failed a check and are kept aside").value(corrupt as f64),
    ]
}

fn totals(soft: &Soft) -> Vec<Sample> {
    let Some(totals) = &soft.totals else { return Vec::new() };
    vec![
        Sample::gauge("files", "Visible files").value(totals.files as f64),
        Sample::gauge("directories", "Directories, without the root").value(totals.directories as f64),
        Sample::gauge("chunks", "Open and sealed chunks").value(totals.chunks as f64),
        Sample::gauge("open_chunks", "Chunks that are being written").value(totals.open as f64),
        Sample::gauge("doomed_chunks", "Chunks that are being deleted").value(totals.doomed as f64),
        Sample::gauge("trashed", "Files and directories in the trash").value(totals.trashed as f64),
        Sample::gauge("leases", "Files open for writing").value(totals.leases as f64),
        Sample::gauge("sessions", "Sessions of clients").value(totals.sessions as f64),
    ]
}

fn ledger(soft: &Soft, now: Instant) -> Vec<Sample> {
    let repairing = &soft.repairing;
    let ledger = repairing.queue.totals();
    let by_missing = (0..=REPLICAS_MAX).fold(
        Sample::gauge("ledger_chunks", "Chunks that are not as they should be, by missing replicas; 0: other work"),
        |sample, missing| {
            let chunks = ledger.by_missing.get(&missing).copied().unwrap_or(0);
            sample.labelled([("missing", missing.to_string())], chunks as f64)
        },
    );
    let held = repairing.brake(&soft.servers, now).is_some();
    vec![
        by_missing,
        Sample::gauge("ledger_complete", "1 when everything that changed was looked at, so that the counts are exact")
            .value(flag(repairing.is_settled(&soft.locations))),
        Sample::gauge("lost_chunks", "Chunks without any good replica").value(ledger.lost as f64),
        Sample::gauge("repair_left_bytes", "Bytes that are still to be copied").value(ledger.bytes_left as f64),
        Sample::gauge("active_copies", "Copies under way").value(ledger.copying as f64),
        Sample::gauge("brake_held", "1 while repair holds because too many servers went at once").value(flag(held)),
        Sample::gauge("repair_share_ratio", "Share of their rate that copies have, so that clients do not wait")
            .value(repairing.budget.share()),
    ]
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}
