//! `quarry metadata …`.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use quarry_proto::v1::{BackupHeader, ShortChunk, StrayReplica, VerifyMetadataReply};
use quarry_types::{ChunkId, ErrorCode};
use serde_json::{Value, json};

use crate::{
    args::{Metadata, MetadataVerify},
    context::Context,
    error::{CliError, Outcome},
    human, info,
    local_fs::{self, Target},
    output::Out,
};

/// A backup that breaks off, since the leader changes, is begun anew so often.
const BACKUP_ATTEMPTS: u32 = 3;
/// What it says then.
const BROKEN_OFF: [ErrorCode; 3] = [ErrorCode::Unavailable, ErrorCode::DeadlineExceeded, ErrorCode::NotLeader];
/// Chunk ids in one line.
const IDS_IN_LINE: usize = 10;

pub async fn run(context: &Context, verb: Metadata) -> Outcome {
    match verb {
        Metadata::Backup { overwrite, file } => backup(context, &file, overwrite).await,
        Metadata::Verify(args) => verify(context, &args).await,
        Metadata::Release { force } => release(context, force).await,
    }
}

async fn backup(context: &Context, file: &Path, overwrite: bool) -> Outcome {
    if !overwrite && local_fs::look(file)?.is_some() {
        let message = format!("local {} is there already; name another file, or add --overwrite", file.display());
        return Err(CliError::new(ErrorCode::AlreadyExists, message));
    }
    let mut begun = 1;
    let (header, length) = loop {
        match fetch(context, file).await {
            Err(error) if begun < BACKUP_ATTEMPTS && BROKEN_OFF.iter().any(|code| error.is(*code)) => {
                tracing::warn!(%error, "the backup broke off and begins anew");
                begun += 1;
            }
            done => break done?,
        }
    };
    let mut out = Out::new();
    if context.global.json {
        let shown = json!({
            "file": file.display().to_string(),
            "bytes": length,
            "cluster": info::server_id(&header.cluster),
            "lineage": header.lineage_number,
            "index": header.index,
            "taken_ms": header.taken_ms,
        });
        out.json(&shown).await?;
    } else {
        let (size, cluster) = (human::size(length, true), info::server_id(&header.cluster));
        out.line(format!(
            "{}: {size}, the metadata of cluster {cluster} (lineage {}) up to log entry {}; keep it with the cluster key, \
             which is not in it",
            file.display(),
            header.lineage_number,
            header.index
        ))
        .await?;
    }
    out.flush().await
}

/// Takes one backup into `file`, which is there only when all of it has come. Its header and its bytes.
async fn fetch(context: &Context, file: &Path) -> Outcome<(BackupHeader, u64)> {
    let mut target = Target::create_part(&context.world, file)?;
    let mut backup = context.client().await?.backup_metadata().await?;
    let mut length = 0;
    while let Some(bytes) = backup.next().await? {
        length += bytes.len() as u64;
        target.write(bytes).await?;
    }
    target.commit().await?;
    Ok((backup.header().cloned().unwrap_or_default(), length))
}

async fn release(context: &Context, force: bool) -> Outcome {
    let was_held = context.client().await?.release_metadata(force).await?;
    let mut out = Out::new();
    match (context.global.json, was_held) {
        (true, _) => out.json(&json!({"was_held": was_held})).await?,
        (false, true) => out.line("released: deletions and aborts take place from now on").await?,
        (false, false) => out.line("nothing was held back").await?,
    }
    out.flush().await
}

/// What was found, in bounded lists with exact counts.
#[derive(Default)]
struct Found {
    last: VerifyMetadataReply,
    chunks: u64,
    replicas: u64,
    missing: Listed<ShortChunk>,
    under_replicated: Listed<ShortChunk>,
    orphans: BTreeMap<Bytes, Listed<u64>>,
    beyond: BTreeMap<Bytes, Listed<u64>>,
}

struct Listed<T> {
    count: u64,
    rows: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed { count: 0, rows: Vec::new() }
    }
}

impl<T> Listed<T> {
    fn add(&mut self, row: T, limit: usize) {
        self.count += 1;
        if self.rows.len() < limit {
            self.rows.push(row);
        }
    }
}

impl Found {
    fn add(&mut self, mut page: VerifyMetadataReply, limit: usize) {
        self.chunks += page.chunks;
        self.replicas += page.replicas;
        for row in std::mem::take(&mut page.short) {
            let list = if row.good == 0 { &mut self.missing } else { &mut self.under_replicated };
            list.add(row, limit);
        }
        for StrayReplica { server, chunk, beyond } in std::mem::take(&mut page.stray) {
            let lists = if beyond { &mut self.beyond } else { &mut self.orphans };
            lists.entry(server).or_default().add(chunk, limit);
        }
        self.last = page;
    }
}

async fn verify(context: &Context, args: &MetadataVerify) -> Outcome {
    let client = context.client().await?;
    let (mut found, mut token) = (Found::default(), Bytes::new());
    loop {
        let page = client.verify_metadata(token).await?;
        token = page.token.clone();
        found.add(page, args.limit);
        if token.is_empty() {
            break;
        }
    }
    let mut out = Out::new();
    let status = client.status().await?;
    let addresses: BTreeMap<Bytes, String> =
        status.chunkservers.into_iter().map(|server| (server.server, server.address)).collect();
    if context.global.json {
        out.json(&json_of(&found, &addresses)).await?;
    } else {
        for line in lines(&found, &addresses) {
            out.line(line).await?;
        }
    }
    out.flush().await
}

