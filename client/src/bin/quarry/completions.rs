//! `quarry completions`.

use clap::CommandFactory;

use crate::{args::Cli, error::Outcome, output::Out};

/// Prints the script that makes a shell complete `quarry`.
pub async fn run(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "quarry", &mut script);
    let mut out = Out::new();
    out.raw(&script).await?;
    out.flush().await
}
