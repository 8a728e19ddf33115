//! `quarry-sim what-if`.

use std::path::PathBuf;

use super::{Failed, Output, files};
use crate::{
    report::Outcome,
    scenario::{Act, EventSpec, Model, Target, Workload},
    state::{Question, State},
    units::{Rate, SECOND, Time, YEAR, parse_rate, parse_time, show_time},
};

/// It happens so long after the beginning, so that a leader has looked at what was wrong before.
const AT: Time = Time(60 * SECOND);

/// Flags of `what-if`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `quarry admin export-state` wrote.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// What goes, a minute after the beginning: `rack:NAME`, `server:ID-OR-ADDRESS`, `disk:SERVER/NUMBER`; several times.
    #[arg(long, required = true, value_name = "TARGET")]
    kill: Vec<Target>,
    /// It comes back after this, like `30m`: a server or rack with all its data, a disk empty. Without it, it is lost for good.
    #[arg(long, value_name = "TIME", value_parser = time)]
    back_after: Option<Time>,
    /// For how long it is looked at.
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = time)]
    lasts: Time,
    /// Another value of a setting than the cluster has, like `repair-rate=100MB/s`; several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Another number of wanted replicas, of all chunks.
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Network of each server, each way.
    #[arg(long, value_name = "RATE", default_value = "1.25GB/s", value_parser = rate)]
    server_network: Rate,
    /// Network between a rack and the others, each way; 0B: no limit.
    #[arg(long, value_name = "RATE", default_value = "0B/s", value_parser = rate)]
    rack_network: Rate,
    /// Each disk, reads and writes together.
    #[arg(long, value_name = "RATE", default_value = "150MB/s", value_parser = rate)]
    disk_speed: Rate,
    /// What clients read in the whole cluster meanwhile.
    #[arg(long, value_name = "RATE", default_value = "0B/s", value_parser = rate)]
    reads: Rate,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

fn time(text: &str) -> Result<Time, String> {
    let fits = |time: &u64| (1..=100 * YEAR).contains(time);
    parse_time(text).filter(fits).map(Time).ok_or_else(|| "expected a time like 30m or 2h, at most 100y".into())
}

fn rate(text: &str) -> Result<Rate, String> {
    parse_rate(text).map(Rate).ok_or_else(|| "expected a rate like 125MB/s".into())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, like repair-rate=100MB/s")?;
    Ok((name.into(), value.into()))
}

/// What is done to a target.
fn act(target: &Target, back: Option<Time>) -> Act {
    match (target, back) {
        (Target::Disk(..), _) => Act::LoseDisk,
        (_, Some(_)) => Act::Crash,
        (_, None) => Act::Lose,
    }
}

/// Simulates what happens to a real cluster.
pub fn run(args: &Args) -> Result<(), Failed> {
    let name = args.cluster.display().to_string();
    files::spare(&args.cluster, &args.output)?;
    let state = State::parse(&name, &files::read(&args.cluster)?).map_err(|error| error.to_string())?;
    if args.server_network.0 == 0 || args.disk_speed.0 == 0 {
        return Err("--server-network and --disk-speed cannot be zero; say a rate".into());
    }
    if args.lasts <= AT {
        return Err(format!(
            "--for {}: what goes, goes after {}; look at it for longer",
            show_time(args.lasts.0),
            show_time(AT.0)
        ));
    }
    let event = |target: &Target| EventSpec::new(AT, act(target, args.back_after), target.clone(), args.back_after);
    let question = Question {
        model: Model {
            server_network: args.server_network,
            rack_network: args.rack_network,
            disk_speed: args.disk_speed,
            ..Model::default()
        },
        workload: Workload { reads: args.reads, ..Workload::default() },
        settings: args.set.clone(),
        replicas: args.replicas,
        events: args.kill.iter().map(event).collect(),
        lasts: args.lasts.0,
        seed: args.seed,
    };
    let mut world = state.world(question)?;
    drop(state);
    world.run();
    let killed: Vec<String> = args.kill.iter().map(Target::to_string).collect();
    let back = args.back_after.map_or("for good".into(), |time| format!("for {}", show_time(time.0)));
    let asked = format!("What happens when {} goes {back}?", killed.join(" and "));
    files::put(&Outcome::of(&world, &name, &asked, args.seed), &args.output)
}
