//! A cluster to be measured: the processes that the tests start too, and `quarry bench` as its client.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use quarry_tests::{Cluster, Options, process::binary};
use serde::Deserialize;

use crate::{
    book::{Book, QUARRY, Unit},
    error::{During as _, Failed, Outcome},
    measured::Measured,
    proc,
};

/// What the servers log while they are measured.
const LOG: &str = "warn,openraft=error";

/// What a cluster promises about bytes that it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// They are synced.
    Sealed,
    /// They are in the memory of all members.
    Buffered,
}

impl Durability {
    /// As the flag has it, and as cases are named.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Sealed => "sealed",
            Durability::Buffered => "buffered",
        }
    }
}

/// A cluster that ends with this.
pub struct Bed {
    /// The processes.
    pub cluster: Cluster,
}

/// What `quarry bench --json` prints.
#[derive(Deserialize)]
struct Printed {
    results: Vec<Measured>,
    peak_memory: Peak,
}

#[derive(Deserialize)]
struct Peak {
    client: Option<u64>,
}

impl Bed {
    /// So many masters, three chunkservers below `data`, and settings as in `repair-rate=100MB/s`.
    pub fn new(masters: usize, chunkservers: usize, durability: Durability, data: &Path, settings: &[&str]) -> Self {
        let dirs = (0..chunkservers).map(|n| Some(data.join(format!("chunkserver-{n}")))).collect();
        let cluster = Cluster::start(&Options {
            masters,
            chunkservers,
            master_log: LOG.into(),
            master_dir: Some(data.join("master")),
            data_dirs: dirs,
            settings: settings.iter().map(ToString::to_string).collect(),
            chunkserver_args: ["--durability", durability.name(), "--log", LOG].map(String::from).to_vec(),
            ..Options::default()
        });
        Bed { cluster }
    }

    /// All servers.
    pub fn pids(&mut self) -> Vec<u32> {
        let Cluster { master, others, servers, .. } = &mut self.cluster;
        [master].into_iter().chain(others).chain(servers).map(|server| server.process().pid()).collect()
    }

    /// Runs `quarry bench` with these arguments, and notes its memory.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn bench(&mut self, book: &mut Book, args: &[&str]) -> Outcome<Vec<Measured>> {
        let pids: Vec<String> = self.pids().iter().map(ToString::to_string).collect();
        let mut command = Command::new(binary("quarry"));
        command.env("QUARRY_MASTERS", &self.cluster.masters);
        command.args(["--json", "bench", "--processes", &pids.join(",")]).args(args);
        let printed: Printed = json_of(command)?;
        if let Some(bytes) = printed.peak_memory.client {
            book.most("memory.client", QUARRY, Unit::Bytes, bytes as f64);
        }
        Ok(printed.results)
    }

    /// Notes the servers' peak memory so far.
    pub fn note_memory(&mut self, book: &mut Book) {
        let Cluster { master, others, servers, .. } = &mut self.cluster;
        let masters = [master].into_iter().chain(others).map(|server| (server.process().pid(), "memory.master"));
        let chunkservers = servers.iter_mut().map(|server| (server.process().pid(), "memory.chunkserver"));
        let all: Vec<_> = masters.chain(chunkservers).collect();
        for (pid, case) in all {
            if let Some(bytes) = proc::memory(pid, "VmHWM") {
                book.most(case, QUARRY, Unit::Bytes, bytes as f64);
            }
        }
    }
}

/// Runs a floor, as a process of its own.
///
/// # Errors
/// When it fails; with what it said.
pub fn floor(args: &[&str]) -> Outcome<Measured> {
    let mut command = Command::new(std::env::current_exe().during("finding this program")?);
    command.arg("floor").args(args);
    json_of(command)
}

/// The same with a path among the arguments.
pub fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failed::new(format!("using {}", path.display()), "the path is not text"))
}

/// A directory that is new each time, so that what was removed before slows nobody down.
pub fn fresh(dir: &Path, name: &str) -> Outcome<PathBuf> {
    (0..).map(|n| dir.join(format!("{name}-{n}"))).find(|path| !path.exists()).map_or_else(
        || Err(Failed::new("making a directory", "every name is taken")),
        |path| std::fs::create_dir_all(&path).during(format!("making {}", path.display())).map(|()| path),
    )
}

fn json_of<T: serde::de::DeserializeOwned>(mut command: Command) -> Outcome<T> {
    let doing = format!("running {command:?}");
    let out = command.output().during(&doing)?;
    if !out.status.success() {
        return Err(Failed::new(doing, String::from_utf8_lossy(&out.stderr).trim()));
    }
    serde_json::from_slice(&out.stdout).during(doing)
}
