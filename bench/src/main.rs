//! The benchmark suite: what Quarry does on this machine, beside what the machine can do and what others do.
//!
//! | module | does |
//! |---|---|
//! | `plan`, `suite` | which cases, how much, in which order |
//! | `case` | one file a case: runs Quarry, its floor and the peers in turns |
//! | `bed` | a cluster of real processes, and `quarry bench` as its client |
//! | `floor` | the same work without Quarry, each in a process of its own |
//! | `peer` | MooseFS and SeaweedFS: started, measured, stopped |
//! | `book`, `targets`, `report` | results; what they should be; text, JSON and a page |
//! | `group` | every process ends and everything temporary goes, however the suite ends |
//! | `warm` | memory is touched before it counts |
//!
//! It knows the binaries from the outside only. `bench/README.md` says how it is run and how its figures are to be read.

mod bed;
mod book;
mod case;
mod error;
mod floor;
mod forged;
mod group;
mod machine;
mod measured;
mod peer;
mod plan;
mod proc;
mod report;
mod suite;
mod swarm;
mod targets;
mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Outcome;
use floor::Floor;
use plan::RunArgs;

/// Measures Quarry on this machine.
#[derive(Debug, Parser)]
#[command(name = "quarry-bench", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the suite
    Run(RunArgs),
    /// The part of `run` that does the work, in a process group that ends with it
    #[command(hide = true)]
    Work(RunArgs),
    /// Measure one floor and print it as JSON
    Floor {
        /// Which
        #[command(subcommand)]
        floor: Floor,
    },
    /// Show the results of an earlier run, and compare them with those of another
    Show {
        /// A JSON file
        results: std::path::PathBuf,
        /// Another one
        #[arg(long)]
        against: Option<std::path::PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Outcome<ExitCode> {
    match verb {
        Verb::Run(args) => group::supervise(&args),
        Verb::Work(args) => suite::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Floor { floor } => {
            if let Some(measured) = floor::run(&floor)? {
                report::print(&serde_json::json!(measured).to_string());
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Show { results, against } => {
            let book = report::read(&results)?;
            let earlier = against.as_deref().map(report::read).transpose()?;
            report::print(&report::text(&book, earlier.as_ref()));
            Ok(ExitCode::SUCCESS)
        }
    }
}
