//! `quarry df`.

use quarry_proto::v1::ChunkserverStatus;
use serde_json::json;

use crate::{args::Df, context::Context, error::Outcome, human, info, output::Out};

/// Shows the room on the chunkservers.
pub async fn run(context: &Context, args: Df) -> Outcome {
    let status = context.client().await?.status().await?;
    let servers = &status.chunkservers;
    let sum = |of: fn(&ChunkserverStatus) -> u64| {
        servers.iter().filter(|server| server.state != "dead").map(of).fold(0, u64::saturating_add)
    };
    let (capacity, used, available) = (sum(|s| s.capacity_bytes), sum(|s| s.used_bytes), sum(info::available));
    let mut out = Out::new();
    if context.global.json {
        let value = json!({
            "capacity_bytes": capacity,
            "used_bytes": used,
            "available_bytes": available,
            "chunkservers": servers.iter().map(info::chunkserver).collect::<Vec<_>>(),
        });
        out.json(&value).await?;
        return out.flush().await;
    }
    let row = |name: &str, state: &str, [capacity, used, available]: [u64; 3]| {
        let size = |bytes| human::size(bytes, args.human_readable);
        let share = human::share(used, capacity);
        vec![name.to_string(), state.to_string(), size(capacity), size(used), size(available), share]
    };
    let mut rows: Vec<Vec<String>> = servers
        .iter()
        .map(|s| row(&s.address, &s.state, [s.capacity_bytes, s.used_bytes, info::available(s)]))
        .collect();
    rows.push(row("all but dead ones", "", [capacity, used, available]));
    let heads = ["CHUNKSERVER", "STATE", "CAPACITY", "USED", "AVAILABLE", "USE"];
    for line in human::table(&heads, &["CAPACITY", "USED", "AVAILABLE", "USE"], &rows) {
        out.line(line).await?;
    }
    out.flush().await
}
