//! Which files a `put` or `get` copies from where to where, found on the way: directories are made and listed when
//! their turn comes, so that a tree of any size takes little memory.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::Stream;
use quarry_client::{Client, FileInfo, FileKind};
use quarry_types::ErrorCode;

use crate::{
    context::Context,
    error::{CliError, Outcome},
    local_fs::{self, LocalKind},
    paths,
};

/// A file to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub local: PathBuf,
    pub remote: String,
}

/// What `put` has still to look at.
#[derive(Debug)]
pub enum PutStep {
    File(Copy),
    /// A directory that the user named.
    Top(Copy),
    /// A directory below one.
    Below(Copy),
}

/// What `get` has still to look at.
#[derive(Debug)]
pub enum GetStep {
    File(Copy),
    Directory(Copy),
    /// The entries of a directory behind a page of them.
    Rest(Copy, Bytes),
}

/// The files that `steps` lead to. Errors are about single entries; the walk goes on behind them.
pub fn put<'a>(
    context: &'a Context,
    client: &'a Client,
    steps: Vec<PutStep>,
) -> impl Stream<Item = Outcome<Copy>> + 'a {
    futures::stream::unfold(VecDeque::from(steps), move |mut steps| async move {
        loop {
            let found = match steps.pop_front()? {
                PutStep::File(copy) => return Some((Ok(copy), steps)),
                PutStep::Top(copy) => enter_local(context, client, copy, true, &mut steps).await,
                PutStep::Below(copy) => enter_local(context, client, copy, false, &mut steps).await,
            };
            if let Err(error) = found {
                return Some((Err(error), steps));
            }
        }
    })
}

/// Makes a local directory's counterpart and puts its entries in front of the other steps.
async fn enter_local(
    context: &Context,
    client: &Client,
    directory: Copy,
    top: bool,
    steps: &mut VecDeque<PutStep>,
) -> Outcome {
    let local = directory.local.clone();
    let listed = context.world.blocking.run(move || local_fs::entries(&local)).await;
    let entries = listed.map_err(|lost| CliError::local(lost.to_string()))??;
    make_remote(client, &directory.remote, top).await?;
    let mut first_error = None;
    for (name, kind) in entries.into_iter().rev() {
        let local = directory.local.join(&name);
        let remote = match paths::checked_name(&local, &name) {
            Ok(name) => paths::join(&directory.remote, &name),
            Err(error) => {
                keep_first(context, &mut first_error, error);
                continue;
            }
        };
        let copy = Copy { local, remote };
        match kind {
            LocalKind::File => steps.push_front(PutStep::File(copy)),
            LocalKind::Directory => steps.push_front(PutStep::Below(copy)),
            LocalKind::Symlink => {
                context.notes.note(format!("local {} is a symbolic link and is skipped", copy.local.display()));
            }
            LocalKind::Special(_) => {
                keep_first(context, &mut first_error, local_fs::is_special(&copy.local, kind));
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// One step yields one error at most. Further ones get their line here.
fn keep_first(context: &Context, first: &mut Option<CliError>, error: CliError) {
    if let Some(earlier) = first.replace(error) {
        context.notes.error(&earlier);
    }
}

/// The directory that the user named needs its parent, as with `cp`; that it exists is fine.
async fn make_remote(client: &Client, path: &str, top: bool) -> Outcome {
    if path == "/" {
        return Ok(());
    }
    match client.mkdir(path, !top).await {
        Ok(_) => Ok(()),
        Err(error) if top && error.code() == ErrorCode::AlreadyExists => match client.stat(path).await?.kind {
            FileKind::Directory => Ok(()),
            FileKind::File => Err(CliError::new(
                ErrorCode::NotADirectory,
                format!("{path} is a file, and a directory would go there; give another path"),
            )),
        },
        Err(error) if error.code() == ErrorCode::NotFound => {
            Err(CliError::from(error).hint("make the directory above it with `quarry mkdir -p`"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The files that `steps` lead to. Errors are about single entries; the walk goes on behind them.
pub fn get(client: &Client, steps: Vec<GetStep>) -> impl Stream<Item = Outcome<Copy>> + '_ {
    futures::stream::unfold(VecDeque::from(steps), move |mut steps| async move {
        loop {
            let found = match steps.pop_front()? {
                GetStep::File(copy) => return Some((Ok(copy), steps)),
                GetStep::Directory(copy) => match local_fs::make_directory(&copy.local) {
                    Ok(()) => enter_remote(client, copy, Bytes::new(), &mut steps).await,
                    Err(error) => Err(error),
                },
                GetStep::Rest(copy, token) => enter_remote(client, copy, token, &mut steps).await,
            };
            if let Err(error) = found {
                return Some((Err(error), steps));
            }
        }
    })
}

/// Puts one page of a directory's entries in front of the other steps.
async fn enter_remote(client: &Client, directory: Copy, token: Bytes, steps: &mut VecDeque<GetStep>) -> Outcome {
    let page = client.list_page(&directory.remote, token, 0).await?;
    let children = page.entries.iter().map(|entry| get_step(&directory.local, &directory.remote, entry));
    let (good, bad): (Vec<_>, Vec<_>) = children.partition(Result::is_ok);
    if !page.token.is_empty() {
        steps.push_front(GetStep::Rest(directory, page.token));
    }
    good.into_iter().rev().flatten().for_each(|step| steps.push_front(step));
    bad.into_iter().next().map_or(Ok(()), |error| error.map(|_| ()))
}

fn get_step(local: &Path, remote: &str, entry: &FileInfo) -> Outcome<GetStep> {
    let name = paths::name_of(&entry.path);
    let copy = Copy { local: paths::local_child(local, name)?, remote: paths::join(remote, name) };
    Ok(match entry.kind {
        FileKind::File => GetStep::File(copy),
        FileKind::Directory => GetStep::Directory(copy),
    })
}
