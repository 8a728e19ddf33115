//! `quarry mv`.

use quarry_client::{Client, FileKind};
use quarry_types::ErrorCode;

use crate::{
    args::Mv,
    context::Context,
    error::{CliError, Outcome},
    paths::{self, Remote},
    tally,
};

/// Renames one thing, or moves things into a directory.
pub async fn run(context: &Context, args: Mv) -> Outcome {
    let mut remotes = Remote::parse_all(&args.paths)?;
    let Some(to) = remotes.pop() else {
        return Err(CliError::usage("name what to move and where"));
    };
    let client = context.client().await?;
    let into = is_directory(client, &to, remotes.len()).await?;
    tally::for_each(context, remotes, "paths", async |from: Remote| {
        let target = match from.name() {
            Some(name) if into => paths::join(&to.path, name),
            _ => to.path.clone(),
        };
        match client.rename(&from.path, &target, args.overwrite).await.map_err(CliError::from) {
            Ok(_) => {
                context.notes.verbose(format!("moved {} to {target}", from.path));
                Ok(())
            }
            Err(error) if error.is(ErrorCode::AlreadyExists) => Err(error.hint("replace a file with --overwrite")),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Whether the target is a directory to move into; refuses targets that cannot be right.
async fn is_directory(client: &Client, to: &Remote, froms: usize) -> Outcome<bool> {
    match client.stat(&to.path).await {
        Ok(info) if info.kind == FileKind::Directory => Ok(true),
        Ok(_) if froms > 1 || to.directory_meant => {
            Err(CliError::new(ErrorCode::NotADirectory, format!("{} is a file, not a directory to move into", to.path)))
        }
        Err(error) if error.code() == ErrorCode::NotFound && froms > 1 => Err(CliError::new(
            ErrorCode::NotFound,
            format!("no directory {0} to move into; make it with `quarry mkdir -p {0}`", to.path),
        )),
        Err(error) if error.code() != ErrorCode::NotFound => Err(error.into()),
        _ => Ok(false),
    }
}
