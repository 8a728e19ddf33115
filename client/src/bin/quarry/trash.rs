//! `quarry trash`.

use std::pin::pin;

use futures::StreamExt;
use quarry_client::{FileKind, TrashEntry};
use serde_json::{Value, json};

use crate::{args::Trash, context::Context, error::Outcome, human, info, output::Out, paths::Remote};

/// Lists what can be taken back, or gives it up.
pub async fn run(context: &Context, args: Trash) -> Outcome {
    let path = Remote::parse(&args.remote)?.path;
    if args.empty { empty(context, &path).await } else { list(context, &args, &path).await }
}

async fn empty(context: &Context, path: &str) -> Outcome {
    let emptied = context.client().await?.empty_trash(path).await?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&json!({"path": path, "emptied": emptied})).await?;
    } else {
        out.line(format!("gave up {emptied} removed files and directories; their room comes back shortly")).await?;
    }
    out.flush().await
}

/// Written as it comes: there may be more in the trash than memory holds.
async fn list(context: &Context, args: &Trash, path: &str) -> Outcome {
    let mut entries = pin!(context.client().await?.list_trash(path));
    let mut out = Out::new();
    let json = context.global.json;
    let mut separator = "";
    let mut head = Some(format!("{{\"path\":{},\"entries\":[", Value::from(path)));
    loop {
        let entry = entries.next().await.transpose()?;
        // Behind the first answer, so that a wrong path prints nothing.
        if let Some(head) = head.take().filter(|_| json) {
            out.raw(head.as_bytes()).await?;
        }
        let Some(entry) = entry else { break };
        if json {
            out.raw(format!("{separator}{}", json_of(&entry)).as_bytes()).await?;
            separator = ",";
        } else {
            out.line(line(&entry, args.human_readable)).await?;
        }
    }
    if json {
        out.raw(b"]}\n").await?;
    }
    out.flush().await
}

fn json_of(entry: &TrashEntry) -> Value {
    let mut value = info::file(&entry.file);
    if let Some(object) = value.as_object_mut() {
        object.insert("removed_ms".into(), entry.removed_ms.into());
        object.insert("removed".into(), human::time(entry.removed_ms).into());
        object.insert("left_ms".into(), entry.left_ms.into());
    }
    value
}

fn line(entry: &TrashEntry, human_readable: bool) -> String {
    let file = &entry.file;
    let (kind, size) = match file.kind {
        FileKind::Directory => ('d', "-".into()),
        FileKind::File => ('-', human::size(file.length, human_readable)),
    };
    let (removed, left) = (human::time(entry.removed_ms), human::duration(entry.left_ms));
    format!("{kind} {size:>13} {removed} {left:>7} {:>8} {}", file.inode.0, file.path)
}
