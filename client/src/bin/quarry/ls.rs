//! `quarry ls`.

use std::{collections::VecDeque, pin::pin};

use futures::StreamExt;
use quarry_client::{Client, FileInfo, FileKind};

use crate::{
    args::Ls,
    context::Context,
    error::Outcome,
    human, info,
    output::Out,
    paths::{self, Remote},
    tally,
};

/// Lists files and directories.
pub async fn run(context: &Context, args: Ls) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes)?;
    let several = remotes.len() > 1;
    let client = context.lookups(args.stale).await?;
    let mut lister = Lister { client: &client, args: &args, json: context.global.json, out: Out::new() };
    let mut first = true;
    let done = tally::for_each(context, remotes, "paths", async |remote: Remote| {
        let heading = several.then_some(std::mem::replace(&mut first, false));
        lister.one(&remote.path, heading).await
    });
    let done = done.await;
    // What was listed before a failure counts.
    lister.out.flush().await?;
    done
}

struct Lister<'a> {
    client: &'a Client,
    args: &'a Ls,
    json: bool,
    out: Out,
}

impl Lister<'_> {
    /// Lists one path; with several of them each directory has a heading, and an empty line above it except for
    /// the first.
    async fn one(&mut self, path: &str, heading: Option<bool>) -> Outcome {
        let info = self.client.stat(path).await?;
        if self.json {
            return self.one_json(&info).await;
        }
        if info.kind == FileKind::File {
            return self.print(&info, path).await;
        }
        if let Some(first) = heading {
            self.out.line(format!("{}{path}:", if first { "" } else { "\n" })).await?;
        }
        let mut directories = VecDeque::from([(path.to_string(), String::new())]);
        while let Some((directory, shown)) = directories.pop_front() {
            let mut entries = pin!(self.client.list(&directory));
            while let Some(entry) = entries.next().await {
                let entry = entry?;
                let name = paths::name_of(&entry.path);
                let relative = format!("{shown}{name}");
                self.print(&entry, &relative).await?;
                if self.args.recursive && entry.kind == FileKind::Directory {
                    directories.push_back((paths::join(&directory, name), format!("{relative}/")));
                }
            }
        }
        Ok(())
    }

    async fn print(&mut self, entry: &FileInfo, name: &str) -> Outcome {
        if !self.args.long {
            return self.out.line(name).await;
        }
        let (kind, copies) = match entry.kind {
            FileKind::Directory if entry.replicas == 0 => ('d', "-".into()),
            FileKind::Directory => ('d', entry.replicas.to_string()),
            FileKind::File if entry.open => ('w', entry.replicas.to_string()),
            FileKind::File => ('-', entry.replicas.to_string()),
        };
        let size = match entry.kind {
            FileKind::Directory => "-".into(),
            FileKind::File => human::size(entry.length, self.args.human_readable),
        };
        self.out.line(format!("{kind} {copies:>2} {size:>13} {} {name}", human::time(entry.modified_ms))).await
    }

    /// `{path, entries: […]}`, written as it comes: a directory may have more entries than memory.
    async fn one_json(&mut self, info: &FileInfo) -> Outcome {
        let head = format!("{{\"path\":{},\"entries\":[", serde_json::Value::from(info.path.as_str()));
        self.out.raw(head.as_bytes()).await?;
        let mut separator = "";
        let mut directories = VecDeque::new();
        match info.kind {
            FileKind::File => self.out.raw(info::file(info).to_string().as_bytes()).await?,
            FileKind::Directory => directories.push_back(info.path.clone()),
        }
        while let Some(directory) = directories.pop_front() {
            let mut entries = pin!(self.client.list(&directory));
            while let Some(entry) = entries.next().await {
                let entry = entry?;
                self.out.raw(format!("{separator}{}", info::file(&entry)).as_bytes()).await?;
                separator = ",";
                if self.args.recursive && entry.kind == FileKind::Directory {
                    directories.push_back(paths::join(&directory, paths::name_of(&entry.path)));
                }
            }
        }
        let age = self.client.staleness().map(|age| format!(",\"staleness_ms\":{}", info::ms(age)));
        self.out.raw(format!("]{}}}\n", age.unwrap_or_default()).as_bytes()).await
    }
}
