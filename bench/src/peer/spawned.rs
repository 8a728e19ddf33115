//! Processes of a peer.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::error::{During as _, Failed, Outcome};

/// A peer is up within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A process that ends with this.
pub struct Spawned {
    child: Child,
    log: PathBuf,
}

impl Spawned {
    /// Starts a program; what it says goes to a log.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(program: &str, args: &[&str], log: &Path) -> Outcome<Self> {
        let doing = format!("starting {program}");
        let to = File::create(log).during(&doing)?;
        let errors = to.try_clone().during(&doing)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(to).stderr(errors);
        Ok(Spawned { child: command.spawn().during(doing)?, log: log.into() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until `up` says yes.
    ///
    /// # Errors
    /// When it ends first, or takes too long; with the end of its log.
    pub fn wait(&mut self, up: impl Fn() -> bool) -> Outcome {
        let until = Instant::now() + PATIENCE;
        while !up() {
            let ended = self.child.try_wait().during("waiting for a peer")?.is_some();
            if ended || Instant::now() > until {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(5)..].join(" / ");
                return Err(Failed::new(
                    format!("waiting for {}", self.log.display()),
                    format!("not up; it said: {last}"),
                ));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What a program says when it is asked for its version.
pub fn version(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    let text = out.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
