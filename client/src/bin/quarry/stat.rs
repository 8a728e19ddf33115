//! `quarry stat`.

use quarry_client::{FileInfo, FileKind};

use crate::{args::Looked, context::Context, error::Outcome, human, info, output::Out, paths::Remote, tally};

/// Shows what the masters know of files and directories.
pub async fn run(context: &Context, args: Looked) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.lookups(args.stale).await?;
    let mut out = Out::new();
    tally::for_each(context, remotes, "paths", async |remote: Remote| {
        let file = client.stat(&remote.path).await?;
        if context.global.json {
            out.json(&info::aged(info::file(&file), &client)).await?;
        } else {
            let age = client.staleness().map(|age| ("answer", format!("at most {} ms old", info::ms(age))));
            for (name, value) in lines(&file).into_iter().chain(age) {
                out.line(format!("{name:>10}: {value}")).await?;
            }
        }
        out.flush().await
    })
    .await
}

fn lines(file: &FileInfo) -> Vec<(&'static str, String)> {
    let mut lines = vec![("path", file.path.clone()), ("kind", info::kind_name(file.kind).into())];
    if file.kind == FileKind::File {
        let open = if file.open { " so far; a writer has it open" } else { "" };
        lines.push(("length", format!("{} bytes ({}){open}", file.length, human::size(file.length, true))));
        lines.push(("CRC-32", file.crc.to_string()));
        lines.push(("replicas", format!("{} wanted of each of {} chunks", file.replicas, file.chunks)));
    }
    if file.kind == FileKind::Directory {
        let said = match file.replicas {
            0 => "new files want what the directory above says, or the cluster's default".into(),
            replicas => format!("{replicas} wanted of new files below it"),
        };
        lines.push(("replicas", said));
    }
    lines.push(("modified", format!("{} UTC", human::time(file.modified_ms))));
    lines.push(("inode", format!("{}, version {}", file.inode, file.version)));
    lines
}
