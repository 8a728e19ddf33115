//! `quarry mkdir`.

use quarry_types::ErrorCode;

use crate::{
    args::Mkdir,
    context::Context,
    error::{CliError, Outcome},
    paths::Remote,
    tally,
};

/// Makes directories.
pub async fn run(context: &Context, args: Mkdir) -> Outcome {
    let remotes = Remote::parse_all(&args.remotes.remotes)?;
    let client = context.client().await?;
    tally::for_each(context, remotes, "directories", async |remote: Remote| {
        match client.mkdir(&remote.path, args.parents).await.map_err(CliError::from) {
            Ok(made) => {
                context.notes.verbose(format!("made {}", made.path));
                Ok(())
            }
            Err(error) if !args.parents && error.is(ErrorCode::NotFound) => {
                Err(error.hint("make the directories above it too with -p"))
            }
            Err(error) => Err(error),
        }
    })
    .await
}
