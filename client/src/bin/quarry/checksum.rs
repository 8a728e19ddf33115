//! `quarry checksum`.

use quarry_client::FileKind;
use quarry_types::ErrorCode;
use serde_json::json;

use crate::{
    args::Remotes,
    context::Context,
    error::{CliError, Outcome},
    output::Out,
    paths::Remote,
    tally,
};

/// Prints the CRC-32 of whole files, as the masters recorded it.
pub async fn run(context: &Context, args: Remotes) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes)?;
    let client = context.client().await?;
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
            out.json(&json!({"path": remote.path, "length": file.length, "crc32": file.crc.to_string()})).await?;
        } else {
            out.line(format!("{}  {}", file.crc, remote.path)).await?;
        }
        out.flush().await
    })
    .await
}
