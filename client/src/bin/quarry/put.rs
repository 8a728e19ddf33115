//! `quarry put`.

use std::{convert::Infallible, ffi::OsString, path::Path, time::Duration};

use futures::StreamExt;
use quarry_client::{Client, CreateMode, CreateOptions, FileKind, FileWriter, Finished};
use quarry_types::ErrorCode;
use serde_json::json;

use crate::{
    args::Put,
    context::Context,
    error::{CliError, Outcome},
    local_fs::{self, LocalKind, Source},
    output::Out,
    paths::{self, Remote},
    progress::Progress,
    tally::{Done, Tally},
    walk::{self, Copy, PutStep},
};

/// Files of a tree that are copied at the same time. Each has a window of packets in memory.
pub const FILES_AT_ONCE: usize = 8;

/// A put that takes longer than this may be waiting for chunkservers.
const SOON: Duration = Duration::from_secs(2);
/// So begins the notice of a cluster with fewer chunkservers than a write needs.
const REFUSED: &str = "writes are refused";

/// Copies what the user named.
pub async fn run(context: &Context, args: Put) -> Outcome {
    tokio::select! {
        biased;
        done = put(context, args) => done,
        never = tell_refusal(context) => match never {},
    }
}

/// Where it takes a while and the cluster refuses writes, says so: the writes are tried again until their deadline.
async fn tell_refusal(context: &Context) -> Infallible {
    context.world.clock.sleep(SOON).await;
    if let Ok(client) = context.client().await
        && let Ok(status) = client.status().await
    {
        for why in status.notices.iter().filter(|notice| notice.starts_with(REFUSED)) {
            context.notes.warning(format!("{why}; it is tried again until `--timeout` is over"));
        }
    }
    std::future::pending().await
}

async fn put(context: &Context, args: Put) -> Outcome {
    let Some((remote, locals)) = args.paths.split_last() else {
        return Err(CliError::usage("name local files and a path in the cluster"));
    };
    let remote = Remote::parse(remote)?;
    let client = context.client().await?;
    let into = is_directory(client, &remote, locals.len()).await?;
    if let [only] = locals
        && only == "-"
    {
        return put_stdin(context, client, &args, &remote, into).await;
    }
    let steps = locals.iter().map(|local| step(&args, local, &remote, into)).collect::<Outcome<Vec<_>>>()?;
    if let [PutStep::File(copy)] = steps.as_slice() {
        let source = Source::open(&context.world, &copy.local)?;
        let progress = Progress::of_file(context.bars.as_ref(), &copy.remote, source.length());
        let done = put_one(context, client, &args, source, &copy.remote, &progress).await?;
        progress.finish();
        done.warning.iter().for_each(|warning| context.notes.warning(warning));
        return Ok(());
    }
    put_many(context, client, &args, steps).await
}

async fn put_stdin(context: &Context, client: &Client, args: &Put, remote: &Remote, into: bool) -> Outcome {
    if into {
        return Err(CliError::usage(format!(
            "{} is a directory; standard input needs the path of a file",
            remote.path
        )));
    }
    let source = Source::stdin(&context.world)?;
    let progress = Progress::of_file(context.bars.as_ref(), &remote.path, None);
    let done = put_one(context, client, args, source, &remote.path, &progress).await?;
    progress.finish();
    done.warning.iter().for_each(|warning| context.notes.warning(warning));
    Ok(())
}

async fn put_many(context: &Context, client: &Client, args: &Put, steps: Vec<PutStep>) -> Outcome {
    let progress = Progress::of_tree(context.bars.as_ref());
    let mut tally = Tally::new(context, progress.clone());
    let work = |found: Outcome<Copy>| {
        let progress = progress.clone();
        async move {
            let copy = found?;
            let source = Source::open(&context.world, &copy.local)?;
            put_one(context, client, args, source, &copy.remote, &progress).await
        }
    };
    let mut done = std::pin::pin!(walk::put(context, client, steps).map(work).buffer_unordered(FILES_AT_ONCE));
    while let Some(result) = done.next().await {
        tally.settle(result)?;
    }
    tally.outcome()
}

