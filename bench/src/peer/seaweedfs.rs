//! SeaweedFS: a master, three volume servers, a filer, replication 002.

use std::{io::Read, net::TcpStream, path::Path, time::Duration};

use ureq::{Agent, SendBody};

use super::{
    Peer,
    load::Files,
    ports,
    spawned::{Spawned, version},
};
use crate::{
    bed::{Durability, text},
    error::{During as _, Failed, Outcome},
    floor::ring,
};

/// A server's gRPC port lies so far above its HTTP port.
const GRPC_ABOVE: u16 = 10_000;
/// A request may take so long.
const DEADLINE: Duration = Duration::from_secs(120);
/// Two more copies on other servers of the same rack.
const REPLICATION: &str = "002";

/// A running one.
pub struct SeaweedFs {
    processes: Vec<Spawned>,
    filer: String,
}

impl SeaweedFs {
    /// Starts it with everything below `dir`.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn start(dir: &Path) -> Outcome<Self> {
        let ports = ports::free(5, GRPC_ABOVE)?;
        let [master, first, second, third, filer] = ports[..] else {
            return Err(Failed::new("starting SeaweedFS", "no ports"));
        };
        let home = |name: &str| {
            let home = dir.join(name);
            std::fs::create_dir_all(&home).during("starting SeaweedFS").map(|()| home)
        };
        let listens = |port: u16| move || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let (at, data) = (format!("127.0.0.1:{master}"), home("master")?);
        let (port, mdir) = (format!("-port={master}"), format!("-mdir={}", text(&data)?));
        let replication = format!("-defaultReplication={REPLICATION}");
        let args = ["master", "-ip=127.0.0.1", &port, &mdir, &replication, "-volumeSizeLimitMB=4096"];
        let mut processes = vec![Spawned::start("weed", &args, &dir.join("master.log"))?];
        processes[0].wait(listens(master))?;
        for (number, port) in [first, second, third].into_iter().enumerate() {
            let data = home(&format!("volume-{number}"))?;
            let (listen, store) = (format!("-port={port}"), format!("-dir={}", text(&data)?));
            let masters = format!("-master={at}");
            let args = ["volume", "-ip=127.0.0.1", &listen, &store, &masters, "-max=50", "-rack=r", "-dataCenter=d"];
            let mut started = Spawned::start("weed", &args, &dir.join(format!("volume-{number}.log")))?;
            started.wait(listens(port))?;
            processes.push(started);
        }
        let data = home("filer")?;
        let (listen, masters) = (format!("-port={filer}"), format!("-master={at}"));
        let store = format!("-defaultStoreDir={}", text(&data)?);
        let copies = format!("-defaultReplicaPlacement={REPLICATION}");
        let args = ["filer", "-ip=127.0.0.1", &listen, &masters, &store, &copies];
        let mut started = Spawned::start("weed", &args, &dir.join("filer.log"))?;
        let filer = format!("http://127.0.0.1:{filer}/bench");
        let web = Web { filer: filer.clone(), sync: false, agent: agent() };
        // A first file goes through when all volume servers are known.
        started.wait(|| web.put("probe", b"up", 2).is_ok() && web.get("probe").is_ok())?;
        processes.push(started);
        Ok(SeaweedFs { processes, filer })
    }

    /// What it calls itself.
    pub fn version(&self) -> String {
        format!("SeaweedFS {}", version("weed", &["version"]))
    }
}

impl Peer for SeaweedFs {
    fn name(&self) -> &'static str {
        "seaweedfs"
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Spawned::pid).collect()
    }

    fn files(&self, durability: Durability) -> Box<dyn Files> {
        Box::new(Web { filer: self.filer.clone(), sync: durability == Durability::Sealed, agent: agent() })
    }
}

fn agent() -> Agent {
    // As many idle connections as there are small files at once.
    Agent::config_builder()
        .timeout_global(Some(DEADLINE))
        .max_idle_connections(64)
        .max_idle_connections_per_host(64)
        .build()
        .new_agent()
}

/// Files behind the filer.
struct Web {
    filer: String,
    sync: bool,
    agent: Agent,
}

impl Web {
    fn url(&self, name: &str) -> String {
        format!("{}/{name}{}", self.filer, if self.sync { "?fsync=true" } else { "" })
    }
}

impl Files for Web {
    fn put(&self, name: &str, ring: &[u8], bytes: u64) -> Outcome {
        let mut body = Repeated { ring, at: 0, left: bytes };
        let request = self.agent.put(self.url(name)).header("Content-Length", bytes.to_string());
        let mut answer = request.send(SendBody::from_reader(&mut body)).during(format!("writing {name}"))?;
        answer.body_mut().read_to_vec().map(drop).during(format!("writing {name}"))
    }

    fn get(&self, name: &str) -> Outcome<u64> {
        let doing = format!("reading {name}");
        let mut answer = self.agent.get(format!("{}/{name}", self.filer)).call().during(&doing)?;
        let mut from = answer.body_mut().as_reader();
        let (mut buffer, mut bytes) = (vec![0; ring::PIECE_BYTES], 0);
        loop {
            match from.read(&mut buffer).during(&doing)? {
                0 => return Ok(bytes),
                more => bytes += more as u64,
            }
        }
    }

    fn stat(&self, name: &str) -> Outcome<u64> {
        let doing = format!("looking up {name}");
        let answer = self.agent.head(format!("{}/{name}", self.filer)).call().during(&doing)?;
        let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        length.ok_or_else(|| Failed::new(doing, "the answer has no length"))
    }

    fn remove(&self, name: &str) -> Outcome {
        let mut answer = self.agent.delete(self.url(name)).call().during(format!("removing {name}"))?;
        answer.body_mut().read_to_vec().map(drop).during(format!("removing {name}"))
    }
}

/// The ring over and over.
struct Repeated<'a> {
    ring: &'a [u8],
    at: usize,
    left: u64,
}

impl Read for Repeated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = most.min(self.ring.len() - self.at);
        buffer[..part].copy_from_slice(&self.ring[self.at..self.at + part]);
        self.at = (self.at + part) % self.ring.len();
        self.left -= part as u64;
        Ok(part)
    }
}
