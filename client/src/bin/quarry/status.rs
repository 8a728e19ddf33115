//! `quarry status`.

use quarry_proto::v1::{ChunkserverStatus, StatusReply};

use crate::{context::Context, error::Outcome, human, info, output::Out};

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
    let masters: Vec<Vec<String>> = status
        .masters
        .iter()
        .map(|m| {
            let reachable = if m.reachable { "yes" } else { "no" };
            let numbers = [m.term, m.last_log, m.applied].map(|number| number.to_string());
            let mut row = vec![format!("m{}", m.id), m.address.clone(), m.role.clone()];
            row.extend(numbers);
            row.push(reachable.into());
            row
        })
        .collect();
    let heads = ["MASTER", "ADDRESS", "ROLE", "TERM", "LAST LOG", "APPLIED", "REACHABLE"];
    lines.extend(human::table(&heads, &["TERM", "LAST LOG", "APPLIED"], &masters));
    lines.push(String::new());
    let servers: Vec<Vec<String>> = status.chunkservers.iter().map(server).collect();
    let heads = ["CHUNKSERVER", "ADDRESS", "RACK", "STATE", "CAPACITY", "USED", "CHUNKS", "BAD", "DURABILITY"];
    lines.extend(human::table(&heads, &["CAPACITY", "USED", "CHUNKS", "BAD"], &servers));
    lines.push(String::new());
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
        server.state.clone(),
        human::size(server.capacity_bytes, true),
        human::size(server.used_bytes, true),
        server.chunks.to_string(),
        server.quarantined.to_string(),
        info::durability(server).into(),
    ]
}
