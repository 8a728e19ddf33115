//! `quarry undelete`.

use quarry_client::InodeId;
use quarry_types::ErrorCode;

use crate::{
    args::Undelete,
    context::Context,
    error::{CliError, Outcome},
    info,
    output::Out,
    paths::Remote,
};

/// Takes back what was removed.
pub async fn run(context: &Context, args: Undelete) -> Outcome {
    let remote = Remote::parse(&args.remote)?;
    let to = args.to.as_deref().map(Remote::parse).transpose()?;
    let client = context.client().await?;
    let to = to.as_ref().map(|to| to.path.as_str());
    let back = client.undelete(&remote.path, args.inode.map(InodeId), to).await.map_err(|error| {
        let taken = error.code() == ErrorCode::AlreadyExists;
        let error = CliError::from(error);
        if taken { error.hint("or move away what is there with `quarry mv`") } else { error }
    })?;
    context.notes.verbose(format!("took back {}", back.path));
    if !context.global.json {
        return Ok(());
    }
    let mut out = Out::new();
    out.json(&info::file(&back)).await?;
    out.flush().await
}
