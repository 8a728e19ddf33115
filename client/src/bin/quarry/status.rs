//! `quarry status`.

use quarry_proto::v1::{ChunkserverStatus, DiskInfo, StatusReply};

use crate::{context::Context, error::Outcome, human, info, masters, output::Out};

/// Shows masters, chunkservers and totals.
pub async fn run(context: &Context) -> Outcome {
    let status = context.client().await?.status().await?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&info::status(&status)).await?;
        return out.flush().await;
    }
    for line in lines(&status) {
        out.line(line).await?;
    }
    out.flush().await
}

fn lines(status: &StatusReply) -> Vec<String> {
    let leadership = status.leadership.clone().unwrap_or_default();
    let mut lines = vec![
        format!(
            "cluster {} (release {}, epoch {})",
            info::server_id(&status.cluster),
            status.version,
            leadership.epoch
        ),
        String::new(),
    ];
    lines.extend(masters::table(&status.masters));
    lines.push(String::new());
    let servers: Vec<Vec<String>> = status.chunkservers.iter().map(server).collect();
    let heads = ["CHUNKSERVER", "ADDRESS", "RACK", "STATE", "CAPACITY", "USED", "CHUNKS", "BAD", "DURABILITY"];
    lines.extend(human::table(&heads, &["CAPACITY", "USED", "CHUNKS", "BAD"], &servers));
    lines.push(String::new());
    let disks: Vec<Vec<String>> = status.chunkservers.iter().flat_map(disks).collect();
    if !disks.is_empty() {
        lines.extend(human::table(&["DISK OF", "PATH", "CAPACITY", "USED", "STATE"], &["CAPACITY", "USED"], &disks));
        lines.push(String::new());
    }
    let t = status.totals.unwrap_or_default();
    lines.push(format!("{} files in {} directories, {} chunks ({} open)", t.files, t.directories, t.chunks, t.open));
    lines.push(format!(
        "chunks with too few copies: {}, with none: {}; bad replicas: {}; chunks to be deleted: {}",
        t.under_replicated, t.missing, t.corrupt, t.doomed
    ));
    lines.extend(status.notices.iter().map(|notice| format!("notice: {notice}")));
    lines
}

fn server(server: &ChunkserverStatus) -> Vec<String> {
    vec![
        info::server_id(&server.server),
        server.address.clone(),
        server.rack.clone(),
        state(server),
        human::size(server.capacity_bytes, true),
        human::size(server.used_bytes, true),
        server.chunks.to_string(),
        server.quarantined.to_string(),
        info::durability(server).into(),
    ]
}

fn state(server: &ChunkserverStatus) -> String {
    match server.maintenance_left_ms {
        0 => server.state.clone(),
        left => format!("{} ({} left)", server.state, human::duration(left)),
    }
}

/// The disks of a server, where there is more to say than of the server.
fn disks(server: &ChunkserverStatus) -> Vec<Vec<String>> {
    let ails = |disk: &DiskInfo| disk.failed || disk.slow;
    if server.disks.len() < 2 && !server.disks.iter().any(ails) {
        return Vec::new();
    }
    let row = |disk: &DiskInfo| {
        let state = match (disk.failed, disk.slow) {
            (true, _) => format!("failed: {}", disk.failed_reason),
            (false, true) => format!("slow: {} µs for a read or write", disk.latency_us),
            (false, false) => "well".into(),
        };
        let errors = if disk.errors > 0 { format!("; {} errors", disk.errors) } else { String::new() };
        let size = |bytes| human::size(bytes, true);
        vec![
            server.address.clone(),
            disk.path.clone(),
            size(disk.capacity_bytes),
            size(disk.used_bytes),
            format!("{state}{errors}"),
        ]
    };
    server.disks.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_shown_where_there_are_several_or_one_ails() {
        let well = DiskInfo { path: "/d1".into(), ..Default::default() };
        let failed = DiskInfo { failed: true, failed_reason: "EIO".into(), errors: 2, ..well.clone() };
        let slow = DiskInfo { slow: true, latency_us: 9000, ..well.clone() };
        let of = |all: &[&DiskInfo]| {
            let server = ChunkserverStatus { disks: all.iter().copied().cloned().collect(), ..Default::default() };
            disks(&server).into_iter().map(|mut row| row.pop().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert!(of(&[&well]).is_empty());
        assert_eq!(of(&[&well, &well]), ["well", "well"]);
        assert_eq!(of(&[&failed]), ["failed: EIO; 2 errors"]);
        assert_eq!(of(&[&slow]), ["slow: 9000 µs for a read or write"]);
    }

    #[test]
    fn a_maintenance_shows_how_long_it_lasts() {
        let mut server = ChunkserverStatus { state: "maintenance".into(), ..Default::default() };
        server.maintenance_left_ms = 90_000;
        assert_eq!(state(&server), "maintenance (1m30s left)");
        let gone = ChunkserverStatus { state: "partitioned".into(), ..Default::default() };
        assert_eq!(state(&gone), "partitioned");
    }
}
