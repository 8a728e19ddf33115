//! `quarry-sim sweep`.

use std::path::PathBuf;

use super::{Failed, files, run::years};
use crate::{
    limits::RUNS_MAX,
    scenario::{Scenario, Vary},
    sweep,
};

/// Flags of `sweep`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TOML file; `cluster-sim/scenarios` has some.
    scenario: PathBuf,
    /// A key of the scenario and its values, like `repair.bandwidth=50MB,100MB` or `data.replicas=2,3`.
    #[arg(long, value_name = "KEY=A,B,…")]
    vary: Option<Vary>,
    /// Runs for each value.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed, instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// So many years, instead of the scenario's time.
    #[arg(long)]
    years: Option<f64>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs a scenario many times.
pub fn run(args: &Args) -> Result<(), Failed> {
    let (name, text) = (args.scenario.display().to_string(), files::read(&args.scenario)?);
    let plain = Scenario::parse(&name, &text).map_err(|error| error.to_string())?;
    let mut scenarios = match &args.vary {
        None => vec![(String::new(), plain.clone())],
        Some(vary) => {
            let one = |value: &String| vary.apply(&name, &text, value).map(|scenario| (value.clone(), scenario));
            vary.values.iter().map(one).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?
        }
    };
    if args.seeds == 0 || args.seeds.saturating_mul(scenarios.len() as u64) > RUNS_MAX as u64 {
        return Err(format!("--seeds {}: choose 1 to {} runs in all", args.seeds, RUNS_MAX));
    }
    if let Some(time) = args.years {
        let lasts = years(time)?;
        for (_, scenario) in &mut scenarios {
            scenario.set_lasts(&name, lasts).map_err(|error| error.to_string())?;
        }
    }
    let key = args.vary.as_ref().map_or("", |vary| vary.key.as_str());
    let found = sweep::sweep(&name, key, &scenarios, args.seed.unwrap_or(plain.run.seed), args.seeds, args.jobs.into());
    files::print(&if args.json { files::json(&found)? } else { found.text() });
    Ok(())
}
