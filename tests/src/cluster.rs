//! A master and chunkservers as processes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    cli::{self, Output},
    namespace::Namespace,
    network::Network,
    process::{Place, Process, binary},
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
    /// Settings that the cluster is made with, as in `trash=0`.
    pub settings: Vec<String>,
    /// Masters.
    pub masters: usize,
    /// What the master logs.
    pub master_log: String,
    /// More arguments for the master.
    pub master_args: Vec<String>,
    /// More arguments for each chunkserver.
    pub chunkserver_args: Vec<String>,
    /// More arguments for single chunkservers, by index.
    pub args_of: Vec<Vec<String>>,
    /// Data directories of a chunkserver, instead of one below the cluster's own.
    pub data_dirs: Vec<Option<PathBuf>>,
    /// The master's data directory, instead of one below the cluster's own.
    pub master_dir: Option<PathBuf>,
    /// The address that servers listen at.
    pub host: String,
    /// Chunkservers that live in a network namespace, by index: its name, and the address that they have there.
    pub namespaces: Vec<Option<(String, String)>>,
    /// Network namespaces that the masters live in, one each: their names, and the addresses that they have there.
    pub master_machines: Vec<(String, String)>,
    /// Environment variables of single masters, by index.
    pub env_of_masters: Vec<Vec<(String, String)>>,
}

impl Options {
    /// The last chunkserver lives in this namespace, everything else outside of it.
    #[must_use]
    pub fn beside(mut self, namespace: &Namespace) -> Self {
        self.host = namespace.outside.clone();
        self.namespaces = vec![None; self.chunkservers - 1];
        self.namespaces.push(Some((namespace.name.clone(), namespace.inside.clone())));
        self
    }

    /// Each master lives on a machine of this network, everything else outside of it.
    #[must_use]
    pub fn masters_on(mut self, network: &Network) -> Self {
        self.host = network.outside.clone();
        self.master_machines = network.machines.clone();
        self
    }

    /// Where a master lives, from 0.
    fn place_of_master(&self, index: usize) -> (Place, &str) {
        let machine = self.master_machines.get(index);
        let (namespace, host) = machine.map_or((None, &self.host), |(name, address)| (Some(name.clone()), address));
        (Place { namespace, env: self.env_of_masters.get(index).cloned().unwrap_or_default() }, host)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chunkservers: 3,
            racks: 1,
            settings: Vec::new(),
            masters: 1,
            master_log: MASTER_LOG.into(),
            master_args: Vec::new(),
            chunkserver_args: Vec::new(),
            args_of: Vec::new(),
            data_dirs: Vec::new(),
            master_dir: None,
            host: "127.0.0.1".into(),
            namespaces: Vec::new(),
            master_machines: Vec::new(),
            env_of_masters: Vec::new(),
        }
    }
}

/// A server that can be stopped and started again at its address.
pub struct Server {
    process: Option<Process>,
    program: &'static str,
    args: Vec<String>,
    place: Place,
    log: PathBuf,
    /// `HOST:PORT`.
    pub address: String,
    /// Its data directory.
    pub data: PathBuf,
}

impl Server {
    fn start(
        program: &'static str,
        args: Vec<String>,
        (place, host): (Place, &str),
        log: PathBuf,
        data: PathBuf,
    ) -> Self {
        let address = format!("{host}:0");
        let mut server = Server { process: None, program, args, place, log, address, data };
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
        let (process, address) = Process::serve(self.program, &args, &self.place, &self.log);
        self.address = address;
        self.process = Some(process);
    }

    /// The command that starts it at its address, for a start that is to fail.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary(self.program));
        command.args(&self.args).args(["--listen", &self.address]);
        command
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

/// Makes and runs one more master, which is in no group yet.
fn another_master(dir: &Path, number: usize, first: &Server, options: &Options) -> Server {
    let text = |name: String| dir.join(name).to_str().expect("a temporary path is text").to_owned();
    let (data, key) = (text(format!("master{number}")), text("cluster.key".into()));
    let join = Command::new(binary("quarry-master"))
        .args(["join", "--data", &data, "--key-file", &key, "--masters", &first.address])
        .output()
        .expect("quarry-master starts");
    assert!(join.status.success(), "join failed: {}", String::from_utf8_lossy(&join.stderr));
    let mut args: Vec<String> =
        ["run", "--data", &data, "--key-file", &key, "--log", &options.master_log, "--http", "127.0.0.1:0"]
            .map(String::from)
            .to_vec();
    args.extend(options.master_args.iter().cloned());
    let log = dir.join(format!("master{number}.log"));
    Server::start("quarry-master", args, options.place_of_master(number - 1), log, data.into())
}

/// A cluster that ends with its guard.
pub struct Cluster {
    /// The first master.
    pub master: Server,
    /// The other masters.
    pub others: Vec<Server>,
    /// The chunkservers.
    pub servers: Vec<Server>,
    /// All masters, as `--masters` takes them.
    pub masters: String,
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
            .args(options.settings.iter().flat_map(|setting| ["--set", setting]))
            .output()
            .expect("quarry-master starts");
        assert!(init.status.success(), "init failed: {}", String::from_utf8_lossy(&init.stderr));
        let mut args: Vec<String> =
            ["run", "--data", &text(&data), "--key-file", &text(&key), "--log", &options.master_log]
                .map(String::from)
                .to_vec();
        args.extend(["--http".into(), "127.0.0.1:0".into()]);
        args.extend(options.master_args.iter().cloned());
        let master = Server::start("quarry-master", args, options.place_of_master(0), at("master.log"), data);
        let others: Vec<Server> =
            (2..=options.masters).map(|n| another_master(dir.path(), n, &master, options)).collect();
        if !others.is_empty() {
            let addresses = others.iter().map(|other| other.address.as_str());
            let add: Vec<&str> = ["masters", "add"].into_iter().chain(addresses).collect();
            cli::run(&master.address, &add).ok();
        }
        let masters: Vec<&str> = [&master].into_iter().chain(&others).map(|m| m.address.as_str()).collect();
        let masters = masters.join(",");
        let servers = (0..options.chunkservers)
            .map(|i| {
                let data = options.data_dirs.get(i).cloned().flatten().unwrap_or_else(|| at(&format!("cs{i}")));
                let rack = format!("r{}", i % options.racks);
                let fixed = ["run", "--data", &text(&data), "--key-file", &text(&key), "--masters", &masters];
                let mut args: Vec<String> = fixed.map(String::from).to_vec();
                args.extend(["--rack".into(), rack, "--http".into(), "127.0.0.1:0".into()]);
                args.extend(options.chunkserver_args.iter().cloned());
                args.extend(options.args_of.get(i).into_iter().flatten().cloned());
                let (namespace, host) = match options.namespaces.get(i).cloned().flatten() {
                    Some((name, address)) => (Some(name), address),
                    None => (None, options.host.clone()),
                };
                let place = Place { namespace, env: Vec::new() };
                Server::start("quarry-chunkserver", args, (place, &host), at(&format!("cs{i}.log")), data)
            })
            .collect();
        let cluster = Cluster { master, others, servers, masters, dir };
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
        cli::run(&self.masters, args)
    }

