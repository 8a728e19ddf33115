//! `quarry append`.

use quarry_types::ErrorCode;

use crate::{
    args::Append,
    context::Context,
    error::{CliError, Outcome},
    local_fs::{self, LocalKind, Source},
    paths::Remote,
    progress::Progress,
    put,
};

/// Writes a local file to the end of one in the cluster.
pub async fn run(context: &Context, args: Append) -> Outcome {
    let remote = Remote::parse(&args.remote)?;
    let mut source = if args.local.as_os_str() == "-" {
        Source::stdin(&context.world)?
    } else {
        if local_fs::look(&args.local)? == Some(LocalKind::Directory) {
            return Err(CliError::new(
                ErrorCode::IsADirectory,
                format!("local {} is a directory; only a file can be appended", args.local.display()),
            ));
        }
        Source::open(&context.world, &args.local)?
    };
    let client = context.client().await?;
    let mut writer = client.append(&remote.path).await.map_err(|error| {
        let error = CliError::from(error);
        if error.is(ErrorCode::NotFound) { error.hint("make the file with `quarry put`") } else { error }
    })?;
    let progress = Progress::of_file(context.bars.as_ref(), &remote.path, source.length());
    let before = writer.position();
    if let Err(error) = put::copy(&mut source, &mut writer, &progress).await {
        let sent = writer.position().saturating_sub(before);
        // The file stays visible; what is sealed of the new bytes stays in it, and its lease is given back.
        let _expires_else = writer.abort().await;
        return Err(
            error.hint(format!("up to {sent} bytes were appended to {0}, look with `quarry stat {0}`", remote.path))
        );
    }
    let finished = writer.finish().await?;
    progress.finish();
    put::too_few(&finished).iter().for_each(|warning| context.notes.warning(warning));
    put::tell(context, &finished).await
}
