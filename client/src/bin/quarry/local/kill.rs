//! `quarry local kill`.

use std::time::Duration;

use nix::sys::signal::Signal;
use quarry_types::ErrorCode;

use super::{cluster::Cluster, process::Running};
use crate::{
    args::LocalKill,
    context::Context,
    error::{CliError, Outcome},
    local_fs,
};

/// A killed process is gone within this, unless its disk hangs.
const KILLED: Duration = Duration::from_secs(5);

/// Sends the signal. After `SIGKILL` it waits until the process is gone.
pub async fn run(context: &Context, args: &LocalKill) -> Outcome {
    let cluster = Cluster::open(&args.dir.dir)?;
    let member = cluster.member(&args.name)?;
    let Some(running) = Running::find(&cluster, member)? else {
        return Err(CliError::new(
            ErrorCode::NotFound,
            format!(
                "{0} does not run; start it with `quarry local start-one {0} --dir {1}`",
                member.name,
                cluster.dir.display()
            ),
        ));
    };
    running.signal(args.signal)?;
    if args.signal == Signal::SIGKILL {
        if !running.wait_end(&context.world, KILLED).await? {
            return Err(CliError::local(format!(
                "{} (pid {}) does not end although killed; its disk may hang",
                member.name, running.pid
            )));
        }
        local_fs::remove(&cluster.pid_file(member))?;
    }
    context.notes.verbose(format!("sent {} to {} (pid {})", args.signal, member.name, running.pid));
    Ok(())
}