/// Whether the target is a directory to put things into; refuses targets that cannot be right.
async fn is_directory(client: &Client, remote: &Remote, locals: usize) -> Outcome<bool> {
    let needed = locals > 1 || remote.directory_meant;
    match client.stat(&remote.path).await {
        Ok(info) if info.kind == FileKind::Directory => Ok(true),
        Ok(_) if needed => Err(CliError::new(
            ErrorCode::NotADirectory,
            format!("{} is a file, not a directory to put into", remote.path),
        )),
        Ok(_) => Ok(false),
        Err(error) if error.code() == ErrorCode::NotFound && needed => Err(CliError::new(
            ErrorCode::NotFound,
            format!("no directory {0} in the cluster; make it with `quarry mkdir -p {0}`", remote.path),
        )),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What to do about one thing that the user named. Links named by the user are followed.
fn step(args: &Put, local: &OsString, remote: &Remote, into: bool) -> Outcome<PutStep> {
    let local = Path::new(local);
    if local == "-" {
        return Err(CliError::usage("standard input cannot be one of several files; put it by itself"));
    }
    let kind = local_fs::look(local)?
        .ok_or_else(|| CliError::new(ErrorCode::NotFound, format!("no local file or directory {}", local.display())))?;
    let target = match paths::remote_name(local)? {
        Some(name) if into => paths::join(&remote.path, &name),
        _ => remote.path.clone(),
    };
    let copy = Copy { local: local.to_path_buf(), remote: target };
    match kind {
        LocalKind::File => Ok(PutStep::File(copy)),
        LocalKind::Directory if args.recursive => Ok(PutStep::Top(copy)),
        LocalKind::Directory => Err(local_fs::is_directory(local)),
        LocalKind::Symlink | LocalKind::Special(_) => Err(local_fs::is_special(local, kind)),
    }
}

/// Copies one file.
async fn put_one(
    context: &Context,
    client: &Client,
    args: &Put,
    mut source: Source,
    remote: &str,
    progress: &Progress,
) -> Outcome<Done> {
    let mode = if args.overwrite { CreateMode::Replace } else { CreateMode::FailIfPresent };
    let options = CreateOptions { mode, replicas: args.replicas.unwrap_or(0), parents: false };
    let written = async {
        let mut writer = client.create(remote, &options).await.map_err(|error| explained(error.into(), remote))?;
        if let Err(error) = copy(&mut source, &mut writer, progress).await {
            // Nothing shows of a file that is not finished; this frees its chunks earlier.
            let _expires_else = writer.abort().await;
            return Err(error);
        }
        writer.finish().await.map_err(|error| explained(error.into(), remote))
    };
    let name = remote.to_string();
    match written.await {
        Ok(finished) => {
            tell(context, &finished).await?;
            Ok(Done { name, warning: too_few(&finished) })
        }
        Err(error) if args.no_clobber && error.is(ErrorCode::AlreadyExists) => Ok(Done { name, warning: None }),
        Err(error) => Err(error),
    }
}

/// Writes everything that `source` has.
pub async fn copy(source: &mut Source, writer: &mut FileWriter, progress: &Progress) -> Outcome {
    loop {
        let piece = source.next().await?;
        if piece.is_empty() {
            return Ok(());
        }
        let bytes = piece.len() as u64;
        writer.write_bytes(piece).await?;
        progress.add(bytes);
    }
}

fn explained(error: CliError, remote: &str) -> CliError {
    if error.is(ErrorCode::AlreadyExists) {
        return error.hint("replace it with --overwrite, or skip files that exist with --no-clobber");
    }
    if error.is(ErrorCode::NotFound) {
        let parent = remote.rsplit_once('/').map_or("/", |(parent, _)| parent);
        return error.hint(format!("make its directory with `quarry mkdir -p {parent}`"));
    }
    error
}

/// The warning about a file that has fewer copies than wanted. An empty one has nothing to copy.
pub fn too_few(finished: &Finished) -> Option<String> {
    let few = finished.file.length > 0 && finished.stats.chunks > 0 && finished.fewest_replicas < finished.wanted;
    few.then(|| {
        format!(
            "{} has {} of the {} copies wanted; the others are made in the background, `quarry repairs` shows how far that is",
            finished.file.path, finished.fewest_replicas, finished.wanted
        )
    })
}

/// With `--json` a line for each file, with `--verbose` a sentence.
pub async fn tell(context: &Context, finished: &Finished) -> Outcome {
    let (file, stats) = (&finished.file, &finished.stats);
    if context.global.json {
        let mut out = Out::new();
        let value = json!({
            "path": file.path,
            "length": file.length,
            "crc32": file.crc.to_string(),
            "fewest_replicas": finished.fewest_replicas,
            "wanted": finished.wanted,
            "bytes_sent": stats.bytes_sent,
            "bytes_resent": stats.resent,
            "chunks_written": stats.chunks,
            "chunks_cut_short": stats.seals_on_failure,
        });
        out.json(&value).await?;
        return out.flush().await;
    }
    context.notes.verbose(format!(
        "{}: {} bytes, CRC-32 {}, at least {} of {} copies; sent {} bytes, {} of them again; {} chunks, {} cut short by a failure",
        file.path,
        file.length,
        file.crc,
        finished.fewest_replicas,
        finished.wanted,
        stats.bytes_sent,
        stats.resent,
        stats.chunks,
        stats.seals_on_failure
    ));
    Ok(())
}
