//! `quarry admin …`.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use quarry_client::Client;
use quarry_proto::v1::{ChunkserverStatus, ExportedChunk, StatusReply};
use quarry_types::ErrorCode;
use serde_json::{Value, json};

use crate::{
    args::Admin,
    context::Context,
    error::{CliError, Outcome},
    info,
    local_fs::{self, Target},
    output::Out,
};

pub async fn run(context: &Context, verb: Admin) -> Outcome {
    match verb {
        Admin::ExportState { overwrite, file } => export(context, &file, overwrite).await,
    }
}

/// The servers' places in the file, by their ids.
type Places = BTreeMap<Bytes, u16>;

/// Writes the state in the form that `quarry_sim::state` describes, version 1.
async fn export(context: &Context, file: &Path, overwrite: bool) -> Outcome {
    if !overwrite && local_fs::look(file)?.is_some() {
        let message = format!("local {} is there already; name another file, or add --overwrite", file.display());
        return Err(CliError::new(ErrorCode::AlreadyExists, message));
    }
    let mut target = Target::create_part(&context.world, file)?;
    let client = context.client().await?;
    let status = client.status().await?;
    let servers: Vec<&ChunkserverStatus> = status.chunkservers.iter().filter(|s| s.state != "decommissioned").collect();
    if servers.len() > usize::from(u16::MAX) {
        return Err(CliError::local(format!("{} servers are more than the format has places for", servers.len())));
    }
    let places: Places = servers.iter().map(|server| server.server.clone()).zip(0..).collect();
    let head = head(client, &status, &servers).await?;
    target.write(format!("{head},\n \"chunks\": [\n").into()).await?;
    let (mut count, mut after) = (0u64, 0);
    loop {
        let page = client.export_chunks(after).await?;
        let mut text = String::new();
        for one in &page.chunks {
            text.push_str(if count == 0 { "  " } else { ",\n  " });
            text.push_str(&chunk(one, &places).to_string());
            count += 1;
        }
        target.write(text.into()).await?;
        after = page.next_after;
        if after == 0 {
            break;
        }
    }
    target.write("\n]}\n".into()).await?;
    target.commit().await?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&json!({"file": file.display().to_string(), "servers": servers.len(), "chunks": count})).await?;
    } else {
        let (file, servers) = (file.display(), servers.len());
        out.line(format!("{file}: {servers} servers, {count} chunks; ask with `quarry-sim what-if --cluster {file}`"))
            .await?;
    }
    out.flush().await
}

/// Everything but the chunks, without the last brace.
async fn head(client: &Client, status: &StatusReply, servers: &[&ChunkserverStatus]) -> Outcome<String> {
    let settings = client.settings().await?.into_iter().filter(|setting| setting.value != setting.default);
    let settings: BTreeMap<String, String> = settings.map(|setting| (setting.name, setting.value)).collect();
    let head = json!({
        "format": "quarry-state",
        "version": 1,
        "cluster": info::server_id(&status.cluster),
        "settings": settings,
        "servers": servers.iter().map(|s| server(s)).collect::<Vec<_>>(),
    });
    let text = head.to_string();
    Ok(text.strip_suffix('}').unwrap_or(&text).to_owned())
}

fn server(server: &ChunkserverStatus) -> Value {
    let disks = server.disks.iter().map(|disk| {
        json!({
            "path": disk.path,
            "capacity_bytes": disk.capacity_bytes,
            "used_bytes": disk.used_bytes,
            "failed": disk.failed,
            "slow": disk.slow,
        })
    });
    // `quarry status` has one word for what is wanted of a server and how it is.
    let (wish, health) = match server.state.as_str() {
        wish @ ("draining" | "maintenance") => (wish, if server.up { "alive" } else { "dead" }),
        health => ("active", health),
    };
    json!({
        "id": info::server_id(&server.server),
        "rack": server.rack,
        "address": server.address,
        "wish": wish,
        "health": health,
        "disks": disks.collect::<Vec<_>>(),
    })
}

fn chunk(chunk: &ExportedChunk, places: &Places) -> Value {
    // A server that is decommissioned has no place: what it holds counts no more.
    let placed: Vec<(u32, u16)> =
        (0..).zip(&chunk.holders).filter_map(|(at, holder)| Some((at, *places.get(holder)?))).collect();
    let on: Vec<u16> = placed.iter().map(|(_, place)| *place).collect();
    let bad: Vec<u16> = placed.iter().filter(|(at, _)| chunk.bad.contains(at)).map(|(_, place)| *place).collect();
    let mut value = json!({"id": chunk.chunk, "bytes": chunk.length, "wanted": chunk.wanted, "on": on});
    if let (false, Some(object)) = (bad.is_empty(), value.as_object_mut()) {
        object.insert("bad".into(), json!(bad));
    }
    value
}
