//! The other end of a floor that needs two processes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{
    error::{During as _, Failed, Outcome},
    proc,
};

/// A helper that serves until its standard input ends, which it does with this process.
pub struct Helper {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Helper {
    /// Starts `quarry-bench floor NAME`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(name: &str) -> Outcome<Self> {
        let own = std::env::current_exe().during("finding this program")?;
        let mut command = Command::new(own);
        command.args(["floor", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().during(format!("starting {name}"))?;
        let mut address = String::new();
        if let Some(said) = child.stdout.as_mut() {
            BufReader::new(said).read_line(&mut address).during(format!("starting {name}"))?;
        }
        let helper = Helper { child, address: address.trim().into() };
        if helper.address.is_empty() { Err(Failed::new(format!("starting {name}"), "it ended")) } else { Ok(helper) }
    }

    /// Its processor time so far, in seconds.
    pub fn cpu(&self) -> f64 {
        proc::cpu(self.child.id()).unwrap_or_default()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Waits until whoever started this process is gone.
pub async fn until_alone() {
    let mut input = tokio::io::stdin();
    let _ended = tokio::io::copy(&mut input, &mut tokio::io::sink()).await;
}

/// A runtime as the programs of Quarry have it.
///
/// # Errors
/// When threads cannot be started.
pub fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().during("starting threads")
}

/// Says where this process listens.
#[expect(clippy::print_stdout, reason = "whoever started it reads the line")]
pub fn announce(address: std::net::SocketAddr) {
    println!("{address}");
}
