//! `quarry chunks`.

use quarry_client::{ChunkInfo, FileKind};
use quarry_types::ErrorCode;

use crate::{
    args::Chunks,
    context::Context,
    error::{CliError, Outcome},
    human, info,
    output::Out,
    paths::Remote,
};

/// Shows the chunks of a file and where their replicas are.
pub async fn run(context: &Context, args: Chunks) -> Outcome {
    let remote = Remote::parse(&args.remote)?;
    let client = context.lookups(args.stale).await?;
    let file = client.stat(&remote.path).await?;
    if file.kind == FileKind::Directory {
        return Err(CliError::new(
            ErrorCode::IsADirectory,
            format!("{} is a directory; only files have chunks", remote.path),
        ));
    }
    let chunks = client.chunks(&file).await?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&info::aged(info::chunks(&file, &chunks), &client)).await?;
        return out.flush().await;
    }
    out.line(format!("{}: {} bytes, CRC-32 {}, {} chunks", file.path, file.length, file.crc, chunks.len())).await?;
    if !chunks.is_empty() {
        let rows: Vec<Vec<String>> = chunks.iter().enumerate().map(|(index, chunk)| row(index, chunk)).collect();
        let heads = ["INDEX", "ID", "OFFSET", "LENGTH", "STATE", "CRC-32", "REPLICAS"];
        for line in human::table(&heads, &["INDEX", "OFFSET", "LENGTH"], &rows) {
            out.line(line).await?;
        }
    }
    out.flush().await
}

fn row(index: usize, chunk: &ChunkInfo) -> Vec<String> {
    let replicas = chunk.replicas.iter().map(|replica| {
        let away = if replica.reachable { "" } else { ", unreachable" };
        format!("{} ({}, {}{away})", replica.address, replica.rack, info::replica_state(replica.state))
    });
    vec![
        index.to_string(),
        chunk.id.to_string(),
        chunk.offset.to_string(),
        chunk.length.to_string(),
        chunk.state.name().into(),
        chunk.crc.to_string(),
        replicas.collect::<Vec<_>>().join(" "),
    ]
}
