//! `quarry get`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use quarry_client::{Client, Crc32, FileKind, FileReader};
use quarry_types::ErrorCode;

use crate::{
    args::{Get, Looked, Remotes},
    cat,
    context::Context,
    error::{CliError, Outcome},
    local_fs::{self, LocalKind, Target},
    paths::{self, Remote},
    progress::Progress,
    put::FILES_AT_ONCE,
    tally::{Done, Tally},
    walk::{self, Copy, GetStep},
};

/// Copies what the user named.
pub async fn run(context: &Context, args: Get) -> Outcome {
    let Some((local, remotes)) = args.paths.split_last() else {
        return Err(CliError::usage("name paths in the cluster and a local one"));
    };
    if local == "-" {
        return cat::run(context, Looked { stale: args.stale, remotes: Remotes { remotes: remotes.to_vec() } }).await;
    }
    let remotes = Remote::parse_all(remotes)?;
    let local = PathBuf::from(local);
    let into = is_directory(&local, remotes.len())?;
    let client = &context.lookups(args.stale).await?;
    let (mut steps, mut missing) = (Vec::new(), Vec::new());
    for remote in &remotes {
        match step(client, &args, remote, &local, into).await {
            Ok(step) => steps.push(step),
            Err(error) if remotes.len() == 1 => return Err(error),
            Err(error) => missing.push(error),
        }
    }
    if let ([GetStep::File(copy)], []) = (steps.as_slice(), missing.as_slice()) {
        let reader = client.open(&copy.remote).await?;
        let progress = Progress::of_file(context.bars.as_ref(), &copy.remote, Some(reader.length()));
        let done = get_one(context, reader, copy, &progress).await?;
        progress.finish();
        done.warning.iter().for_each(|warning| context.notes.warning(warning));
        return Ok(());
    }
    get_many(context, client, steps, missing).await
}

async fn get_many(context: &Context, client: &Client, steps: Vec<GetStep>, missing: Vec<CliError>) -> Outcome {
    let progress = Progress::of_tree(context.bars.as_ref());
    let mut tally = Tally::new(context, progress.clone());
    for error in missing {
        tally.settle(Err(error))?;
    }
    let work = |found: Outcome<Copy>| {
        let progress = progress.clone();
        async move {
            let copy = found?;
            let reader = client.open(&copy.remote).await?;
            get_one(context, reader, &copy, &progress).await
        }
    };
    let mut done = std::pin::pin!(walk::get(client, steps).map(work).buffer_unordered(FILES_AT_ONCE));
    while let Some(result) = done.next().await {
        tally.settle(result)?;
    }
    tally.outcome()
}

/// Whether the target is a directory to put things into; refuses targets that cannot be right.
fn is_directory(local: &Path, remotes: usize) -> Outcome<bool> {
    let meant = local.as_os_str().as_encoded_bytes().ends_with(b"/");
    match local_fs::look(local)? {
        Some(LocalKind::Directory) => Ok(true),
        None if remotes > 1 || meant => Err(CliError::new(
            ErrorCode::NotFound,
            format!("no local directory {}; make it with `mkdir -p`", local.display()),
        )),
        Some(_) if remotes > 1 => Err(CliError::new(
            ErrorCode::NotADirectory,
            format!("local {} is not a directory, and several files would go there", local.display()),
        )),
        _ => Ok(false),
    }
}

async fn step(client: &Client, args: &Get, remote: &Remote, local: &Path, into: bool) -> Outcome<GetStep> {
    let info = client.stat(&remote.path).await?;
    let target = match remote.name() {
        Some(name) if into => paths::local_child(local, name)?,
        _ => local.to_path_buf(),
    };
    let copy = Copy { local: target, remote: remote.path.clone() };
    match info.kind {
        FileKind::File => Ok(GetStep::File(copy)),
        FileKind::Directory if args.recursive => Ok(GetStep::Directory(copy)),
        FileKind::Directory => Err(CliError::new(
            ErrorCode::IsADirectory,
            format!("{} is a directory; add -r to copy it with all below it", remote.path),
        )),
    }
}

/// Copies one file. Whatever fails, and when the command is dropped, nothing shows under the final name.
async fn get_one(context: &Context, mut reader: FileReader, copy: &Copy, progress: &Progress) -> Outcome<Done> {
    let mut target = Target::create(&context.world, &copy.local)?;
    let mut check = Check::default();
    while let Some(piece) = reader.next_bytes().await? {
        check.add(&piece);
        let bytes = piece.len() as u64;
        target.write(piece).await?;
        progress.add(bytes);
    }
    check
        .against(&reader)
        .map_err(|error| error.hint(format!("nothing was written to local {}", copy.local.display())))?;
    target.commit().await?;
    let stats = reader.stats();
    context.notes.verbose(format!(
        "{}: {} bytes, CRC-32 {}; went on with another replica {} times, asked a second one {} times",
        copy.remote, check.length, check.crc, stats.failovers, stats.hedges
    ));
    Ok(Done { name: copy.remote.clone(), warning: corrupt_replicas(&reader) })
}

/// The warning about replicas that were bad, though the file is right.
pub fn corrupt_replicas(reader: &FileReader) -> Option<String> {
    let corrupt = reader.stats().corrupt;
    (corrupt > 0).then(|| {
        format!("{}: {corrupt} bad replicas were met and others used instead; see `quarry status`", reader.info().path)
    })
}

/// The length and CRC of what was read.
#[derive(Default)]
pub struct Check {
    length: u64,
    crc: Crc32,
}

impl Check {
    /// Takes the next bytes into account.
    pub fn add(&mut self, piece: &Bytes) {
        self.length += piece.len() as u64;
        self.crc = self.crc.extend(piece);
    }

    /// Compares with what the masters recorded. Of a file that is being written they do not know all.
    pub fn against(&self, reader: &FileReader) -> Outcome {
        let info = reader.info();
        if info.open || (self.length == info.length && self.crc == info.crc) {
            return Ok(());
        }
        Err(CliError::new(
            ErrorCode::Corrupt,
            format!(
                "{}: read {} bytes with CRC-32 {}, but {} bytes with {} were written",
                info.path, self.length, self.crc, info.length, info.crc
            ),
        ))
    }
}
