//! `quarry local stop`.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    cluster::{Cluster, Member, Role},
    lock,
    process::Running,
};
use crate::{args::LocalDir, context::Context, error::Outcome, local_fs};

/// A process that was asked to stop gets this long before it is killed.
const ASKED: Duration = Duration::from_secs(10);
/// A killed process is gone within this, unless its disk hangs.
const KILLED: Duration = Duration::from_secs(5);

/// Stops chunkservers first, so that they can take leave of the master.
pub async fn run(context: &Context, args: &LocalDir) -> Outcome {
    let cluster = Cluster::open(&args.dir)?;
    let _lock = lock(&cluster.dir)?;
    for role in [Role::Chunkserver, Role::Master] {
        stop_role(context, &cluster, role).await?;
    }
    Ok(())
}

async fn stop_role(context: &Context, cluster: &Cluster, role: Role) -> Outcome {
    let mut asked: Vec<(&Member, Running)> = Vec::new();
    for member in cluster.of_role(role) {
        let Some(running) = Running::find(cluster, member)? else {
            local_fs::remove(&cluster.pid_file(member))?;
            continue;
        };
        running.signal(Signal::SIGTERM)?;
        // One that was stopped with SIGSTOP would not see the request.
        running.signal(Signal::SIGCONT)?;
        asked.push((member, running));
    }
    let deadline = context.world.clock.now().plus(ASKED);
    for (member, running) in asked {
        let left = deadline.since(context.world.clock.now());
        if !running.wait_end(&context.world, left).await? {
            context.notes.warning(format!("{} did not stop within {ASKED:?} and is killed", member.name));
            running.signal(Signal::SIGKILL)?;
            if !running.wait_end(&context.world, KILLED).await? {
                return Err(crate::error::CliError::local(format!(
                    "{} (pid {}) does not end although killed; its disk may hang",
                    member.name, running.pid
                )));
            }
        }
        local_fs::remove(&cluster.pid_file(member))?;
        context.notes.verbose(format!("stopped {}", member.name));
    }
    Ok(())
}
