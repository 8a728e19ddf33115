//! What the HTTP port shows of a chunkserver.

use std::sync::{Arc, Weak, atomic::Ordering};

use quarry_http::{Pages, Sample, metrics::registry::Registry, register_looked_up};

use crate::server::Context;

/// The pages. They do not keep the server alive.
pub(crate) fn pages(context: &Arc<Context>) -> Pages {
    let mut registry = Registry::with_prefix("quarry_chunkserver");
    let looked_at = Arc::downgrade(context);
    register_looked_up(&mut registry, move || looked_at.upgrade().map(|context| samples(&context)).unwrap_or_default());
    let asked = Arc::downgrade(context);
    Pages::new(registry, move || ready(&asked))
}

fn ready(context: &Weak<Context>) -> Result<(), String> {
    let context = context.upgrade().ok_or("the server has stopped")?;
    if context.stopping.is_cancelled() {
        return Err("the server is stopping".into());
    }
    context.store.has_disk().map_err(|error| error.to_string())?;
    if !context.registered.load(Ordering::Relaxed) {
        return Err("no master that leads has taken this server's registration; see its log".into());
    }
    Ok(())
}

fn samples(context: &Context) -> Vec<Sample> {
    let mut all = disks(context);
    all.extend(replicas(context));
    all.extend(traffic(context));
    all
}

fn disks(context: &Context) -> Vec<Sample> {
    let disks = context.store.disks_seen();
    let each = |sample: Sample, value: &dyn Fn(&crate::store::DiskStatus) -> f64| {
        disks
            .iter()
            .fold(sample, |sample, disk| sample.labelled([("dir", disk.path.display().to_string())], value(disk)))
    };
    vec![
        each(Sample::gauge("disk_capacity_bytes", "Room that Quarry may use"), &|d| d.capacity_bytes as f64),
        each(Sample::gauge("disk_used_bytes", "Room that chunk files take"), &|d| d.used_bytes as f64),
        each(Sample::gauge("disk_available_bytes", "Room left for chunks, beside the reserve"), &|d| {
            d.available_bytes as f64
        }),
        each(Sample::gauge("disk_failed", "1 when the directory is out of service"), &|d| flag(d.failed.is_some())),
        each(Sample::gauge("disk_slow", "1 when it is slow against its past and the other disks"), &|d| flag(d.slow)),
        each(Sample::counter("disk_errors", "Errors of the disk"), &|d| d.errors as f64),
        each(Sample::gauge("disk_latency_seconds", "Mean time of a read or write of the last minute"), &|d| {
            d.latency_us as f64 / 1e6
        }),
        each(Sample::gauge("disk_replicas", "Replicas in the directory"), &|d| d.chunks as f64),
    ]
}

fn replicas(context: &Context) -> Vec<Sample> {
    let counts = context.store.counts();
    let settled = counts.replicas.saturating_sub(counts.open + counts.quarantined);
    let by_state = [("open", counts.open), ("settled", settled), ("quarantined", counts.quarantined)];
    let replicas =
        by_state.into_iter().fold(Sample::gauge("replicas", "Replicas by state"), |sample, (state, count)| {
            sample.labelled([("state", state.to_owned())], count as f64)
        });
    let scrub = context.store.scrub_status();
    let age_ms = context.world.clock.wall_ms().saturating_sub(scrub.oldest_verified_ms);
    let age = if scrub.oldest_verified_ms == 0 { Vec::new() } else { vec![age_ms as f64 / 1e3] };
    let oldest =
        Sample::gauge("oldest_verified_age_seconds", "Since the replica verified longest ago was; absent: never");
    vec![
        replicas,
        Sample::gauge("tombstones", "Chunks refused though there is no replica").value(counts.tombstones as f64),
        Sample::counter("scrubbed_bytes", "Bytes read by scrubbing").value(scrub.scrubbed_bytes as f64),
        age.into_iter().fold(oldest, Sample::value),
    ]
}

fn traffic(context: &Context) -> Vec<Sample> {
    let traffic = &context.traffic;
    let now = context.world.clock.now();
    vec![
        Sample::counter("client_read_bytes", "Bytes read for clients").value(traffic.reads.bytes() as f64),
        Sample::counter(
            "client_local_read_bytes",
            "Bytes that clients on this machine say they read without this server",
        )
        .value(traffic.local_reads.load(Ordering::Relaxed) as f64),
        Sample::counter("files_given_out", "Files of replicas given out to clients on this machine")
            .value(traffic.given_out.load(Ordering::Relaxed) as f64),
        Sample::counter("client_read_seconds", "Time spent reading them").value(traffic.reads.seconds()),
        Sample::counter("client_written_bytes", "Bytes written for clients").value(traffic.writes.bytes() as f64),
        Sample::counter("client_written_seconds", "Time spent writing them").value(traffic.writes.seconds()),
        Sample::gauge("client_latency_seconds", "Mean time of a piece served lately")
            .value(traffic.latency_us(now) as f64 / 1e6),
        Sample::counter("copied_in_bytes", "Bytes of copies to this server")
            .value(traffic.copied_in.load(Ordering::Relaxed) as f64),
        Sample::counter("copied_out_bytes", "Bytes of copies from this server")
            .value(traffic.copied_out.load(Ordering::Relaxed) as f64),
        Sample::gauge("active_writes", "Writes under way").value(context.streams.count() as f64),
        Sample::gauge("active_reads", "Reads under way").value(f64::from(context.active_reads())),
        Sample::gauge("cpu_ratio", "Use of the machine's processors")
            .value(f64::from(traffic.cpu_percent.load(Ordering::Relaxed)) / 100.0),
        Sample::counter("beats", "Beats sent to masters").value(traffic.beats.load(Ordering::Relaxed) as f64),
        Sample::gauge("registered", "1 while a leader has taken the registration")
            .value(flag(context.registered.load(Ordering::Relaxed))),
    ]
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}
