//! Where and with what the figures came about.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::proc::machine_memory;

/// A machine and what ran on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processor and cores.
    pub processor: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel.
    pub kernel: String,
    /// Commit of Quarry, with `+` when there were changes.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// Runs of each case.
    pub runs: usize,
    /// Load of one minute before it began: above about 0.2 something else was running.
    pub load_before: f64,
    /// Versions of the peers.
    pub peers: Vec<String>,
}

impl Machine {
    /// This one, now.
    pub fn here(runs: usize) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Machine {
            processor: format!("{cores} × {}", name.trim_start_matches([' ', '\t', ':']).trim()),
            memory_bytes: machine_memory("MemTotal").unwrap_or_default(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            commit: said("git", &["rev-parse", "--short=12", "HEAD"]) + if changed { "+" } else { "" },
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            at: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            runs,
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            peers: Vec::new(),
        }
    }
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}
