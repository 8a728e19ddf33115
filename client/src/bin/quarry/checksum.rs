//! `quarry checksum`.

use quarry_client::FileKind;
use quarry_types::ErrorCode;
use serde_json::json;

use crate::{
    args::Looked,
    context::Context,
    error::{CliError, Outcome},
    info,
    output::Out,
    paths::Remote,
    tally,
};

/// Prints the CRC-32 of whole files, as the masters recorded it.
pub async fn run(context: &Context, args: Looked) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.lookups(args.stale).await?;
    let mut out = Out::new();
    tally::for_each(context, remotes, "files", async |remote: Remote| {
        let file = client.stat(&remote.path).await?;
        if file.kind == FileKind::Directory {
            return Err(CliError::new(
                ErrorCode::IsADirectory,
                format!("{} is a directory; only files have a checksum", remote.path),
            ));
        }
        if file.open {
            context.notes.note(format!("{} is being written; this covers {} bytes", file.path, file.length));
        }
        if context.global.json {
            let sum = json!({"path": remote.path, "length": file.length, "crc32": file.crc.to_string()});
            out.json(&info::aged(sum, &client)).await?;
        } else {
            out.line(format!("{}  {}", file.crc, remote.path)).await?;
        }
        out.flush().await
    })
    .await
}
