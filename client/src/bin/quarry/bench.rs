//! `quarry bench`: how fast this cluster is, from here.
//!
//! A file per case; [`run`](mod@run) is what they run on. Each gives [`result::Measured`]s. All work in a new directory,
//! which is removed at the end, also of a command that fails or is interrupted.

mod append;
mod list;
mod metadata;
mod parallel;
mod random;
mod result;
mod run;
mod small;
mod source;
mod stream;
mod usage;

use quarry_client::Client;
use serde_json::{Value, json};

use crate::{
    args::{Bench, Case},
    context::Context,
    error::{CliError, Outcome},
    human,
    output::Out,
    paths::{self, Remote},
};
use result::{HEADS, Measured};
use run::Run;
use source::Source;

/// Everything, in the order in which it is measured.
const ALL: [Case; 7] =
    [Case::Stream, Case::Parallel, Case::Random, Case::Small, Case::Append, Case::Metadata, Case::List];

/// What every case gets.
struct Setting<'a> {
    context: &'a Context,
    client: Client,
    /// The same without the files of chunkservers on this machine.
    network: Client,
    args: &'a Bench,
    /// The directory that is removed at the end.
    dir: String,
    source: Source,
}

impl Setting<'_> {
    /// A name in the directory.
    fn path(&self, name: &str) -> String {
        paths::join(&self.dir, name)
    }

    /// So many operations at once, each with its processes' time.
    fn run(&self, concurrency: u32) -> Run<'_> {
        Run { clock: &self.context.world.clock, processes: &self.args.processes, concurrency }
    }
}

/// Measures what was asked for.
pub async fn run(context: &Context, args: Bench) -> Outcome {
    if let Some(pid) = args.processes.iter().find(|pid| usage::cpu(&pid.to_string()).is_none()) {
        return Err(CliError::usage(format!("--processes: there is no process {pid} here")));
    }
    let client = context.client().await?.clone();
    let within = Remote::parse(args.within.as_os_str())?;
    // Where no master answers there is nothing to be removed either.
    client.stat(&within.path).await?;
    let dir = paths::join(&within.path, &format!("quarry-bench-{:016x}", context.world.random.next_u128() as u64));
    context.remove_when_left(&dir);
    client.mkdir(&dir, false).await?;
    let source = Source::new(&*context.world.random);
    let network = context.network_client().await?;
    let setting = Setting { context, client, network, args: &args, dir, source };
    let mut measured = Vec::new();
    for case in if args.cases.is_empty() { &ALL } else { args.cases.as_slice() } {
        measured.extend(match case {
            Case::Stream => stream::run(&setting).await?,
            Case::Parallel => parallel::run(&setting).await?,
            Case::Random => random::run(&setting).await?,
            Case::Small => small::run(&setting).await?,
            Case::Append => append::run(&setting).await?,
            Case::Metadata => metadata::run(&setting).await?,
            Case::List => list::run(&setting).await?,
        });
    }
    report(&setting, &measured).await
}

async fn report(setting: &Setting<'_>, measured: &[Measured]) -> Outcome {
    let mut out = Out::new();
    if setting.context.global.json {
        out.json(&json_of(setting.args, measured)).await?;
        return out.flush().await;
    }
    let rows: Vec<_> = measured.iter().map(Measured::cells).collect();
    for line in human::table(&HEADS, &HEADS[1..], &rows) {
        out.line(line).await?;
    }
    out.flush().await
}

/// `{results: […], peak_memory: {client, processes: {PID: bytes}}}`.
fn json_of(args: &Bench, measured: &[Measured]) -> Value {
    let results: Vec<Value> = measured.iter().map(Measured::json).collect();
    let of = |pid: &u32| (pid.to_string(), json!(usage::peak_memory(&pid.to_string())));
    let processes: serde_json::Map<String, Value> = args.processes.iter().map(of).collect();
    json!({
        "results": results,
        "peak_memory": {"client": usage::peak_memory("self"), "processes": processes},
    })
}