    /// Puts these bytes under this name; `options` are more arguments of `put`.
    ///
    /// # Panics
    /// When that fails.
    pub fn put(&self, name: &str, options: &[&str], bytes: &[u8]) {
        cli::run_with_input(&self.masters, &[&["put"], options, &["-", name]].concat(), bytes).ok();
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

    /// `quarry repairs --json`: the ledger.
    #[must_use]
    pub fn repairs(&self) -> Vec<serde_json::Value> {
        self.quarry(&["repairs", "--json"]).json()["repairs"].as_array().cloned().unwrap_or_default()
    }

    /// What `status` says of a chunkserver.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn status_of(&self, server: usize) -> serde_json::Value {
        let address = &self.servers.get(server).expect("a server of this cluster").address;
        let status = self.status();
        let servers = status["chunkservers"].as_array().cloned().unwrap_or_default();
        servers.into_iter().find(|s| s["address"] == address.as_str()).expect("the server is known")
    }

    /// The state of a chunkserver in `status`.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn state_of(&self, server: usize) -> String {
        self.status_of(server)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Changes settings of the cluster.
    ///
    /// # Panics
    /// When they are refused.
    pub fn set(&self, changes: &[&str]) {
        self.quarry(&[&["settings"], changes].concat()).ok();
    }

    /// The lines of the master's log that contain `what`.
    #[must_use]
    pub fn logged(&self, what: &str) -> Vec<String> {
        self.master.log().lines().filter(|line| line.contains(what)).map(String::from).collect()
    }

    /// Waits until a chunkserver is in a state.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn wait_state(&self, server: usize, state: &str, limit: Duration) {
        wait::until(&format!("server {server} {state}"), limit, || {
            let is = self.state_of(server);
            if is == state { Ok(()) } else { Err(is) }
        });
    }

    /// Waits until the ledger is empty and each chunk of the files is on three servers, and says where the replicas of each chunk of the files are: the servers, by index.
    ///
    /// # Panics
    /// When it is not in time.
    #[must_use]
    pub fn wait_whole(&self, files: &[String], limit: Duration) -> Vec<Vec<usize>> {
        wait::until("all chunks whole", limit, || {
            let ledger = self.quarry(&["repairs", "--json"]).json();
            let rows = ledger["repairs"].as_array().cloned().unwrap_or_default();
            let incomplete = ledger["incomplete"].as_str().unwrap_or_default();
            if let Some(first) = rows.first() {
                return Err(format!("{} rows; the first: {first}", rows.len()));
            }
            if !incomplete.is_empty() {
                return Err(incomplete.to_owned());
            }
            // A server that is out of reach for a moment, or a replica that changed just now, is in no row yet.
            let placed: Vec<Vec<usize>> = files.iter().flat_map(|file| self.placed(file)).collect();
            match placed.iter().find(|servers| servers.len() < 3) {
                Some(few) => Err(format!("the ledger is empty, and a chunk is on {few:?} only")),
                None => Ok(placed),
            }
        })
    }

    /// The servers that hold each chunk of a file sealed, by index.
    #[must_use]
    pub fn placed(&self, file: &str) -> Vec<Vec<usize>> {
        let chunks = self.chunks(file)["chunks"].as_array().cloned().unwrap_or_default();
        let holders = |chunk: &serde_json::Value| {
            let replicas = chunk["replicas"].as_array().cloned().unwrap_or_default();
            // Until the report of a replica is here it is known by its receipt, as fenced.
            let good = replicas
                .iter()
                .filter(|r| (r["state"] == "sealed" || r["state"] == "fenced") && r["reachable"] != false);
            good.map(|r| self.server_at(r["address"].as_str().unwrap_or_default())).collect()
        };
        chunks.iter().map(holders).collect()
    }

    /// Waits until the master knows of every replica by a report: receipts tell of them earlier.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_reported(&self) {
        wait::until("every replica to be reported", Duration::from_secs(60), || {
            let files = self.chunk_files();
            let there = |server: usize| files.iter().filter(|(holder, _)| *holder == server).count() as u64;
            let known = |server: usize| self.status_of(server)["chunks"].as_u64();
            match (0..self.servers.len()).find(|server| known(*server) != Some(there(*server))) {
                Some(server) => Err(format!("server {server}: {:?} of {}", known(server), there(server))),
                None => Ok(()),
            }
        });
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
