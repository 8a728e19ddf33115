//! `quarry du`.

use serde_json::json;

use crate::{args::Du, context::Context, error::Outcome, human, info, output::Out, paths::Remote, tally};

/// Sums up what lies below paths.
pub async fn run(context: &Context, args: Du) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes)?;
    let client = context.lookups(args.stale).await?;
    let mut out = Out::new();
    let mut rows = Vec::new();
    let done = tally::for_each(context, remotes, "paths", async |remote: Remote| {
        let usage = client.usage(&remote.path).await?;
        if context.global.json {
            let value = json!({
                "path": remote.path,
                "files": usage.files,
                "directories": usage.directories,
                "bytes": usage.bytes,
                "replica_bytes": usage.replica_bytes,
            });
            return out.json(&info::aged(value, &client)).await;
        }
        rows.push(vec![
            human::size(usage.bytes, args.human_readable),
            human::size(usage.replica_bytes, args.human_readable),
            usage.files.to_string(),
            usage.directories.to_string(),
            remote.path,
        ]);
        Ok(())
    })
    .await;
    if !rows.is_empty() {
        let numbers = ["BYTES", "WITH COPIES", "FILES", "DIRECTORIES"];
        for line in human::table(&["BYTES", "WITH COPIES", "FILES", "DIRECTORIES", "PATH"], &numbers, &rows) {
            out.line(line).await?;
        }
    }
    out.flush().await?;
    done
}
