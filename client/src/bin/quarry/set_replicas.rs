//! `quarry set-replicas`.

use std::pin::pin;

use futures::{Stream, StreamExt, TryStreamExt};
use quarry_client::{Client, FileInfo, FileKind};
use serde_json::json;

use crate::{
    args::SetReplicas,
    context::Context,
    enough,
    error::Outcome,
    output::Out,
    paths::Remote,
    progress::Progress,
    tally::{self, Done, Tally},
};

/// Files of a tree that are changed at the same time.
const FILES_AT_ONCE: usize = 16;

/// Changes how many copies are kept.
pub async fn run(context: &Context, args: SetReplicas) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.client().await?;
    let done = tally::for_each(context, remotes, "paths", async |remote: Remote| {
        let set = client.set_replicas(&remote.path, args.replicas).await?;
        context.notes.verbose(format!("{} wants {} copies", set.path, set.replicas));
        let mut below = 0;
        if args.recursive && set.kind == FileKind::Directory {
            below = set_below(context, client, &set, args.replicas).await?;
        }
        if !context.global.json {
            return Ok(());
        }
        let mut out = Out::new();
        out.json(&json!({"path": set.path, "replicas": set.replicas, "changed_below": below})).await?;
        out.flush().await
    })
    .await;
    if done.is_ok() {
        enough::warn_replicas(context, client, args.replicas).await;
    }
    done
}

/// Changes every file below a directory; directories below it say nothing of their own any more. How many that were.
async fn set_below(context: &Context, client: &Client, top: &FileInfo, replicas: u32) -> Outcome<u64> {
    let mut tally = Tally::new(context, Progress::of_tree(context.bars.as_ref()));
    let work = |found: Outcome<FileInfo>| async move {
        let found = found?;
        let wanted = if found.kind == FileKind::Directory { 0 } else { replicas };
        client.set_replicas(&found.path, wanted).await?;
        Ok(Done { name: found.path, warning: None })
    };
    let differs = |entry: &FileInfo| match entry.kind {
        FileKind::Directory => entry.replicas != 0,
        FileKind::File => replicas == 0 || entry.replicas != replicas,
    };
    let changes = walk(client, top.path.clone()).try_filter(|entry| std::future::ready(differs(entry)));
    let mut done = pin!(changes.map(work).buffer_unordered(FILES_AT_ONCE));
    let mut count = 0;
    while let Some(result) = done.next().await {
        count += u64::from(result.is_ok());
        tally.settle(result)?;
    }
    tally.outcome().map(|()| count)
}

/// Everything below a directory. An error is about one directory; the walk goes on behind it.
fn walk(client: &Client, top: String) -> impl Stream<Item = Outcome<FileInfo>> + '_ {
    let begin = (vec![top], None);
    futures::stream::unfold(begin, move |(mut directories, mut entries)| async move {
        loop {
            let mut listed = match entries.take() {
                Some(listed) => listed,
                None => Box::pin(client.list(&directories.pop()?)),
            };
            match listed.next().await {
                Some(Ok(entry)) => {
                    if entry.kind == FileKind::Directory {
                        directories.push(entry.path.clone());
                    }
                    return Some((Ok(entry), (directories, Some(listed))));
                }
                Some(Err(error)) => return Some((Err(error.into()), (directories, None))),
                None => {}
            }
        }
    })
}
