//! `quarry rm`.

use quarry_types::ErrorCode;

use crate::{
    args::Rm,
    context::Context,
    error::{CliError, Outcome},
    paths::Remote,
    tally,
};

/// Removes files and directories.
pub async fn run(context: &Context, args: Rm) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.client().await?;
    tally::for_each(context, remotes, "paths", async |remote: Remote| {
        match client.remove(&remote.path, args.recursive, args.now).await.map_err(CliError::from) {
            Ok(()) => {
                context.notes.verbose(format!("removed {}", remote.path));
                Ok(())
            }
            Err(error) if error.is(ErrorCode::NotEmpty) || error.is(ErrorCode::IsADirectory) => {
                Err(error.hint("remove it with all below it with -r"))
            }
            Err(error) => Err(error),
        }
    })
    .await
}
