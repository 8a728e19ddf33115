//! `quarry-sim`: see [`quarry_sim::cli`].

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    quarry_sim::cli::main(quarry_sim::cli::Cli::parse())
}
