//! One process that ends with its guard.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{namespace, wait};

/// A port that was lent to somebody's connection is free again within this.
const PORT_FREE: Duration = Duration::from_secs(20);

/// A binary under test: from where this test's own binary was built, or for a documentation test, which is built
/// elsewhere, from the workspace's target directory.
///
/// # Panics
/// When `name` was not built; `cargo build --workspace --bins` does that.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a path");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace, PathBuf::from).join("debug");
    let found = own.ancestors().skip(1).chain([target.as_path()]).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built; run `cargo build --workspace --bins` first (scripts/test does)")
    })
}

/// What a process finds around it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// A network namespace, if not this one.
    pub namespace: Option<String>,
    /// More environment variables.
    pub env: Vec<(String, String)>,
}

/// A server process. Dropping it kills the process.
pub struct Process {
    child: Child,
    /// What it prints to standard error.
    pub log: PathBuf,
    /// Where it serves metrics and health.
    pub http: Option<String>,
}

impl Process {
    /// Starts `binary` with `args`, appending its standard error to `log`, and
    /// waits for the line `listening on HOST:PORT`, before which `http on HOST:PORT` may stand. Returns the address too.
    ///
    /// # Panics
    /// When it ends or stays silent; with the end of its log.
    pub fn serve(program: &str, args: &[String], place: &Place, log: &Path) -> (Self, String) {
        wait::until("the server's port", PORT_FREE, || {
            Self::try_serve(program, args, place, log).map_err(|process| {
                let tail = process.log_tail();
                // Where it is started again on its own port, the kernel may have lent that to somebody's connection meanwhile.
                let lent = tail.lines().next_back().is_some_and(|line| line.contains("Address already in use"));
                assert!(lent, "{program} {args:?} did not start; its log ends:\n{tail}");
                tail
            })
        })
    }

    fn try_serve(program: &str, args: &[String], place: &Place, log: &Path) -> Result<(Self, String), Self> {
        let errors = File::options().create(true).append(true).open(log).expect("a log file can be made");
        let namespace = place.namespace.as_deref();
        let mut child = namespace
            .map_or_else(|| Command::new(binary(program)), |name| namespace::command_in(name, &binary(program)))
            .args(args)
            .envs(place.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("a built binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (tx, rx) = mpsc::channel();
        // Goes on reading to the end, so that the server never blocks on a full pipe.
        thread::spawn(move || {
            let mut http = None;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("http on ") {
                    http = Some(address.to_owned());
                }
                if let Some(address) = line.strip_prefix("listening on ") {
                    let _closed = tx.send((http.take(), address.to_owned()));
                }
            }
        });
        let mut process = Process { child, log: log.into(), http: None };
        match rx.recv_timeout(Duration::from_secs(30)) {
            Ok((http, address)) => {
                process.http = http;
                Ok((process, address))
            }
            Err(_) => Err(process),
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, signal).expect("the process is there");
    }

    /// Kills it (-9) and waits for its end.
    pub fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it has not after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait::until("a process to end", limit, || {
            self.child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it still runs".into())
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Highest resident memory so far, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }
}

/// A process that is to end by itself; killed with its guard if it does not.
pub struct Ended(Child);

impl Ended {
    /// Watches over it.
    #[must_use]
    pub fn new(child: Child) -> Self {
        Ended(child)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits")), signal).expect("the process is there");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`; with what `said` says.
    pub fn wait(&mut self, limit: Duration, said: impl Fn() -> String) -> ExitStatus {
        wait::until("a process to end", limit, || {
            self.0.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| format!("it still runs: {}", said()))
        })
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Highest resident memory of a process so far, in bytes; 0 when it is gone.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} ends:\n{}", self.log.display(), self.log_tail());
        }
    }
}
