//! `quarry cat`.

use quarry_client::Client;

use crate::{
    args::Looked,
    context::Context,
    error::Outcome,
    get::{Check, corrupt_replicas},
    output::Out,
    paths::Remote,
    tally,
};

/// Writes the files to standard output, one after the other.
pub async fn run(context: &Context, args: Looked) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.lookups(args.stale).await?;
    let mut out = Out::new();
    tally::for_each(context, remotes, "files", async |remote: Remote| {
        one(context, &client, &mut out, &remote.path).await
    })
    .await
}

async fn one(context: &Context, client: &Client, out: &mut Out, path: &str) -> Outcome {
    let mut reader = client.open(path).await?;
    let mut check = Check::default();
    while let Some(piece) = reader.next_bytes().await? {
        check.add(&piece);
        out.raw(&piece).await?;
    }
    out.flush().await?;
    corrupt_replicas(&reader).iter().for_each(|warning| context.notes.warning(warning));
    check.against(&reader)
}
