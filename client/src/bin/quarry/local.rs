//! `quarry local`: a cluster of several real processes on this machine.
//!
//! | path in the cluster's directory | holds |
//! |---|---|
//! | `cluster.json` | which processes there are, with their ports: [`cluster`] |
//! | `cluster.key` | the cluster's key |
//! | `NAME/` | the data directory of a process |
//! | `logs/NAME.log` | what it logs |
//! | `run/NAME.pid` | which process it is now: [`process`] |
//! | `lock` | held by a command that starts or stops something |

mod cluster;
mod kill;
mod ports;
mod process;
mod start;
mod status;
mod stop;

use std::path::Path;

pub use process::exec_detached;

use crate::{
    args::Local,
    context::Context,
    error::{CliError, Outcome},
    local_fs,
};

/// Runs a `local` command.
pub async fn run(context: &Context, verb: Local) -> Outcome {
    match verb {
        Local::Start(args) => start::start(context, args).await,
        Local::StartOne(args) => start::start_one(context, args).await,
        Local::Stop(args) => stop::run(context, &args).await,
        Local::Status(args) => status::run(context, &args).await,
        Local::Kill(args) => kill::run(context, &args).await,
        Local::ExecDetached { command } => exec_detached(&command),
    }
}

/// Keeps other `local` commands that change something away from the same cluster.
fn lock(dir: &Path) -> Outcome<std::fs::File> {
    local_fs::lock(&dir.join("lock"))?.ok_or_else(|| {
        CliError::new(
            quarry_types::ErrorCode::Busy,
            format!("another `quarry local` command is at work on {}; wait until it is done", dir.display()),
        )
    })
}
