//! `quarry`, the command for people and scripts.
//!
//! A file per verb; [`args`] is the command line, [`output`] the only place that prints, [`error`] the exit codes,
//! [`local_fs`] the files of this machine, [`local`] a cluster of processes on it. What a cluster does is in the library.

mod admin;
mod append;
mod args;
mod bench;
mod cat;
mod checksum;
mod chunks;
mod completions;
mod context;
mod df;
mod du;
mod enough;
mod error;
mod explain;
mod get;
mod human;
mod info;
mod local;
mod local_fs;
mod ls;
mod masters;
mod metadata;
mod mkdir;
mod mv;
mod output;
mod paths;
mod progress;
mod put;
mod rebalance;
mod repairs;
mod rm;
mod servers;
mod set_replicas;
mod settings;
mod stat;
mod status;
mod tally;
mod trash;
mod undelete;
mod walk;
mod watch;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use quarry_proto::v1::ServerWish;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use args::{Cli, Global, Local, LogFormat, Verb};
use context::Context;
use error::{CliError, Kind, Outcome};
use output::Notes;

/// After the command has ended, what still runs in the background gets this long. A write to a standard output
/// that nobody reads would take for ever.
const LINGER: Duration = Duration::from_millis(500);
/// Threads for reading and writing local files; more do not make a disk faster.
const BLOCKING_THREADS_MAX: usize = 32;

/// See the workspace's `Cargo.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let notes = Notes::new(cli.global.json, cli.global.verbose, None);
    // Before there are threads: this process becomes another program.
    let ended = if let Verb::Local(Local::ExecDetached { command }) = &cli.verb {
        local::exec_detached(command)
    } else {
        start_log(&cli.global).and_then(|()| run_to_end(cli))
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notes.error(&error);
            ExitCode::from(error.exit_number())
        }
    }
}

/// What clap says about a command line that it does not accept, or the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
        Notes::new(true, false, None).error(&CliError::usage(first));
    } else {
        // Fails only when nobody listens.
        let _unheard = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

fn start_log(global: &Global) -> Outcome {
    let Some(level) = &global.log else { return Ok(()) };
    let filter = EnvFilter::try_new(level).map_err(|error| CliError::usage(format!("--log {level:?}: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match global.log_format {
        LogFormat::Human => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| CliError::local(format!("cannot start the log: {error}")))
}

fn run_to_end(cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| CliError::local(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(async {
        let context = Context::new(cli.global);
        let ended = tokio::select! {
            ended = run(&context, cli.verb) => ended,
            // Dropping the command removes the temporary files that it was writing, and gives up files in the cluster.
            interrupted = interrupted() => Err(interrupted),
        };
        context.leave().await;
        ended
    });
    runtime.shutdown_timeout(LINGER);
    ended
}

async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Put(args) => put::run(context, args).await,
        Verb::Get(args) => get::run(context, args).await,
        Verb::Cat(args) => cat::run(context, args).await,
        Verb::Append(args) => append::run(context, args).await,
        Verb::Ls(args) => ls::run(context, args).await,
        Verb::Stat(args) => stat::run(context, args).await,
        Verb::Mkdir(args) => mkdir::run(context, args).await,
        Verb::Mv(args) => mv::run(context, args).await,
        Verb::Rm(args) => rm::run(context, args).await,
        Verb::Undelete(args) => undelete::run(context, args).await,
        Verb::Trash(args) => trash::run(context, args).await,
        Verb::SetReplicas(args) => set_replicas::run(context, args).await,
        Verb::Settings(args) => settings::run(context, args).await,
        Verb::Du(args) => du::run(context, args).await,
        Verb::Df(args) => df::run(context, args).await,
        Verb::Checksum(args) => checksum::run(context, args).await,
        Verb::Chunks(args) => chunks::run(context, args).await,
        Verb::Status => status::run(context).await,
        Verb::Masters { verb } => masters::run(context, verb).await,
        Verb::Repairs(args) => repairs::run(context, args).await,
        Verb::Explain(args) => explain::run(context, args).await,
        Verb::Drain(args) => servers::leave(context, args, ServerWish::Draining).await,
        Verb::Undrain(args) => servers::undrain(context, args).await,
        Verb::Maintenance(args) => servers::maintenance(context, args).await,
        Verb::Decommission(args) => servers::leave(context, args, ServerWish::Decommissioned).await,
        Verb::Rebalance(args) => rebalance::run(context, args).await,
        Verb::Watch(args) => watch::run(context, args).await,
        Verb::Bench(args) => bench::run(context, args).await,
        Verb::Metadata(verb) => metadata::run(context, verb).await,
        Verb::Admin(verb) => admin::run(context, verb).await,
        Verb::Local(verb) => local::run(context, verb).await,
        Verb::Completions { shell } => completions::run(shell).await,
    }
}

/// Ends with the signal that asks this process to stop.
async fn interrupted() -> CliError {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers a signal simply ends the process.
        return std::future::pending().await;
    };
    let (signal, name) = tokio::select! {
        _ = interrupt.recv() => (SignalKind::interrupt(), "interrupted"),
        _ = terminate.recv() => (SignalKind::terminate(), "terminated"),
    };
    CliError::of_kind(Kind::Interrupted(signal.as_raw_value()), name)
}
