//! `quarry-sim run`.

use std::path::PathBuf;

use super::{Failed, Output, files};
use crate::{
    report::Outcome,
    scenario::Scenario,
    units::{Time, YEAR},
    world::World,
};

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TOML file; `cluster-sim/scenarios` has some.
    scenario: PathBuf,
    /// The seed, instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// So many years, instead of the scenario's time; 0.5 is half a year.
    #[arg(long)]
    years: Option<f64>,
    #[command(flatten)]
    output: Output,
}

/// So many years.
pub(super) fn years(years: f64) -> Result<Time, Failed> {
    if years > 0.0 && years <= 100.0 {
        Ok(Time((years * YEAR as f64) as u64))
    } else {
        Err(format!("--years {years}: choose more than 0 and at most 100"))
    }
}

/// Runs a scenario once.
pub fn run(args: &Args) -> Result<(), Failed> {
    let name = args.scenario.display().to_string();
    files::spare(&args.scenario, &args.output)?;
    let mut scenario = Scenario::parse(&name, &files::read(&args.scenario)?).map_err(|error| error.to_string())?;
    if let Some(time) = args.years {
        scenario.set_lasts(&name, years(time)?).map_err(|error| error.to_string())?;
    }
    let seed = args.seed.unwrap_or(scenario.run.seed);
    let mut world = World::new(&scenario, seed);
    world.run();
    files::put(&Outcome::of(&world, &name, &scenario.question, seed), &args.output)
}