fn json_of(found: &Found, addresses: &BTreeMap<Bytes, String>) -> Value {
    let short = |list: &Listed<ShortChunk>| -> Value {
        let row = |row: &ShortChunk| json!({"chunk": row.chunk, "path": row.path, "inode": row.inode, "good": row.good, "wanted": row.wanted});
        json!({"count": list.count, "chunks": list.rows.iter().map(row).collect::<Vec<_>>()})
    };
    let server = |server: &Bytes| json!({"server": info::server_id(server), "address": addresses.get(server)});
    let strays = |lists: &BTreeMap<Bytes, Listed<u64>>| -> Value {
        let one = |(id, list): (&Bytes, &Listed<u64>)| {
            let mut value = server(id);
            if let Some(object) = value.as_object_mut() {
                object.insert("count".into(), list.count.into());
                object.insert("chunks".into(), list.rows.clone().into());
            }
            value
        };
        lists.iter().map(one).collect()
    };
    json!({
        "lineage": found.last.lineage_number,
        "held": found.last.held,
        "complete": found.last.unreported.is_empty(),
        "unreported": found.last.unreported.iter().map(server).collect::<Vec<_>>(),
        "checked_chunks": found.chunks,
        "checked_replicas": found.replicas,
        "next_chunk": found.last.next_chunk,
        "missing": short(&found.missing),
        "under_replicated": short(&found.under_replicated),
        "orphans": strays(&found.orphans),
        "beyond": strays(&found.beyond),
    })
}

fn lines(found: &Found, addresses: &BTreeMap<Bytes, String>) -> Vec<String> {
    let held = if found.last.held { ", deletions and aborts held back" } else { "" };
    let mut lines = vec![format!(
        "lineage {}{held}; looked at {} chunks of the namespace and {} replicas; the next chunk is {}",
        found.last.lineage_number,
        found.chunks,
        found.replicas,
        ChunkId(found.last.next_chunk)
    )];
    let name = |server: &Bytes| {
        let address = addresses.get(server).map_or("address unknown", String::as_str);
        format!("{} ({address})", info::server_id(server))
    };
    if !found.last.unreported.is_empty() {
        lines.push(format!(
            "the picture is incomplete: {} chunkservers have not reported to this master",
            found.last.unreported.len()
        ));
        lines.extend(found.last.unreported.iter().map(|server| format!("    {}", name(server))));
    }
    for (what, list) in
        [("without any good replica", &found.missing), ("with too few replicas", &found.under_replicated)]
    {
        lines.push(format!("chunks {what}: {}", list.count));
        lines.extend(list.rows.iter().map(short_line));
        lines.extend(not_listed(list));
    }
    for (what, lists) in [
        ("replicas of chunks that the namespace does not know", &found.orphans),
        ("replicas of chunks that were never given out in this history", &found.beyond),
    ] {
        lines.push(format!("{what}: {}", lists.values().map(|list| list.count).sum::<u64>()));
        for (server, list) in lists {
            lines.push(format!("    {}: {}", name(server), list.count));
            for some in list.rows.chunks(IDS_IN_LINE) {
                let ids: Vec<String> = some.iter().map(|chunk| ChunkId(*chunk).to_string()).collect();
                lines.push(format!("        {}", ids.join(" ")));
            }
            lines.extend(not_listed(list));
        }
    }
    lines
}

fn short_line(row: &ShortChunk) -> String {
    let path = if row.path.is_empty() { format!("(removed, inode {})", row.inode) } else { row.path.clone() };
    format!("    {} {} of {} {path}", ChunkId(row.chunk), row.good, row.wanted)
}

fn not_listed<T>(list: &Listed<T>) -> Option<String> {
    let more = list.count.saturating_sub(list.rows.len() as u64);
    (more > 0).then(|| format!("    and {more} more; --limit lists more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_lists_bounded() {
        let mut found = Found::default();
        let stray = |chunk, beyond| StrayReplica { server: vec![7; 16].into(), chunk, beyond };
        let short = |chunk, good| ShortChunk { chunk, good, wanted: 3, path: "/a".into(), inode: 2 };
        for _ in 0..2 {
            let page = VerifyMetadataReply {
                short: vec![short(1, 0), short(2, 1), short(3, 2)],
                stray: vec![stray(5, false), stray(6, false), stray(900, true)],
                chunks: 3,
                replicas: 4,
                ..Default::default()
            };
            found.add(page, 2);
        }
        let value = json_of(&found, &BTreeMap::new());
        assert_eq!((&value["missing"]["count"], &value["under_replicated"]["count"]), (&json!(2), &json!(4)));
        assert_eq!(value["under_replicated"]["chunks"].as_array().map(Vec::len), Some(2));
        assert_eq!((&value["orphans"][0]["count"], &value["beyond"][0]["count"]), (&json!(4), &json!(2)));
        assert_eq!(value["complete"], json!(true));
        assert!(lines(&found, &BTreeMap::new()).iter().any(|line| line.contains("and 2 more")));
    }
}
