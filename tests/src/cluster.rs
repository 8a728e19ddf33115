//! A master and chunkservers as processes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    cli::{self, Output},
    process::{Process, binary},
    wait,
};

/// Tells who takes part in a chunk, among other things.
const MASTER_LOG: &str = "quarry_master=debug,info,openraft=warn";

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Chunkservers.
    pub chunkservers: usize,
    /// Racks that they are spread over.
    pub racks: usize,
    /// More arguments for the master.
    pub master_args: Vec<String>,
    /// More arguments for each chunkserver.
    pub chunkserver_args: Vec<String>,
    /// Data directories of a chunkserver, instead of one below the cluster's own.
    pub data_dirs: Vec<Option<PathBuf>>,
    /// The master's data directory, instead of one below the cluster's own.
    pub master_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chunkservers: 3,
            racks: 1,
            master_args: Vec::new(),
            chunkserver_args: Vec::new(),
            data_dirs: Vec::new(),
            master_dir: None,
        }
    }
}

/// A server that can be stopped and started again at its address.
pub struct Server {
    process: Option<Process>,
    program: &'static str,
    args: Vec<String>,
    log: PathBuf,
    /// `HOST:PORT`.
    pub address: String,
    /// Its data directory.
    pub data: PathBuf,
}

impl Server {
    fn start(program: &'static str, args: Vec<String>, log: PathBuf, data: PathBuf) -> Self {
        let mut server = Server { process: None, program, args, log, address: "127.0.0.1:0".into(), data };
        server.restart();
        server
    }

    /// Starts it, at the address it had before.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        let mut args = self.args.clone();
        args.extend(["--listen".into(), self.address.clone()]);
        let (process, address) = Process::serve(self.program, &args, &self.log);
        self.address = address;
        self.process = Some(process);
    }

    /// Kills it (-9).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was killed.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A cluster that ends with its guard.
pub struct Cluster {
    /// The master.
    pub master: Server,
    /// The chunkservers.
    pub servers: Vec<Server>,
    dir: TempDir,
}

impl Cluster {
    /// A cluster as `quarry local start` would make it, up and alive.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let at = |name: &str| dir.path().join(name);
        let text = |path: &Path| path.to_str().expect("a temporary path is text").to_owned();
        let data = options.master_dir.clone().unwrap_or_else(|| at("master"));
        let key = at("cluster.key");
        let init = Command::new(binary("quarry-master"))
            .args(["init", "--data", &text(&data), "--key-file", &text(&key)])
            .output()
            .expect("quarry-master starts");
        assert!(init.status.success(), "init failed: {}", String::from_utf8_lossy(&init.stderr));
        let mut args: Vec<String> =
            ["run", "--data", &text(&data), "--key-file", &text(&key), "--log", MASTER_LOG].map(String::from).to_vec();
        args.extend(options.master_args.iter().cloned());
        let master = Server::start("quarry-master", args, at("master.log"), data);
        let servers = (0..options.chunkservers)
            .map(|i| {
                let data = options.data_dirs.get(i).cloned().flatten().unwrap_or_else(|| at(&format!("cs{i}")));
                let rack = format!("r{}", i % options.racks);
                let fixed = ["run", "--data", &text(&data), "--key-file", &text(&key), "--masters", &master.address];
                let mut args: Vec<String> = fixed.map(String::from).to_vec();
                args.extend(["--rack".into(), rack]);
                args.extend(options.chunkserver_args.iter().cloned());
                Server::start("quarry-chunkserver", args, at(&format!("cs{i}.log")), data)
            })
            .collect();
        let cluster = Cluster { master, servers, dir };
        cluster.wait_alive(options.chunkservers);
        cluster
    }

    /// A file name in the cluster's temporary directory, for the test's own use.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `quarry`.
    #[must_use]
    pub fn quarry(&self, args: &[&str]) -> Output {
        cli::run(&self.master.address, args)
    }

    /// `quarry status --json`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        self.quarry(&["status", "--json"]).json()
    }

    /// `quarry chunks --json PATH`.
    #[must_use]
    pub fn chunks(&self, path: &str) -> serde_json::Value {
        self.quarry(&["chunks", "--json", path]).json()
    }

    /// The chunkserver at `address`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn server_at(&self, address: &str) -> usize {
        self.servers.iter().position(|s| s.address == address).expect("a server of this cluster")
    }

    /// The members of the chunk that was granted last, in pipeline order.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    pub fn members_granted_last(&self) -> Vec<usize> {
        let log = self.master.log();
        let line = log.lines().rev().find(|line| line.contains("chunk granted")).expect("a chunk was granted");
        let rest = line.split("members=").nth(1).expect("the line names the members");
        let members = rest.split_whitespace().next().unwrap_or_default();
        members.trim_matches('"').split(',').map(|address| self.server_at(address)).collect()
    }

    /// Waits until `count` chunkservers are alive.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_alive(&self, count: usize) {
        wait::until(&format!("{count} chunkservers alive"), Duration::from_secs(30), || {
            let out = self.quarry(&["status", "--json"]);
            if out.code != 0 {
                return Err(out.stderr);
            }
            let status: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
            let servers = status["chunkservers"].as_array().cloned().unwrap_or_default();
            let alive = servers.iter().filter(|s| s["state"] == "alive").count();
            if alive == count { Ok(()) } else { Err(format!("{alive} are: {servers:?}")) }
        });
    }

    /// The chunk files that the chunkservers hold, with the server's index.
    #[must_use]
    pub fn chunk_files(&self) -> Vec<(usize, PathBuf)> {
        let mut found = Vec::new();
        for (i, server) in self.servers.iter().enumerate() {
            let mut dirs = vec![server.data.clone()];
            while let Some(dir) = dirs.pop() {
                for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                    let path = entry.path();
                    if path.is_dir() {
                        dirs.push(path);
                    } else if path.extension().is_some_and(|e| e == "chunk") {
                        found.push((i, path));
                    }
                }
            }
        }
        found.sort();
        found
    }
}
