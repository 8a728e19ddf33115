//! Real chunkservers in one process, a master that only the test speaks for, and a writer made of raw frames.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests; each file uses a part")]

pub mod fast;
pub mod gate;
pub mod master;
pub mod writer;

use std::{sync::Arc, time::Duration};

use quarry_chunkserver::{
    server::{Chunkserver, ChunkserverConfig},
    store::{DirConfig, Durability},
};
use quarry_chunkserver_core::scrub::Pace;
use quarry_client::frames::{self, Conn};
use quarry_env::{World, clock::timeout};
use quarry_proto::{signed, v1};
use quarry_types::{ClusterId, ClusterKey, Epoch, Leadership, Lineage, ServerId};
use tempfile::TempDir;
use uuid::Uuid;

use master::Master;

/// Long enough for anything that is going to happen at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing is read again within a test that does not ask for it: what was just sealed has just been verified.
pub const SCRUB: Pace = Pace { period: Duration::from_secs(86_400), rate: 32 << 20 };

pub fn world() -> World {
    World::real(Arc::new(quarry_env_rocks::Rocks))
}

pub fn key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

pub fn cluster() -> ClusterId {
    ClusterId::from_random(42)
}

pub fn epoch(epoch: u64) -> Leadership {
    Leadership { lineage: Lineage { number: 1, id: Uuid::from_u128(1) }, epoch: Epoch(epoch) }
}

/// Awaits what must happen.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(&*world().clock, PATIENCE, what).await.expect("it happens in time")
}

pub fn config(dir: &TempDir, masters: Vec<String>) -> ChunkserverConfig {
    ChunkserverConfig {
        dirs: vec![DirConfig { path: dir.path().join("data"), capacity: None }],
        key: key(),
        masters,
        listen: "127.0.0.1:0".into(),
        advertise: None,
        rack: "r".into(),
        durability: Durability::Sealed,
        // Tests look at files, and damage them.
        small_chunks: 0,
        scrub: SCRUB,
        http: Some("127.0.0.1:0".into()),
        local_socket: Some(dir.path().join("data/local.sock")),
    }
}

/// Chunkservers, registered with a master of epoch 5.
pub struct Cluster {
    pub world: World,
    pub master: Master,
    pub servers: Vec<Option<Chunkserver>>,
    pub dirs: Vec<TempDir>,
    members: Vec<(ServerId, String)>,
}

impl Cluster {
    pub async fn start(servers: usize) -> Cluster {
        Self::start_in(world(), servers).await
    }

    pub async fn start_in(world: World, servers: usize) -> Cluster {
        let master = Master::start(&world, epoch(5)).await;
        let mut cluster = Cluster { world, master, servers: Vec::new(), dirs: Vec::new(), members: Vec::new() };
        for _ in 0..servers {
            let dir = TempDir::new().unwrap();
            let config = config(&dir, vec![cluster.master.address.clone()]);
            let server = Chunkserver::start(cluster.world.clone(), config).await.unwrap();
            cluster.members.push((server.server(), server.address().to_owned()));
            soon(cluster.master.beat_of(server.server())).await;
            soon(cluster.master.report_of(server.server())).await;
            cluster.servers.push(Some(server));
            cluster.dirs.push(dir);
        }
        cluster
    }

    pub fn server(&self, i: usize) -> ServerId {
        self.members[i].0
    }

    pub fn running(&self, i: usize) -> &Chunkserver {
        self.servers[i].as_ref().unwrap()
    }

    /// As `kill -9` does: connections break, nothing is said.
    pub fn kill(&mut self, i: usize) {
        drop(self.servers[i].take());
    }

    pub fn grant(&self, chunk: u64) -> v1::Grant {
        v1::Grant {
            cluster: cluster().to_bytes().into(),
            leadership: Some(epoch(5).into()),
            chunk,
            members: self
                .members
                .iter()
                .map(|(server, address)| v1::Member { server: server.to_bytes().into(), address: address.clone() })
                .collect(),
            limit_bytes: quarry_types::limits::CHUNK_BYTES,
        }
    }

    pub async fn connect(&self, i: usize) -> Conn {
        let (server, address) = &self.members[i];
        frames::connect(&self.world, address, cluster(), *server, PATIENCE).await.unwrap()
    }

    /// Begins to write `chunk` through all servers.
    pub async fn write(&self, chunk: u64) -> writer::Writer {
        let conn = self.connect(0).await;
        writer::Writer::open(conn, open(&key(), &self.grant(chunk))).await.unwrap()
    }
}

pub fn open(key: &ClusterKey, grant: &v1::Grant) -> v1::OpenWrite {
    v1::OpenWrite { grant: Some(signed::sign(key, grant)), position: 0, request_id: "test-1".into() }
}

/// Bytes that differ from block to block.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
