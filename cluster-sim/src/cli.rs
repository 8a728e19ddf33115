//! The command line: `run`, `sweep`, `what-if`.

mod files;
mod run;
mod sweep;
mod what_if;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Simulates a Quarry cluster with the decisions of the real master.
#[derive(Debug, Parser)]
#[command(name = "quarry-sim", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a scenario once.
    Run(run::Args),
    /// Runs a scenario with many seeds, and with several values of a key side by side.
    Sweep(sweep::Args),
    /// What happens to a real cluster when something of it goes.
    WhatIf(what_if::Args),
}

/// How a report is printed.
#[derive(Debug, clap::Args)]
struct Output {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Also write the report as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Why nothing came out, for people: what, where, and what to do.
type Failed = String;

/// Does what the command line says.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Sweep(args) => sweep::run(&args),
        Verb::WhatIf(args) => what_if::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            files::complain(&error);
            ExitCode::from(2)
        }
    }
}
